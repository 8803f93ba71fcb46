"""The canonical form of layer settings: equal for all settings that mean the same function of the actual shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from builder.reading.graph import Node
from builder.reading.layers import does_nothing_at_inference, inference_only, is_keras
from builder.reading.shapes import Shape, is_operation

Settings = dict[str, Any]
_RELUS = {"relu": (0.0, None), "relu6": (0.0, 6.0), "leaky_relu": (0.2, None)}  # slope below zero, maximum
_OPERATIONS = {"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "Tanh": "tanh",
               "Silu": "silu", "Softplus": "softplus", "Softsign": "softsign", "Selu": "selu", "Elu": "elu",
               "Softmax": "softmax"}  # fmt: skip
_FUSED = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
          "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")  # fmt: skip
# Settings for how Keras runs a layer, or that follow from its weights and shapes.
_NO_MATTER = (
    "dropout", "recurrent_dropout", "stateful", "unroll", "use_cudnn", "implementation", "flash_attention",
    "power_iterations",
    "build_config", "cast", "autocast", "input_dim", "input_length", "optional", "embeddings_dtype", "supports_jit",
)  # fmt: skip
_COMMUTATIVE = ("Add", "Multiply", "Maximum", "Minimum", "Average")
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "ExpandDims")


def activation_form(node: Node, rank: int | None) -> list[Any] | None:
    """The activation at the end of a node, with its settings; None where it is missing or linear."""
    if not is_keras(node.definition):
        return None
    if is_operation(node):
        name = _OPERATIONS.get(node.kind)
        return _activation_layer(node.kind, node.config, rank) or _named(name, node.config, rank) if name else None
    if node.kind in (*_FUSED, "Activation"):
        return _activation(node.config.get("activation"), rank)
    return _activation_layer(node.kind, node.config, rank)


def is_bare_activation(node: Node) -> bool:
    """Whether the node is only an activation of its one input."""
    return is_keras(node.definition) and node.kind not in _FUSED and len(list(node.inputs())) == 1


def _activation(value: Any, rank: int | None) -> list[Any] | None:
    if isinstance(value, Mapping):
        config = value.get("config")
        if isinstance(config, Mapping):
            plain = inference_only(config)
            return _activation_layer(str(value.get("class_name")), config, rank) or [str(value.get("class_name")), plain]
        value = config
    return None if value in (None, "linear") else _named(str(value), {}, rank)


def _named(name: str, config: Mapping[str, Any], rank: int | None) -> list[Any]:
    if name in _RELUS:
        slope, largest = _RELUS[name]
        return _relu(config.get("negative_slope", slope), largest, 0.0)
    if name == "softmax":
        return ["softmax", axes(config.get("axis", -1), rank)]
    if name == "elu":
        return ["elu", _number(config.get("alpha", 1.0))]
    return [name]


def _activation_layer(kind: str, config: Mapping[str, Any], rank: int | None) -> list[Any] | None:
    if kind == "ReLU":
        return _relu(config.get("negative_slope"), config.get("max_value"), config.get("threshold"))
    if kind == "LeakyReLU":
        return _relu(config.get("negative_slope", 0.3), None, 0.0)
    return _named(kind.lower(), config, rank) if kind in ("Softmax", "ELU") else None


def _relu(slope: Any, largest: Any, threshold: Any) -> list[Any]:
    return ["relu", _number(slope or 0.0), None if largest is None else _number(largest), _number(threshold or 0.0)]


def axes(value: Any, rank: int | None) -> Any:
    """One axis or several, counted from the front where the rank is known, in order."""
    if value is None:
        return None
    listed = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(axis, int) for axis in listed):
        return value
    return sorted(axis % rank if rank else axis for axis in listed)


def settings_form(node: Node, inputs: Sequence[Shape | None]) -> tuple[str, Settings]:
    """(kind, settings), equal for all spellings of one layer. ``inputs``: the shapes of its inputs."""
    kind = node.kind
    settings: Settings = plain({k: v for k, v in inference_only(node.config).items() if k not in _NO_MATTER})
    if not is_keras(node.definition):
        return f"{node.definition.get('registered_name')}:{kind}", settings
    shape = inputs[0] if inputs else None
    rank = len(shape) if shape else None
    if "axis" in settings and kind != "Dot":
        settings["axis"] = axes(settings["axis"], rank)
    for key in settings:
        if key.endswith("activation"):
            settings[key] = _activation(node.config[key], rank)
    if kind in _FORMS:
        return _FORMS[kind](settings, node, shape)
    if is_operation(node) and all(settings.get(key) is None for key in settings):
        several = len(list(node.inputs())) > 1
        return (kind if several and kind in (*_COMMUTATIVE, "Subtract") else f"ops.{kind}"), settings
    return (f"ops.{kind}" if is_operation(node) else kind), settings


def _pooling(kind: str, rank: int) -> Callable[[Settings, Node, Shape | None], tuple[str, Settings]]:
    def form(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
        first = settings.get("data_format") == "channels_first"
        spatial = list(range(2, rank)) if first else list(range(1, rank - 1))
        return f"ops.{kind}", {"axis": spatial}

    return form


def _reduction(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    return f"ops.{node.kind}", {"axis": settings.get("axis")}


def _permutation(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    order = [0, *settings["dims"]] if node.kind == "Permute" else settings.get("axes")
    if order is not None:
        order = [axis % len(order) for axis in order]
    elif shape is not None:
        order = list(range(len(shape)))[::-1]
    return "Transpose", {"axes": order}


def _normalization(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    """Mean and deviation, wherever they are stored; they replace the weights, see ``keeps_weights``."""
    mean, deviation = moments(node)
    values = {"mean": plain(mean.ravel().tolist()), "deviation": plain(deviation.ravel().tolist())}
    return "Normalization", {**values, "axis": settings.get("axis"), "invert": bool(settings.get("invert"))}


def _groups(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    channels = shape[settings["axis"][0]] if shape and isinstance(settings.get("axis"), list) else None
    return node.kind, {
        **settings,
        "groups": channels if settings.get("groups") == -1 and channels else settings["groups"],
    }


def _attention(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    given = settings.get("attention_axes")
    rank = len(shape) if shape else None
    return node.kind, {**settings, "attention_axes": axes(given, rank) or (list(range(1, rank - 1)) if rank else None)}


def _dot(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    given, rank = settings["axes"], len(shape) if shape else None
    both = given if isinstance(given, list) else [given, given]
    return node.kind, {**settings, "axes": [axis % rank if rank else axis for axis in both]}


def _recurrent_convolution(settings: Settings, node: Node, shape: Shape | None) -> tuple[str, Settings]:
    one = np.all(np.asarray(settings["kernel_size"]) == 1)  # needs no padding
    return node.kind, {**settings, "padding": "valid" if one else settings["padding"]}


_FORMS: dict[str, Callable[[Settings, Node, Shape | None], tuple[str, Settings]]] = {
    **{f"GlobalAveragePooling{n}D": _pooling("Mean", n + 2) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _pooling("Max", n + 2) for n in (1, 2, 3)},
    **dict.fromkeys(("Mean", "Max"), _reduction),
    **dict.fromkeys(("Permute", "Transpose"), _permutation),
    "Normalization": _normalization,
    "GroupNormalization": _groups,
    "MultiHeadAttention": _attention,
    "Dot": _dot,
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _recurrent_convolution),
}


def keeps_weights(node: Node) -> bool:
    """Whether weights count besides the settings."""
    return node.kind != "Normalization" or not is_keras(node.definition)


def moments(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a Normalization, as Keras uses them."""
    if node.config.get("mean") is not None:
        mean, variance = (np.asarray(node.config[key], np.float64) for key in ("mean", "variance"))
    elif len(node.weights) > 1:
        mean, variance = (weight.value.astype(np.float64) for weight in node.weights[:2])
    else:
        mean, variance = np.zeros(1), np.ones(1)
    return mean, np.maximum(np.sqrt(variance), 1e-7)


