"""Translate TensorFlow functions that Keras 2 stored as layers (``x / 127.5``, ``tf.nn.relu6(x)``) to Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from builder.support.errors import ModelFileError


class Call(NamedTuple):
    """A layer without its name, and its arguments."""

    module: str
    class_name: str
    config: dict[str, Any]
    args: list[Any]
    kwargs: dict[str, Any]


class UnknownOperationError(ModelFileError):
    """The table has no such function, or not with these arguments."""


Arguments = Mapping[str, Any]  # by the names of TensorFlow's parameters; tensors as ``is_tensor`` knows them

_LAYERS, _NUMPY, _CORE, _MATH = "keras.layers", "keras.src.ops.numpy", "keras.src.ops.core", "keras.src.ops.math"
_FLOATS = ("float16", "bfloat16", "float32", "float64", "half", "float", "double")

# Names of the parameters in order: the first arguments of a call are positional.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "concat": ("values", "axis"),
    "stack": ("values", "axis"),
    "__operators__.getitem": ("tensor", "slice_spec"),
    "nn.bias_add": ("value", "bias"),
    "reshape": ("tensor", "shape"),
    "pad": ("tensor", "paddings"),
    "clip_by_value": ("t", "clip_value_min", "clip_value_max"),
    "image.resize": ("images", "size"),
    "cast": ("x", "dtype"),
    "transpose": ("a", "perm"),
    "expand_dims": ("input", "axis"),
    "squeeze": ("input", "axis"),
}


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor as Keras 3 writes it."""
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def translate(function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The call ``tf.<function>(*args, **kwargs)`` in Keras 3's form. Raises ``UnknownOperationError``."""
    function = function.removeprefix("compat.v1.")  # some names of version 2 are aliases of these
    rule = _RULES.get(function)
    if rule is None:
        raise UnknownOperationError(f"tf.{function} is not supported: it has no counterpart in Keras 3 here")
    names = _PARAMETERS.get(function, ("x", "y"))
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k != "name" and v is not None}
    if "input_tensor" in given or "features" in given or "logits" in given:
        given["x"] = given.get("input_tensor", given.get("features", given.get("logits")))
    return rule(given)


def _layer(kind: str, config: dict[str, Any], *args: Any) -> Call:
    return Call(_LAYERS, kind, config, list(args), {})


def _only(given: Arguments, *allowed: str) -> None:
    """Refuse arguments that a rule does not use."""
    extra = sorted(set(given) - set(allowed) - {"input_tensor", "features", "logits"})
    if extra:
        raise UnknownOperationError(f"argument {', '.join(extra)} is not supported")


def _activation(name: str) -> Callable[[Arguments], Call]:
    def rule(given: Arguments) -> Call:
        plain = [key for key, value in (("beta", 1.0), ("axis", -1)) if given.get(key) == value]
        _only(given, "x", *plain)
        return _layer("Activation", {"activation": name}, given["x"])

    return rule


def _leaky(given: Arguments) -> Call:
    _only(given, "x", "alpha")
    return _layer("LeakyReLU", {"negative_slope": given.get("alpha", 0.2)}, given["x"])


def _identity(given: Arguments) -> Call:
    return _layer("Identity", {}, given.get("x", given.get("input")))


def _cast(given: Arguments) -> Call:
    dtype = given["dtype"]
    if isinstance(dtype, Mapping):  # {"class_name": "TypeSpec" ...} of some versions
        dtype = dtype.get("config", dtype)
    if str(dtype) not in _FLOATS:
        raise UnknownOperationError(f"tf.cast to {dtype!r:.40}: expected a float type")
    return _layer("Identity", {}, given["x"])


