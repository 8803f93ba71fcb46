"""The frozen base that a head is trained on, as a Keras model from raw samples to features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from builder.merging.backbone import SharedBackbone
from builder.merging.rebuild import backbone_model
from builder.reading.classifier import Classifier
from builder.reading.formats import read_model
from builder.reading.graph import Ref
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import ConfigError, ModelFileError
from builder.training.efficientnet_lite0 import PIXELS, efficientnet_lite0
from edge_runtime.metadata import FEATURES

LITE0 = "efficientnet_lite0"
_POOLINGS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")


@dataclass(frozen=True)
class Base:
    """``model``: pixels 0..255 (n, height, width, 3) or texts (n,) -> features (n, features). ``features``: where they
    are taken from the file, in words.
    """

    model: Any
    features: str


def picture_base(chosen: str, preprocessing: PixelTransform | None, size: int) -> Base:
    """Load a base. ``chosen``: ``efficientnet_lite0``, for pictures of ``size`` x ``size``, or a model file.

    The features of a file are its pooled last map, the mean of a final map, or, for any other classifier, the input of
    its last layer with weights. Raises ``ModelFileError`` and ``ConfigError``.
    """
    if chosen == LITE0:
        lite0 = efficientnet_lite0(size)
        return _pictures_to_features(lite0, PIXELS, (size, size), "the mean of the last map")
    path = Path(chosen)
    found = Reader().base("backbone", read_model(path), preprocessing)
    source_input = found.source_input
    if not isinstance(source_input, PictureSourceInput):
        raise ModelFileError(f"{path}: expected a model for pictures, found one for {source_input}")
    if preprocessing is None and source_input.unsaid:
        raise ConfigError(
            f"the input scaling of {path.name} is unknown, because no layer was found in it that scales all pixels "
            "0..255; add --preprocessing raw, unit, tf, torch or SCALE,OFFSET"
        )
    if source_input.pixels.order != tuple(range(source_input.pixels.channels)):
        raise ConfigError(f"{path}: expected channels in RGB order, found {source_input.pixels}; choose another base")
    ref, words = _features(found)
    cut = SharedBackbone({FEATURES: found.digests[ref.node]}, 0, ({FEATURES: ref},))
    return _pictures_to_features(backbone_model((found,), cut), source_input.pixels, source_input.size, words)


def text_base(path: Path) -> Base:
    """A base for texts: a Keras model that ends in features, or a classifier up to the input of its last dense layer.

    Raises ``ModelFileError``.
    """
    model = read_model(path).live()
    if len(model.inputs) != 1 or model.inputs[0].dtype != "string":
        raise ModelFileError(f"{path}: expected a model with one text input, found {[t.dtype for t in model.inputs]}")
    last = model.layers[-1]
    if isinstance(last, keras.layers.Dense):
        model = keras.Model(model.inputs, last.input)
    model.trainable = False
    return Base(model, f"before {last.name}" if isinstance(last, keras.layers.Dense) else f"behind {last.name}")


def _features(found: Classifier) -> tuple[Ref, str]:
    nodes = found.graph.nodes
    for i in reversed(range(len(nodes))):
        if nodes[i].kind in _POOLINGS:
            return Ref(i, 0), f"behind {nodes[i].layer}"
    last = nodes[found.graph.head_start]
    if last.kind == "Dense":
        return next(last.inputs()), f"before {last.layer}"
    return found.graph.output, "the mean of the last map"


def _pictures_to_features(model: Any, pixels: PixelTransform, size: tuple[int, int], words: str) -> Base:
    x = image = keras.Input((*size, pixels.channels), name="image")
    x = model(keras.layers.Rescaling(*_scale_and_offset(pixels), name="pixels")(x), training=False)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if len(x.shape) != 2:
        raise ModelFileError(f"expected features as a map or a vector, found {tuple(x.shape)}")
    whole = keras.Model(image, x, name="backbone")
    whole.trainable = False
    return Base(whole, words)


def _scale_and_offset(pixels: PixelTransform) -> tuple[Any, Any]:
    """Scale and offset as numbers, or lists where channels differ."""
    return pixels.scale[0] if pixels.is_uniform else list(pixels.scale), (
        pixels.offset[0] if pixels.is_uniform else list(pixels.offset)
    )
