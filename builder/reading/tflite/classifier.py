"""A ``.tflite`` file as a ``Classifier``; see the package for the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.classifier import Classifier, check_nodes
from builder.reading.formats.stored import Origin, contradictions
from builder.reading.graph import INPUT, Graph, Ref, UnreadableModelError, WeightPool, renumber
from builder.reading.picture_input import PictureSourceInput
from builder.reading.tflite.constants import UnreadableTensorError
from builder.reading.tflite.digests import operator_digests
from builder.reading.tflite.file import read_part
from builder.reading.tflite.forms import in_one_form
from builder.reading.tflite.operators import read_operators
from builder.reading.tflite.original import run_original
from builder.reading.tflite.pixels import Entry, read_entry, without_front
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import ModelFileError
from builder.tflite.flatbuffer import INT8, INT16, UINT8, Part

FOLDING = 1e-6  # of a tensor's largest value: how far folding a BatchNormalization moved weights in two converters
_ENDS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


@dataclass(frozen=True, eq=False)
class TfliteClassifier(Classifier):
    """``graph``: operators, see ``operators.operator_node``. ``entry``: the file's own input.

    ``quantized``: it computes with integers; its weights are float again, what was lost stays lost.
    """

    entry: Entry | None = None
    quantized: bool = False

    @property
    def folding(self) -> float:
        return FOLDING

    @cached_property
    def digests(self) -> list[str]:
        return operator_digests(self.graph, self.source_input.identity)

    @cached_property
    def structure(self) -> list[str]:
        return operator_digests(self.graph, self.source_input.identity, with_weights=False)

    def settings(self, index: int) -> dict[str, Any]:
        return dict(self.graph.nodes[index].config["settings"])

    def predict(self, samples: Sequence[Any]) -> np.ndarray:
        assert self.entry is not None and isinstance(self.source_input, PictureSourceInput)
        scores = run_original(self.path, self.entry.take(self.source_input.original_input(samples)))
        return scores if self.applied is None else _APPLIED[self.applied](scores)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


_APPLIED = {"softmax": _softmax, "sigmoid": _sigmoid}


def read_tflite(
    name: str, path: Path, preprocessing: PixelTransform | None, *, pool: WeightPool | None = None
) -> TfliteClassifier:
    """The classifier in ``path``. Raises ``ModelFileError``."""
    with contradictions(path):
        _, part = read_part(path)
        try:
            return _classifier(name, path, part, preprocessing, pool or WeightPool())
        except (UnreadableModelError, UnreadableTensorError) as error:
            raise ModelFileError(f"{path}: {error}") from error


def _classifier(
    name: str, path: Path, part: Part, preprocessing: PixelTransform | None, pool: WeightPool
) -> TfliteClassifier:
    entry, inside = read_entry(part)
    quantized = _is_quantized(part)
    graph = in_one_form(read_operators(part, pool), pool)
    _check_output(graph)
    origin = Origin()
    declared = preprocessing or origin.preprocessing or PixelTransform()
    if entry.low is not None:
        declared = PixelTransform()
    graph, pixels = without_front(graph, entry, declared.then(inside.scale, inside.offset))
    check_nodes(graph, path)
    source_input = PictureSourceInput(entry.size, pixels, declared, origin.fit, settled=entry.low is not None)
    graph = _once_each(graph)
    activation = _ENDS.get(graph.nodes[graph.output.node].kind, "linear")
    return TfliteClassifier(
        name=name,
        path=path,
        kind="TensorFlow Lite, " + ("int8" if quantized else "float32"),
        graph=graph,
        source_input=source_input,
        activation=activation,
        original=lambda: None,
        labels=origin.labels or (),
        applied="softmax" if activation == "linear" else None,
        entry=entry,
        quantized=quantized,
    )


def _is_quantized(part: Part) -> bool:
    """Does it compute with integers?"""
    made = {i for op in part.operators for i in op.outputs} - set(part.outputs.values())
    return any(part.tensors[i].type in (INT8, UINT8, INT16) for i in made)


def _check_output(graph: Graph) -> None:
    if graph.output.node == INPUT:
        raise UnreadableModelError("the model returns its input; not a classifier")
    node = graph.nodes[graph.output.node]
    shape = node.config["outputs"][graph.output.output]
    if [n for n in shape if n != 1] != list(shape[-1:]) and shape[-1] != 1:
        raise UnreadableModelError(f"expected scores (1, labels) at the end, found {shape}; not a classifier")


def _once_each(graph: Graph) -> Graph:
    """What is computed twice is computed once."""
    first: dict[str, int] = {}
    place = {i: first.setdefault(found, i) for i, found in enumerate(operator_digests(graph, "input"))}
    alias = {
        Ref(i, output): Ref(kept, output)
        for i, kept in place.items()
        if kept != i
        for output in range(len(graph.nodes[i].config["outputs"]))
    }
    return renumber(graph, [i for i in place if place[i] == i], alias) if alias else graph
