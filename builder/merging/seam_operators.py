"""What a seam is in operators: by it a ``.tflite`` head finds its base in a finished file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from builder.reading.classifier import Classifier
from builder.reading.graph import Graph, Ref, UnreadableModelError, WeightPool, upstream
from builder.reading.picture_input import PictureSourceInput
from builder.reading.tflite.classifier import TfliteClassifier, one_form
from builder.reading.tflite.constants import UnreadableTensorError
from builder.reading.tflite.digests import operator_digests
from builder.reading.tflite.sketches import SeamOperators, Sketch, sketched
from builder.tflite.flatbuffer import read_parts
from edge_runtime.metadata import BACKBONE


def seam_operators(float_model: bytes, first: Classifier, seam: Mapping[str, Ref]) -> SeamOperators | None:
    """The seam as a ``.tflite`` source of the same backbone has it.

    ``first``: of the classifiers that share it. ``seam``: its tensors. None where it cannot be read so: it takes texts,
    or mixes the channels of its pictures in front.
    """
    source_input = first.source_input
    if not isinstance(source_input, PictureSourceInput):
        return None
    if not isinstance(first, TfliteClassifier) and not source_input.pixels.is_uniform:
        return None
    digests, constants = dict[str, str](), dict[str, Sketch]()
    try:
        for name, graph, ref in _graphs(float_model, first, seam):
            named, own = sketched(graph, upstream(graph, [ref]))
            digests[name] = operator_digests(named, source_input.identity)[ref.node]
            constants.update((sketch.name, sketch) for sketch in own)
    except (UnreadableModelError, UnreadableTensorError):
        return None
    return SeamOperators(digests, tuple(constants.values()))


def _graphs(float_model: bytes, first: Classifier, seam: Mapping[str, Ref]) -> Iterator[tuple[str, Graph, Ref]]:
    """Each tensor of the seam in a graph of operators."""
    if isinstance(first, TfliteClassifier):
        yield from ((name, first.graph, ref) for name, ref in seam.items())
        return
    part = read_parts(float_model)[BACKBONE]
    for name in seam:
        graph = one_form(replace(part, outputs={name: part.outputs[name]}), WeightPool())
        yield name, graph, graph.output
