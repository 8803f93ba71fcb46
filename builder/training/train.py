"""Train a classifier on a frozen base: compute features once, train a head on them, write both as one Keras file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf

from builder.scoring.features import holds_features
from builder.support.errors import ConfigError
from builder.support.files import written
from builder.support.progress import Stages
from builder.support.tracing import traced
from builder.training.base import LITE0, Base, picture_base, text_base
from builder.training.fit import BATCH, fit_head, views
from builder.training.report import write_report
from builder.training.samples import Samples, read_class_folders, read_csv, validating
from builder.training.stored import check_base, read_features
from builder.training.trained import Judged, TrainConfig, Trained
from edge_runtime.image_input import COLORS, ImageInput


@traced()
def train_head(config: TrainConfig, *, progress: TextIO | None = None) -> Trained:
    """Train, evaluate on held-out samples, and write ``output``, its labels as ``.txt``, and the report.

    Equal inputs give equal weights. Raises ``BuilderError``; then nothing was written.
    """
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    stages = Stages(progress)
    texts, stored = config.samples.suffix.lower() == ".csv", holds_features(config.samples)
    with stages("load"):
        base = base_of(config)
    with stages("read"):
        samples = _read(config, config.samples, base)
        held_out = None if config.held_out is None else _read(config, config.held_out, base)
    if held_out is not None and held_out.labels != samples.labels:
        raise ConfigError(
            f"{config.held_out}: expected the labels {', '.join(samples.labels)}, found {', '.join(held_out.labels)}"
        )
    number = 1 if texts or stored else config.views
    with stages("features", number * -(-len(samples.classes) // BATCH)) as advance:
        extractor = base.model if texts or stored else _augmented(base, config)
        features = samples.inputs[None] if stored else views(extractor, samples.inputs, number, advance)
    trained = train_on(config, base, samples, features, held_out=held_out, stages=stages)
    write_report(trained, config.report_folder)
    return trained


@traced()
def train_on(
    config: TrainConfig,
    base: Base,
    samples: Samples,
    features: np.ndarray,
    *,
    held_out: Samples | None = None,
    stages: Stages | None = None,
) -> Trained:
    """Train a head on ``features``, (views, samples, features), and write base and head to ``output``."""
    tf.config.experimental.enable_op_determinism()
    stages, validates = stages or Stages(None), validating(samples)
    with stages("train"):
        keras.utils.set_random_seed(config.seed)  # again: imports in between may have drawn random numbers
        head = new_head(features.shape[-1], len(samples.labels), config)
        fit = fit_head(
            head,
            features,
            samples.classes,
            validates,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            seed=config.seed,
        )
    judged = None
    if held_out is not None:
        seen = held_out.inputs if held_out.inputs.ndim == 2 else views(base.model, held_out.inputs, 1)[0]
        judged = Judged.of(head.predict(seen, verbose=0), held_out.classes)
    _save(keras.Model(base.model.inputs, head(base.model.output), name=config.output.stem), samples.labels, config.output)
    return Trained(
        config=config,
        labels=samples.labels,
        samples=len(samples.classes),
        features=f"{features.shape[-1]} features, {base.features}",
        fit=fit,
        validation=Judged.of(fit.scores, samples.classes[validates]),
        held_out=judged,
        seconds=stages.seconds,
    )


def new_head(features: int, labels: int, config: TrainConfig) -> Any:
    """A Keras model, features -> probabilities: dropout and a dense layer, after another one of ``hidden`` units if >
    0.
    """
    penalty = keras.regularizers.L2(config.penalty)
    x = source = keras.Input((features,), name="features")
    if config.hidden:
        x = keras.layers.Dense(config.hidden, activation="relu", kernel_regularizer=penalty, name="hidden")(x)
    x = keras.layers.Dropout(config.dropout, seed=config.seed)(x)
    scores = keras.layers.Dense(labels, activation="softmax", kernel_regularizer=penalty, name="scores")(x)
    return keras.Model(source, scores, name="head")


def base_of(config: TrainConfig) -> Base:
    """The frozen base that ``config`` names. Raises ``BuilderError``."""
    if config.samples.suffix.lower() != ".csv":
        return picture_base(config.backbone, config.preprocessing, config.size)
    if config.backbone == LITE0:
        raise ConfigError(f"{config.samples}: texts need a base for texts; give a .keras file as --backbone")
    return text_base(Path(config.backbone))


def picture_spec(base: Base) -> ImageInput:
    """The base's input, as a device prepares it."""
    _, height, width, channels = base.model.input_shape
    return ImageInput(height, width, color=next(color for color, count in COLORS.items() if count == channels))


def _read(config: TrainConfig, source: Path, base: Base) -> Samples:
    if source.suffix.lower() == ".csv":
        return read_csv(source)
    spec = picture_spec(base)
    if not holds_features(source):
        return read_class_folders(source, spec, group_by=config.group_by)
    samples = read_features(source, group_by=config.group_by)
    check_base(base, samples, source, spec)
    return samples


def _augmented(base: Base, config: TrainConfig) -> Any:
    """The base after layers that augment pictures in training."""
    layers = [keras.layers.RandomFlip("horizontal", seed=config.seed)] if config.flip else []
    layers += [
        keras.layers.RandomRotation(0.05, seed=config.seed),
        keras.layers.RandomZoom(0.1, seed=config.seed),
        keras.layers.RandomContrast(0.2, seed=config.seed, value_range=(0, 255)),
    ]
    return keras.Sequential([keras.Input(base.model.input_shape[1:]), *layers, base.model])


def _save(model: Any, labels: tuple[str, ...], output: Path) -> None:
    """Write model and labels; both drafts are complete before the first is moved into place."""
    names = output.with_suffix(".txt")
    with written(output) as draft, written(names) as text:
        text.write_text("".join(f"{label}\n" for label in labels), "utf-8")
        model.save(draft)
