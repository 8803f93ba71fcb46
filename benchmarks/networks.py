"""The networks that ``benchmarks.quantization`` quantizes, each with the pictures of ``calibration_data``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from benchmarks.compat_files import head_weights, seed_weights
from benchmarks.subject import as_classifiers
from builder.merging.backbone import find_backbone
from builder.merging.merge import MergedModel, merge
from builder.quantizing.sensitivity import answers
from builder.reading.classifier import Classifier
from builder.reading.loading import load_classifiers
from builder.samples.calibration import read_samples
from builder.samples.files import draw_evenly, find_pictures
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import Part
from builder.training.efficientnet_lite0 import efficientnet_lite0
from edge_runtime.image_input import ImageInput
from edge_runtime.metadata import BACKBONE

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = 100
POWERS = 6  # channels of the ill-conditioned network are scaled by 2^-6 to 2^6


@dataclass(frozen=True)
class Subject:
    """A float network whose heads end in a softmax. ``calibration``, ``held_out``: pictures as its ``image`` input takes
    them; ``pixels``: the held-out ones as uint8. ``whole``: the Keras model, where there is one head.
    """

    merged: MergedModel
    float_model: bytes
    calibration: np.ndarray
    held_out: np.ndarray
    pixels: np.ndarray
    whole: Any = None

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(self.merged.heads)

    def logits(self, parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
        """Logits of every head for the held-out pictures, float32 (pictures, labels)."""
        heads = {name: without_softmax(parts[name]) for name in self.heads}
        return answers(parts[BACKBONE], heads, self.held_out)

    def from_keras(self, truth: Mapping[str, np.ndarray]) -> float:
        """The largest difference between probabilities of the float file and of Keras. ``truth``: logits of the file."""
        features = self.merged.features(self.pixels)
        found = {name: softmax(logits.astype(float), axis=1) for name, logits in truth.items()}
        return max(float(np.abs(found[name] - self.merged.head_scores(name, features)).max()) for name in self.heads)


def without_softmax(head: Part) -> Part:
    """A head up to its logits."""
    return replace(head, operators=head.operators[:-1], outputs={"scores": head.operators[-1].inputs[0]})


def make_subject(name: str) -> Subject:
    """One of ``SUBJECTS``. Raises ``ConfigError`` where it has to be trained first."""
    return subject_of(*SUBJECTS[name]())


def subject_of(classifiers: list[Classifier], size: int, whole: Any) -> Subject:
    """A subject of classifiers that take pictures of ``size`` x ``size``. ``whole``: see ``Subject``."""
    merged = merge(tuple(classifiers), find_backbone(tuple(classifiers)))
    calibration, held_out = (pictures(size, held_out=held_out) for held_out in (False, True))
    enter = merged.source_input.device_input
    return Subject(merged, merged.float_model(), enter(calibration), enter(held_out), held_out, whole)


def pictures(size: int, *, held_out: bool) -> np.ndarray:
    """The held-out pictures, or ``CALIBRATION`` of the others, drawn evenly: uint8 (pictures, size, size, 3)."""
    folder = ROOT / "calibration_data"
    kept = find_pictures(folder / "held_out", [])
    known = {picture.digest for picture in kept}
    others = draw_evenly([p for p in find_pictures(folder, []) if p.digest not in known], CALIBRATION)
    return read_samples(kept if held_out else others, ImageInput(size, size), folder).tensors


def _lite0(*, ill: bool = False) -> tuple[list[Classifier], int, Any]:
    model = efficientnet_lite0(224, include_top=True)
    if ill:
        spoil(model)
    return as_classifiers({"classes": model}, [f"class {i}" for i in range(model.output_shape[-1])]), 224, model


def _swish() -> tuple[list[Classifier], int, Any]:
    """Heads of ``examples/train_swish_heads.py``, trained on the other pictures of ``calibration_data``."""
    path = ROOT / "build" / "swish" / "swish.toml"
    if not path.exists():
        raise ConfigError(
            f"{path}: not there; train it first: python examples/train_swish_heads.py --output {path.parent}"
        )
    return list(load_classifiers(BuildConfig.from_toml(path).heads)), 96, None


def _mobilenet() -> tuple[list[Classifier], int, Any]:
    """MobileNetV2 with seeded weights and batch normalizations that match the pictures."""
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3), pooling="avg")
    inputs = pictures(96, held_out=False).astype(np.float32) / 128 - np.float32(127 / 128)
    seed_weights(base, inputs)
    features, models = np.asarray(base(inputs, training=False)), {}
    for seed, name in enumerate(("first", "second", "third")):
        dense = keras.layers.Dense(5, activation="softmax")
        models[name] = keras.Model(base.input, dense(base.output))
        dense.set_weights(head_weights(features, 5, seed))
    return as_classifiers(models), 96, None


SUBJECTS: dict[str, Callable[[], tuple[list[Classifier], int, Any]]] = {
    "lite0": _lite0,
    "ill": lambda: _lite0(ill=True),
    "swish": _swish,
    "mobilenet": _mobilenet,
}


def spoil(model: Any) -> None:
    """Make the network ill-conditioned without changing its function: scale channels of every linear bottleneck by powers
    of two, and scale them back in the layers that read them. Bottlenecks that a residual joins get the same scales.
    """
    powers: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(0)
    previous: np.ndarray | None = None
    blocks = sorted({int(layer.name.split("_")[0][5:]) for layer in model.layers if layer.name.startswith("block")})
    names = {layer.name for layer in model.layers}
    for block in blocks:
        if previous is not None:
            _scale_kernel(model.get_layer(f"block{block}_expand"), 1 / previous)
        norm = model.get_layer(f"block{block}_project_bn")
        if f"block{block}_add" not in names:
            powers[block] = 2.0 ** rng.integers(-POWERS, POWERS + 1, len(norm.get_weights()[0]))
            previous = powers[block]
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * previous, beta * previous, mean, variance])
    assert previous is not None
    _scale_kernel(model.get_layer("top"), 1 / previous)


def _scale_kernel(layer: Any, scale: np.ndarray) -> None:
    (kernel,) = layer.get_weights()
    layer.set_weights([kernel * scale[:, None]])
