"""Build a Keras 3 model from a definition and weights, for comparison and where only Keras can assign weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from builder.reading.formats.limits import MAX_BYTES
from builder.reading.formats.stored import LOADING_ERRORS, LayerPath, Weights, reason_of
from builder.reading.layers import made, unallocated
from builder.support.errors import ModelFileError
from edge_runtime.counting import count_of


def rebuild(definition: Mapping[str, Any], weights: Weights, path: Path, *, allow_code: bool = False) -> Any:
    """The model with its weights. Raises ``ModelFileError`` where they do not fit each other."""
    model = build(definition, path, sum(w.size for values in weights.values() for w in values), allow_code=allow_code)
    layers = leaves(model)
    for place, values in weights.items():
        if place not in layers:
            raise ModelFileError(f"{path}: weights for a layer {'/'.join(place)!r:.80} that does not exist")
        try:
            layers[place].set_weights(list(values))
            if hasattr(layers[place], "finalize_state"):  # Normalization computes with copies of its weights
                layers[place].finalize_state()
        except LOADING_ERRORS as error:
            raise ModelFileError(
                f"{path}: the weights of layer {'/'.join(place)!r:.80} do not fit it: {reason_of(error)}"
            ) from error
    return model


def build(definition: Mapping[str, Any], path: Path, numbers: int, *, allow_code: bool = False) -> Any:
    """The model with random weights; ``numbers``: as many as the file has for it. Raises ``ModelFileError``."""
    try:
        sketch = unallocated(lambda: _deserialized(definition, allow_code))
        asked = sum(int(np.prod(v.shape, dtype=np.float64)) for v in sketch.weights)
        if asked > numbers + 1024 or asked * 4 > MAX_BYTES:
            raise ModelFileError(
                f"{path}: its layers have {asked:,} weights, and the file {numbers:,}; copy or save the model again"
            )
        model = _deserialized(definition, allow_code)
        if not isinstance(model, keras.Model) or not model.built:
            raise ModelFileError(f"{path}: the shape of its input is not in the file; save it with input_shape set")
    except ModelFileError:
        raise
    except LOADING_ERRORS as error:
        raise ModelFileError(f"{path}: Keras {keras.__version__} cannot rebuild it: {reason_of(error)}") from error
    return model


def _deserialized(definition: Mapping[str, Any], allow_code: bool) -> Any:
    """Keras removes the layers from its argument, so it gets a copy."""
    return made(copy.deepcopy(dict(definition)), allow_code=allow_code)


def leaves(model: Any) -> dict[LayerPath, Any]:
    """The layers of a model and of the models within it, by their path."""
    found: dict[LayerPath, Any] = {}

    def collect(layer: Any, path: LayerPath) -> None:
        if isinstance(layer, keras.Model):
            for inner in layer.layers:
                collect(inner, (*path, inner.name))
        else:
            found[path] = layer

    collect(model, ())
    return found


def weights_by_order(
    definition: Mapping[str, Any], groups: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path, *, allow_code: bool
) -> dict[LayerPath, list[np.ndarray]]:
    """The weights of each layer where names are ambiguous: assigned in the order of Keras's layers.

    ``groups``: (name, weights) of every layer with weights, in the file's order; a nested model is one layer.
    """
    model = build(definition, path, sum(w.size for _, values in groups for w in values), allow_code=allow_code)
    layers = [layer for layer in model.layers if layer.weights]
    if len(layers) != len(groups):
        raise ModelFileError(
            f"{path}: {count_of(len(groups), 'layers')} with weights in the file, expected {len(layers)}"
        )
    stored: dict[int, np.ndarray] = {}
    for layer, (name, values) in zip(layers, groups, strict=True):
        own = [*layer.trainable_weights, *layer.non_trainable_weights]
        if [tuple(v.shape) for v in own] != [w.shape for w in values]:
            raise ModelFileError(f"{path}: the weights of layer {name!r:.80} do not fit it; copy or save the model again")
        stored.update(zip(map(id, own), values, strict=True))
    return {place: [stored[id(v)] for v in leaf.weights] for place, leaf in leaves(model).items() if leaf.weights}
