"""The result of merging, whatever the classifiers were read from: backbone, heads, and both as a float file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from builder.merging.backbone import SharedBackbone
from builder.merging.operators import head_part, merge_operators, output_shape
from builder.reading.classifier import Classifier
from builder.reading.graph import Ref
from builder.reading.source_input import SourceInput
from builder.reading.tflite.classifier import TfliteClassifier
from builder.tflite.flatbuffer import Part

Features = Mapping[str, np.ndarray]  # float (samples, ...) for every name of the seam


class Merged(Protocol):
    """``heads``: by name, in the user's order. ``seam``: names of the backbone's outputs.

    Every head ends in probabilities, also where the original gave bare logits.
    """

    @property
    def source_input(self) -> SourceInput: ...
    @property
    def heads(self) -> Mapping[str, Any]: ...
    @property
    def digest(self) -> str: ...
    @property
    def seam(self) -> tuple[str, ...]: ...

    def features(self, tensors: np.ndarray) -> Features:
        """Float tensors of the seam for the device's tensors (samples, ...): pixels 0..255 or tokens."""

    def head_scores(self, name: str, features: Features) -> np.ndarray:
        """Float probabilities (samples, labels)."""

    def needs_words(self) -> bool:
        """Whether a text without tokens gives NaN, as a mean over no tokens does."""

    def float_model(self) -> bytes:
        """A float ``.tflite`` with a signature ``backbone`` and one for each head; see ``convert.convert``."""


def seam_shapes(classifiers: Sequence[Classifier], shared: SharedBackbone) -> list[list[int]]:
    """Shapes of all tensors between backbone and heads, without the batch axis."""
    if isinstance(classifiers[0], TfliteClassifier):
        graph = classifiers[0].graph
        return [list(output_shape(graph, ref)[1:]) for ref in shared.seams[0].values()]
    from builder.merging.rebuild import backbone_model  # imports TensorFlow

    return [list(tensor.shape[1:]) for tensor in backbone_model(classifiers, shared).outputs]


def float_head(
    classifier: Classifier, nodes: Sequence[int], seam: Mapping[str, Ref], shapes: Mapping[str, tuple[int, ...]]
) -> Part:
    """``nodes`` of a classifier as a float part: the tensors of ``seam`` that they read -> scores (1, labels).

    ``shapes``: of the seam's tensors, without the batch axis. Raises ``ModelFileError`` and ``ConfigError``.
    """
    if isinstance(classifier, TfliteClassifier):
        return head_part(classifier, nodes, seam, {name: (1, *shape) for name, shape in shapes.items()})
    from builder.merging.convert import convert_heads  # imports TensorFlow
    from builder.merging.rebuild import head_model

    name = classifier.name
    return convert_heads({name: head_model(classifier, nodes, seam, shapes)})[name]


def merge(classifiers: Sequence[Classifier], shared: SharedBackbone) -> Merged:
    """Rebuild the shared part once, from the first classifier, and each head from its own.

    Raises ``ModelFileError`` and ``ConfigError`` where a head has no output for each of its labels.
    """
    if isinstance(classifiers[0], TfliteClassifier):
        return merge_operators(classifiers, shared)
    from builder.merging.merge import merge as merge_layers  # imports TensorFlow

    return merge_layers(classifiers, shared)
