"""The classifiers that are compared: several on one frozen backbone, as transfer learning gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.variants import SIDES
from builder.reading.classifier import Classifier
from builder.reading.formats.stored import StoredModel, live_weights
from builder.reading.originals.original import Answers, Shown
from builder.reading.reader import Reader
from builder.settings.input_scaling import PixelTransform
from builder.training.efficientnet_lite0 import efficientnet_lite0

LABELS = ("first", "second", "third", "fourth", "fifth")
# Outside the model, so that no variant spends time on it: it becomes part of the quantization of the input.
PIXELS = PixelTransform().then(1 / 128, -127 / 128)
_SEED = 7


def head_name(index: int) -> str:
    return f"head_{index:03d}"


def make_models(backbone: str, count: int) -> dict[str, Any]:
    """``count`` Keras classifiers by name: the same base and pooling, and a dense layer of its own, seeded."""
    base = _base(backbone)
    rng = np.random.default_rng(_SEED)
    models = {}
    for i in range(count):
        dense = keras.layers.Dense(len(LABELS), activation="softmax", name="scores")
        layers = [keras.Input(base.input_shape[1:]), base, keras.layers.GlobalAveragePooling2D(), dense]
        models[head_name(i)] = keras.Sequential(layers, name=head_name(i))
        limit = np.sqrt(6 / (base.output_shape[-1] + len(LABELS)))  # Glorot and Bengio 2010, equation 16
        kernel = rng.uniform(-limit, limit, (base.output_shape[-1], len(LABELS)))
        dense.set_weights([kernel, np.zeros(len(LABELS))])
    return models


def as_classifiers(
    models: Mapping[str, Any], labels: Sequence[str] = LABELS, pixels: PixelTransform = PIXELS
) -> list[Classifier]:
    """The result of ``builder.reading.reader`` from models in memory, so that the disk is not measured."""
    reader = Reader()
    return [
        replace(reader.classifier(name, _stored(name, model), pixels), labels=tuple(labels))
        for name, model in models.items()
    ]


def _stored(name: str, model: Any) -> StoredModel:
    definition = keras.saving.serialize_keras_object(model)
    return StoredModel(Path(f"{name}.keras"), "Keras 3", definition, live_weights(model), lambda: model, _Unasked())


class _Unasked:
    """A stand-in for the original, which no benchmark runs."""

    def start(self) -> None:
        return

    def of_output(self, place: int) -> _Unasked:
        return self

    def ask(self, shown: Shown, *, max_memory: float) -> Answers:
        raise NotImplementedError


def _base(backbone: str) -> Any:
    if backbone == "tiny":
        keras.utils.set_random_seed(_SEED)
        image = keras.Input((SIDES[backbone], SIDES[backbone], 3))
        x = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu")(image)
        return keras.Model(image, keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu")(x))
    base = efficientnet_lite0(SIDES[backbone])
    base.trainable = False
    return base
