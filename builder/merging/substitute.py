"""Heads of one structure are converted once: the others reuse the result with their own weights in it.

The TensorFlow converter takes a tenth of a second for a dense layer: 200 heads would cost more than their backbone.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np

from builder.tflite.flatbuffer import FLOAT32, Part
from builder.tflite.parts import constant

_SEED = 0


class Place(NamedTuple):
    """Where a constant comes from: the index of a weight in ``get_weights``, and the order of its axes."""

    weight: int
    axes: tuple[int, ...]


def groups(heads: Mapping[str, Any]) -> list[list[str]]:
    """Group the names of heads that differ only in their weights, in the order of the first of each group."""
    found: dict[str, list[str]] = {}
    for name, head in heads.items():
        found.setdefault(_structure(head), []).append(name)
    return list(found.values())


def template(head: Any) -> Any:
    """A copy of a Keras model with random weights, so that each is recognized in the converted file."""
    own = keras.models.clone_model(head)
    rng = np.random.default_rng(_SEED)
    own.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in own.get_weights()])
    return own


def places(part: Part, weights: list[np.ndarray]) -> dict[int, Place] | None:
    """The weight that each constant tensor of a converted template holds.

    None where the converter computed with weights, for example folded a BatchNormalization: then each head must be
    converted separately.
    """
    found: dict[int, Place] = {}
    for i, tensor in enumerate(part.tensors):
        values = constant(part, i, np.float32) if tensor.type == FLOAT32 else None
        if values is None or not values.size:
            continue
        place = next((p for index, w in enumerate(weights) if (p := _same(values, w, index))), None)
        if place is not None:
            found[i] = place
        elif values.size > 1:
            return None
    return found if {place.weight for place in found.values()} == set(range(len(weights))) else None


def stamped(part: Part, where: Mapping[int, Place], weights: list[np.ndarray]) -> Part:
    """A copy of ``part`` with ``weights`` in the places of ``where``."""
    own = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers))
    for tensor, place in where.items():
        own.set_constant(tensor, np.ascontiguousarray(weights[place.weight].transpose(place.axes)))
    return own


def _same(values: np.ndarray, weight: np.ndarray, index: int) -> Place | None:
    if values.size != weight.size:
        return None
    orders = (axes for axes in itertools.permutations(range(weight.ndim)))
    flat = values.ravel()
    return next((Place(index, axes) for axes in orders if np.array_equal(weight.transpose(axes).ravel(), flat)), None)


def _structure(head: Any) -> str:
    """A model's structure as text, without the names that Keras gave its layers."""
    numbers = {name: f"layer {i}" for i, name in enumerate(layer.name for layer in head.layers)}

    def anonymous(value: Any) -> Any:
        if isinstance(value, str):
            return numbers.get(value, value)
        if isinstance(value, dict):
            return {key: anonymous(item) for key, item in value.items() if key not in ("name", "shared_object_id")}
        return [anonymous(item) for item in value] if isinstance(value, (list, tuple)) else value

    inputs = [(tensor.name, tuple(tensor.shape)) for tensor in head.inputs]
    return json.dumps([inputs, anonymous(head.get_config()["layers"])], sort_keys=True, default=str)