def _binary(kind: str) -> Callable[[Arguments], Call]:
    """Arithmetic with a constant becomes a Rescaling, as newer models write their input scaling."""

    def rule(given: Arguments) -> Call:
        _only(given, "x", "y")
        x, y = given["x"], given["y"]
        if is_tensor(x) and is_tensor(y):
            return Call(_NUMPY, kind, {}, [x, y], {})
        tensor, constant = (x, _constant(y)) if is_tensor(x) else (y, _constant(x))
        if kind in ("Add", "Multiply", "Subtract") or (kind == "TrueDivide" and is_tensor(x)):
            scale, offset = _affine(kind, constant, first=is_tensor(x))
            if constant.size == 1 or constant.ndim == 1:
                return _layer("Rescaling", {"scale": _plain(scale), "offset": _plain(offset)}, tensor)
        written = {"class_name": "__numpy__", "config": {"value": constant.tolist(), "dtype": "float32"}}
        return Call(_NUMPY, kind, {}, [tensor, written] if is_tensor(x) else [written, tensor], {})

    return rule


def _affine(kind: str, constant: np.ndarray, *, first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of arithmetic with a constant; ``first``: the tensor is the first operand."""
    zero, one = np.zeros_like(constant), np.ones_like(constant)
    if kind == "Add":
        return one, constant
    if kind == "Multiply":
        return constant, zero
    if kind == "Subtract":
        return (one, -constant) if first else (-one, constant)
    if not np.all(constant):
        raise UnknownOperationError("a division by zero")
    return 1 / constant, zero


def _plain(value: np.ndarray) -> Any:
    """One number where all are equal, otherwise a list."""
    numbers = value.ravel().tolist()
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _constant(value: Any) -> np.ndarray:
    if isinstance(value, Mapping) and value.get("class_name") == "__numpy__":
        value = value["config"]["value"]
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UnknownOperationError(f"expected numbers, found {value!r:.60}") from None


def _bias_add(given: Arguments) -> Call:
    plain = ["data_format"] if given.get("data_format") in ("NHWC", "N...C") else []  # channels last, as without it
    _only(given, "value", "bias", *plain)
    return _binary("Add")({"x": given["value"], "y": given["bias"]})


def _reduction(kind: str) -> Callable[[Arguments], Call]:
    def rule(given: Arguments) -> Call:
        _only(given, "x", "axis", "keepdims", "keep_dims")
        keep = bool(given.get("keepdims", given.get("keep_dims", False)))
        return Call(_NUMPY, kind, {"axis": given.get("axis"), "keepdims": keep}, [given["x"]], {})

    return rule


def _unary(module: str, kind: str) -> Callable[[Arguments], Call]:
    def rule(given: Arguments) -> Call:
        _only(given, "x")
        return Call(module, kind, {}, [given["x"]], {})

    return rule


def _clip(given: Arguments) -> Call:
    _only(given, "t", "clip_value_min", "clip_value_max")
    limits = {"x_min": float(given["clip_value_min"]), "x_max": float(given["clip_value_max"])}
    return Call(_NUMPY, "Clip", limits, [given["t"]], {})


def _concat(given: Arguments) -> Call:
    _only(given, "values", "axis")
    return _layer("Concatenate", {"axis": given.get("axis", -1)}, given["values"])


def _getitem(given: Arguments) -> Call:
    _only(given, "tensor", "slice_spec")
    spec = given["slice_spec"] if isinstance(given["slice_spec"], list) else [given["slice_spec"]]
    return Call(_NUMPY, "GetItem", {}, [given["tensor"], [_slice(one) for one in spec]], {})


def _slice(value: Any) -> Any:
    if isinstance(value, Mapping) and {"start", "stop", "step"} <= set(value):
        return {"class_name": "__slice__", "config": {key: value[key] for key in ("start", "stop", "step")}}
    if isinstance(value, Mapping) and value.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    if value is None or isinstance(value, int):
        return value
    raise UnknownOperationError(f"a slice of {value!r:.60}")


def _shaped(kind: str, first: str, argument: str, setting: str) -> Callable[[Arguments], Call]:
    """Operations on one tensor with a constant that Keras 3 stores as a setting."""

    def rule(given: Arguments) -> Call:
        plain = [key for key, value in (("mode", "CONSTANT"), ("conjugate", False)) if given.get(key) == value]
        _only(given, first, argument, *plain)
        config = {setting: given.get(argument)}
        kwargs = {"constant_values": None} if kind == "Pad" else {}
        if kind == "Pad":
            config["mode"] = "constant"
        return Call(_NUMPY, kind, config, [given[first]], kwargs)

    return rule


def _resize(given: Arguments) -> Call:
    _only(given, "images", "size", "method", "antialias", "preserve_aspect_ratio")
    if given.get("preserve_aspect_ratio") or given.get("antialias"):
        raise UnknownOperationError("tf.image.resize with antialias or preserve_aspect_ratio")
    height, width = given["size"]
    return _layer(
        "Resizing", {"height": height, "width": width, "interpolation": given.get("method", "bilinear")}, given["images"]
    )


_RULES: dict[str, Callable[[Arguments], Call]] = {
    **dict.fromkeys(("math.truediv", "math.divide", "truediv", "divide", "realdiv"), _binary("TrueDivide")),
    **dict.fromkeys(("math.add", "__operators__.add", "add", "math.add_n"), _binary("Add")),
    **dict.fromkeys(("math.subtract", "subtract", "__operators__.sub"), _binary("Subtract")),
    **dict.fromkeys(("math.multiply", "multiply", "__operators__.mul"), _binary("Multiply")),
    **dict.fromkeys(("math.maximum", "maximum"), _binary("Maximum")),
    **dict.fromkeys(("math.minimum", "minimum"), _binary("Minimum")),
    "nn.bias_add": _bias_add,
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    **dict.fromkeys(("nn.silu", "nn.swish"), _activation("silu")),
    **dict.fromkeys(("math.sigmoid", "nn.sigmoid", "sigmoid"), _activation("sigmoid")),
    **dict.fromkeys(("math.tanh", "nn.tanh", "tanh"), _activation("tanh")),
    **dict.fromkeys(("nn.softmax", "math.softmax"), _activation("softmax")),
    **dict.fromkeys(("math.softplus", "nn.softplus"), _activation("softplus")),
    "nn.elu": _activation("elu"),
    "nn.selu": _activation("selu"),
    "nn.leaky_relu": _leaky,
    "cast": _cast,
    **dict.fromkeys(("identity", "stop_gradient", "convert_to_tensor"), _identity),
    **dict.fromkeys(("math.reduce_mean", "reduce_mean"), _reduction("Mean")),
    **dict.fromkeys(("math.reduce_max", "reduce_max"), _reduction("Max")),
    **dict.fromkeys(("math.reduce_sum", "reduce_sum"), _reduction("Sum")),
    **dict.fromkeys(("math.square", "square"), _unary(_NUMPY, "Square")),
    **dict.fromkeys(("math.sqrt", "sqrt"), _unary(_NUMPY, "Sqrt")),
    **dict.fromkeys(("math.exp", "exp"), _unary(_NUMPY, "Exp")),
    **dict.fromkeys(("math.abs", "abs"), _unary(_NUMPY, "Absolute")),
    "math.negative": _unary(_NUMPY, "Negative"),
    "math.rsqrt": _unary(_MATH, "Rsqrt"),
    "clip_by_value": _clip,
    "concat": _concat,
    "__operators__.getitem": _getitem,
    "reshape": _shaped("Reshape", "tensor", "shape", "newshape"),
    "transpose": _shaped("Transpose", "a", "perm", "axes"),
    "expand_dims": _shaped("ExpandDims", "input", "axis", "axis"),
    "squeeze": _shaped("Squeeze", "input", "axis", "axis"),
    "pad": _shaped("Pad", "tensor", "paddings", "pad_width"),
    "image.resize": _resize,
}
