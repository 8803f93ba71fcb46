"""What a seam is in operators: by it a ``.tflite`` head finds its base in a file built from Keras models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builder.reading.classifier import Classifier
from builder.reading.graph import UnreadableModelError, WeightPool
from builder.reading.picture_input import PictureSourceInput
from builder.reading.tflite.classifier import TfliteClassifier, one_form
from builder.reading.tflite.constants import UnreadableTensorError
from builder.reading.tflite.digests import operator_digests
from builder.tflite.flatbuffer import read_parts
from edge_runtime.metadata import BACKBONE


def seam_operators(float_model: bytes, first: Classifier, seam: Iterable[str]) -> dict[str, str]:
    """The digests of the seam's tensors as a ``.tflite`` source of the same backbone has them, by their names.

    ``first``: of the classifiers that share it. Nothing where it is of operators already, or cannot be read so: it takes
    texts, or mixes the channels of its pictures in front.
    """
    source_input = first.source_input
    if isinstance(first, TfliteClassifier) or not isinstance(source_input, PictureSourceInput):
        return {}
    if not source_input.pixels.is_uniform:
        return {}
    part, found = read_parts(float_model)[BACKBONE], dict[str, str]()
    try:
        for name in seam:
            graph = one_form(replace(part, outputs={name: part.outputs[name]}), WeightPool())
            found[name] = operator_digests(graph, source_input.identity)[graph.output.node]
    except (UnreadableModelError, UnreadableTensorError):
        return {}
    return found
