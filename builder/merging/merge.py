"""Keras classifiers -> one merged Keras model with a named output for each head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from builder.merging.backbone import SharedBackbone
from builder.merging.convert import convert
from builder.merging.rebuild import as_list, backbone_model, head_model
from builder.reading.classifier import Classifier
from builder.reading.formats.stored import MERGED
from builder.reading.originals.original import run_float
from builder.reading.source_input import SourceInput
from builder.reading.text_input import TextSourceInput
from builder.support.errors import NoSharedBackboneError
from builder.support.tracing import traced

_BATCH = 32  # samples at once
Features = Mapping[str, np.ndarray]  # float (samples, ...) for every name of the seam


@dataclass(frozen=True)
class MergedModel:
    """``backbone``: input of the graph (see ``source_input``) -> the tensors of the seam. Each head: the tensors of the
    seam that it reads -> scores (n, labels).

    Every head ends in probabilities, also where the original gave logits.
    """

    source_input: SourceInput
    backbone: Any  # keras.Model
    heads: dict[str, Any]  # keras.Model of each head, in the user's order; inputs are named as in the seam
    digest: str
    seam: tuple[str, ...]  # names of the backbone's outputs

    @property
    def seam_shapes(self) -> dict[str, tuple[int, ...]]:
        """Without the batch axis."""
        return {
            name: tuple(int(n) for n in tensor.shape[1:])
            for name, tensor in zip(self.seam, self.backbone.outputs, strict=True)
        }

    @traced()
    def features(self, tensors: np.ndarray) -> Features:
        """Float tensors of the seam for the device's tensors (samples, ...): pixels 0..255 or tokens."""
        inputs, dtype = self.source_input.graph_input(tensors), self.backbone.inputs[0].dtype
        batches = (tf.cast(inputs[i : i + _BATCH], dtype) for i in range(0, len(inputs), _BATCH))
        columns = zip(*(as_list(self._program(batch)) for batch in batches), strict=True)
        found = [np.concatenate([np.asarray(values) for values in column]) for column in columns]
        return dict(zip(self.seam, found, strict=True))

    @cached_property
    def _program(self) -> Any:
        """The backbone, traced once: ``predict`` traces for each size of a batch."""
        (source,) = self.backbone.inputs
        signature = [tf.TensorSpec((None, *source.shape[1:]), source.dtype)]
        return tf.function(lambda inputs: self.backbone(inputs, training=False), signature, autograph=False)

    def needs_words(self) -> bool:
        """Whether a text without tokens gives NaN, as a mean over no tokens does."""
        if not isinstance(self.source_input, TextSourceInput):
            return False
        nothing = self.source_input.graph_input(np.zeros((1, *self.source_input.shape), np.int32))
        # Called, not predicted: compiled code fuses a product with its relu, which turns NaN into 0 on some
        # processors.
        return any(not np.isfinite(np.asarray(values)).all() for values in as_list(self.backbone(nothing)))

    def head_scores(self, name: str, features: Features) -> np.ndarray:
        """Float probabilities (samples, labels)."""
        head = self.heads[name]
        return run_float(head, *(features[tensor.name] for tensor in head.inputs))

    def float_model(self) -> bytes:
        """A float ``.tflite`` with a signature ``backbone`` and one for each head; see ``convert.convert``."""
        return convert(self.backbone, self.heads, source_input=self.source_input, seam=self.seam)

    def keras_model(self) -> Any:
        """Pixels 0..255 or texts in, one named output for each head; plain Keras, loadable without this project."""
        source, entered = self.source_input.keras_input()
        seam = dict(zip(self.seam, as_list(self.backbone(entered)), strict=True))
        outputs = {name: head([seam[t.name] for t in head.inputs]) for name, head in self.heads.items()}
        return keras.Model(source, outputs, name=MERGED)


def merge(classifiers: Sequence[Classifier], shared: SharedBackbone) -> MergedModel:
    """Rebuild the shared part once, from the first classifier, and each head from its own.

    Raises ``ModelFileError`` and ``ConfigError`` where a head has no output for each of its labels.
    """
    first = classifiers[0]
    backbone = backbone_model(classifiers, shared)
    names = tuple(shared.seams[0])
    _check_numbers(classifiers[0], shared, backbone)
    shapes = {name: tensor.shape[1:] for name, tensor in zip(names, backbone.outputs, strict=True)}
    heads = {
        c.name: head_model(c, shared.head(classifiers, i), shared.seams[i], shapes) for i, c in enumerate(classifiers)
    }
    return MergedModel(
        source_input=first.source_input,
        backbone=backbone,
        heads=heads,
        digest=f"sha256:{shared.digest}",
        seam=names,
    )


def _check_numbers(first: Classifier, shared: SharedBackbone, backbone: Any) -> None:
    """A boolean mask cannot be quantized. Raises ``NoSharedBackboneError`` where the seam has one."""
    for ref, tensor in zip(shared.seams[0].values(), backbone.outputs, strict=True):
        if "float" not in str(tensor.dtype):
            layer = first.graph.nodes[ref.node].layer
            raise NoSharedBackboneError(
                f"{first.name}: heads read a mask ({layer!r}, {tensor.dtype}) beside the features; put the layers that "
                "use it (pooling, recurrent layers, attention) into the frozen base"
            )
