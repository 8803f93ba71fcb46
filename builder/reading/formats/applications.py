"""Recognize by its convolutions which architecture of ``keras.applications`` a model is built on: its picture size and
its input scaling.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_KINDS, _KEYS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D"), ("kernel_size", "strides")


@dataclass(frozen=True)
class Application:
    """An architecture of ``keras.applications``. ``size``: the side in pixels at which its published weights were
    trained, the default of its ``input_shape``. ``preprocessing``: what its ``preprocess_input`` does.
    """

    name: str
    size: int
    preprocessing: str


def application_of(definition: Mapping[str, Any]) -> Application | None:
    """The architecture that a model is built on, or None. Layers with weights after its pooling do not matter."""
    return _KNOWN.get(convolutions(definition))


def convolutions(definition: Mapping[str, Any]) -> str:
    """A digest of the convolutions of a model: how many of which kind, width, kernel and stride; not their order."""
    found = Counter(text for layer in _layers(definition) if (text := _convolution(layer)))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def _convolution(layer: Mapping[str, Any]) -> str:
    kind, config = str(layer["class_name"]).rpartition(">")[2], layer["config"]
    if kind not in _KINDS:
        return ""
    sides = (config.get(key) for key in _KEYS)
    kernel, strides = (tuple(side) if isinstance(side, (list, tuple)) else (side, side) for side in sides)
    return repr((kind, config.get("filters"), kernel, strides))


def _layers(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    config = definition["config"]
    for layer in config if isinstance(config, list) else config.get("layers", ()):
        yield layer
        if isinstance(layer.get("config"), Mapping) and "layers" in layer["config"]:
            yield from _layers(layer)


# ``convolutions`` of each, at every width that has published weights; from the Keras that is installed, see the tests.
_DIGESTS = {
    Application("MobileNet", 224, "tf"): (
        "36fb87541c8ddc99",
        "ec76e15bae7a6102",
        "667abd3bc2d551d8",
        "01dad56c6fc92cb2",
    ),
    Application("MobileNetV2", 224, "tf"): (
        "902b4f3fedf3ee8d",
        "0d738fa8ddaebc06",
        "46229640422612ea",
        "5eb97336d9772ef1",
        "65716cb8168f2f88",
        "25c9346db8127da5",
    ),
    Application("MobileNetV3Small", 224, "raw"): ("24f1e652b0452cd1",),
    Application("MobileNetV3Large", 224, "raw"): ("f815ea94ac413cfa",),
    Application("EfficientNetB0", 224, "raw"): ("bbaa15b272a61649",),
    Application("EfficientNetB1", 240, "raw"): ("80c11164d173187e",),
    Application("EfficientNetB2", 260, "raw"): ("8255b4957471be9f",),
    Application("EfficientNetB3", 300, "raw"): ("9db9e0095753b504",),
    Application("EfficientNetB4", 380, "raw"): ("615709a5cb805efd",),
    Application("EfficientNetB5", 456, "raw"): ("cfe8abd671b5b97a",),
    Application("EfficientNetB6", 528, "raw"): ("a7b58010bda595bd",),
    Application("EfficientNetB7", 600, "raw"): ("341051120ff271a8",),
    Application("EfficientNetV2B0", 224, "raw"): ("d4e79a03c0ec5808",),
    Application("EfficientNetV2B1", 240, "raw"): ("0543210f5ee45013",),
    Application("EfficientNetV2B2", 260, "raw"): ("3dc4bfce61990b12",),
    Application("EfficientNetV2B3", 300, "raw"): ("70ff01a0ce456b3c",),
    Application("ResNet50", 224, "caffe"): ("4c2a59f48486c674",),
    Application("ResNet50V2", 224, "tf"): ("d1b3229998e7ce75",),
    Application("ResNet101", 224, "caffe"): ("54cee5543d0bc4b1",),
    Application("ResNet101V2", 224, "tf"): ("b190719092f9b0b2",),
    Application("ResNet152", 224, "caffe"): ("e6f29c7bd5c3cb3c",),
    Application("ResNet152V2", 224, "tf"): ("78829918ce2673de",),
    Application("DenseNet121", 224, "torch"): ("8703c31bb53dc1a9",),
    Application("DenseNet169", 224, "torch"): ("9c9f9c193b1500e7",),
    Application("DenseNet201", 224, "torch"): ("93050df7d378ee29",),
    Application("VGG16", 224, "caffe"): ("803fcaf0569fc1c5",),
    Application("VGG19", 224, "caffe"): ("d00c67b5af212b3e",),
    Application("NASNetMobile", 224, "tf"): ("eca3de70931aa16d",),
    Application("Xception", 299, "tf"): ("5224f952fe3d78fb",),
    Application("InceptionV3", 299, "tf"): ("4ffe5ee37287d810",),
}  # fmt: skip
_KNOWN = {digest: application for application, digests in _DIGESTS.items() for digest in digests}