def reshapes(node: Node) -> bool:
    """Whether the node only reshapes its input."""
    return is_keras(node.definition) and node.kind in _RESHAPES and node.config.get("data_format") != "channels_first"


def is_commutative(node: Node) -> bool:
    return is_keras(node.definition) and node.kind in _COMMUTATIVE


def does_nothing(node: Node, kind: str, settings: Settings, inputs: Sequence[Shape | None]) -> bool:
    """Whether the output equals the input, with these settings and shapes."""
    if does_nothing_at_inference(node.definition):
        return True
    if len(list(node.inputs())) != 1 or not is_keras(node.definition) or (is_operation(node) and kind != "Transpose"):
        return False
    if kind == "Activation":
        return settings["activation"] is None
    if kind == "Transpose":
        return settings["axes"] is not None and settings["axes"] == sorted(settings["axes"])
    if kind.startswith(("ZeroPadding", "Cropping")):
        return not np.any(node.config.get("padding", node.config.get("cropping")))
    if kind.startswith("UpSampling"):
        return bool(np.all(np.asarray(node.config["size"]) == 1))
    if kind in ("Resizing", "CenterCrop"):
        wanted = (node.config["height"], node.config["width"])
        last = node.config.get("data_format") != "channels_first"
        return inputs[0] is not None and last and inputs[0][-3:-1] == wanted
    if "Pooling" in kind and "pool_size" in node.config:
        return bool(np.all(np.asarray([node.config["pool_size"], node.config["strides"]]) == 1))
    return kind == "Rescaling" and node.config["scale"] == 1 and not node.config.get("offset")


def plain(value: Any) -> Any:
    """A value as in JSON: tuples as lists, numbers rounded to float32, nested layers as class and settings."""
    if isinstance(value, Mapping):
        if "class_name" in value and "config" in value:
            config = value["config"]
            return [value["class_name"], _inner(config) if isinstance(config, Mapping) else plain(config)]
        return {key: plain(item) for key, item in value.items() if not (key == "mask" and item is None)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _inner(config: Mapping[str, Any]) -> Settings:
    """Settings of a nested layer, such as a recurrent cell."""
    return {
        key: _activation(value, None) if key.endswith("activation") else plain(value)
        for key, value in inference_only(config).items()
        if key not in _NO_MATTER
    }


def _number(value: Any) -> Any:
    """A number rounded to float32; 2 and 2.0 are equal."""
    if isinstance(value, int):
        return value
    short = float(np.float32(value))
    return int(short) if math.isfinite(short) and short == int(short) else short
