"""Train a head on precomputed features: the frozen base is nearly all of the work, and its features do not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BATCH = 32
PATIENCE = 5  # epochs without a lower validation loss


@dataclass(frozen=True)
class Fit:
    """``curves``: loss and accuracy after each epoch; those on validation samples begin with ``val_``. ``epochs``: of the
    final training. ``scores``: of validation samples, (n, labels), by the head that was not trained on them.
    """

    curves: Mapping[str, list[float]]
    epochs: int
    scores: np.ndarray


def views(extractor: Any, inputs: np.ndarray, number: int, advance: Callable[[], None] = lambda: None) -> np.ndarray:
    """Features float32 (number, n, ...) of each sample: the first unchanged, the others augmented.

    ``extractor``: a Keras model that augments when called with ``training=True``. ``advance`` is called after each
    batch.
    """
    run = tf.function(extractor, reduce_retracing=True)
    rows = []
    for view in range(number):
        found = []
        for start in range(0, len(inputs), BATCH):
            found.append(np.asarray(run(tf.convert_to_tensor(inputs[start : start + BATCH]), training=view > 0)))
            advance()
        rows.append(np.concatenate(found))
    return np.stack(rows)


def class_weights(classes: np.ndarray) -> dict[int, float]:
    """Sample weights that give every class the same total."""
    counts = np.bincount(classes)
    return {index: len(classes) / (len(counts) * count) for index, count in enumerate(counts)}


def fit_head(
    head: Any,
    features: np.ndarray,
    classes: np.ndarray,
    validates: np.ndarray,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> Fit:
    """Find the number of epochs on validation samples, then train that long on all samples from the start.

    ``head``: a Keras model, features -> probabilities; trained in place. ``features``: (views, n, ...); the first view is
    not augmented. ``classes``: int (n,). ``validates``: bool (n,).
    """
    initial = head.get_weights()
    stop = keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)
    seen = features[0, validates], classes[validates]
    train = partial(_fit, head, learning_rate=learning_rate, seed=seed)
    history = train(features[:, ~validates], classes[~validates], epochs=epochs, validation_data=seen, callbacks=[stop])
    scores = head.predict(seen[0], verbose=0)
    best = 1 + int(np.argmin(history["val_loss"]))
    head.set_weights(initial)
    train(features, classes, epochs=best)
    return Fit(history, best, scores)


def _fit(
    head: Any, features: np.ndarray, classes: np.ndarray, *, learning_rate: float, seed: int, **options: Any
) -> dict[str, list[float]]:
    keras.utils.set_random_seed(seed)
    optimizer = keras.optimizers.Adam(learning_rate)
    head.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    found: dict[str, list[float]] = head.fit(
        features.reshape(-1, *features.shape[2:]),
        np.tile(classes, len(features)),
        batch_size=BATCH,
        class_weight=class_weights(classes),
        verbose=0,
        **options,
    ).history
    return found
