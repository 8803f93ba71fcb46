"""Operators with weights, and windows over a picture."""

from __future__ import annotations

from typing import Sequence

from edge_runtime.flatbuffer.operands import Operator, Shape, Wrong, activation, broadcast, four, gives, same_types

# What a convolution or a dense layer takes: (input, weights): (bias, output).
_WEIGHED = {
    ("float32", "float32"): (("float32",), ("float32",)),
    ("float32", "int8"): (("float32",), ("float32",)),
    ("float32", "uint8"): (("float32",), ("float32",)),
    ("float32", "int4"): (("float32",), ("float32",)),
    ("int8", "int8"): (("int32",), ("int8",)),
    ("int8", "int4"): (("int32",), ("int8",)),
    ("uint8", "uint8"): (("int32",), ("uint8",)),
    ("int16", "int8"): (("int64", "int32"), ("int16",)),
    ("int16", "int4"): (("int64", "int32"), ("int16",)),
}


def weighed(op: Operator, units: int) -> Wrong:
    """Types of input, weights, bias and output; a bias for each of ``units``."""
    x, weights, (y,) = op.inputs[0], op.inputs[1], op.outputs
    known = _WEIGHED.get((x.type, weights.type))
    if known is None or y.type not in known[1]:
        return f"types {x.type}, {weights.type}, {y.type}"
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    if bias is not None and (bias.type not in known[0] or bias.items != units):
        return f"a bias of {bias.type} {list(bias.shape)} for {units} units"
    if x.per_channel or y.per_channel:
        return "channels with a scale each, where one is read"
    return None


def _window(size: int, window: int, stride: int, dilation: int, padding: int) -> int:
    """How many times a window fits; below 1 for never. ``padding``: 0 same, 1 valid."""
    if min(window, stride, dilation) < 1 or padding not in (0, 1):
        return 0
    reach = (window - 1) * dilation + 1
    return -(-size // stride) if padding == 0 else (size - reach + stride) // stride


def _windows(op: Operator, x: Shape, window: Sequence[int], channels: int, dilation: Sequence[int]) -> Wrong:
    padding, across, down = op.setting(0, "i1"), op.setting(1, "i4"), op.setting(2, "i4")
    height = _window(x[1], window[0], down, dilation[0], padding)
    width = _window(x[2], window[1], across, dilation[1], padding)
    if height < 1 or width < 1:
        return f"a window of {list(window)}, strides {[down, across]}, dilation {list(dilation)} in {list(x)}"
    return gives(op, (x[0], height, width, channels))


def convolution(op: Operator) -> Wrong:
    x, weights, (y,) = op.inputs[0], op.inputs[1], op.outputs
    wrong = four(x, weights, y) or weighed(op, weights.shape[0])
    if wrong:
        return wrong
    units, height, width, depth = weights.shape
    groups = x.shape[3] // depth if depth else 0
    if not units or groups < 1 or x.shape[3] % depth or units % groups:
        return f"weights {list(weights.shape)} for {list(x.shape)}"
    dilation = op.setting(5, "i4", 1), op.setting(4, "i4", 1)
    return activation(op.setting(3, "i1")) or _windows(op, x.shape, (height, width), units, dilation)


def depthwise(op: Operator) -> Wrong:
    x, weights, (y,) = op.inputs[0], op.inputs[1], op.outputs
    wrong = four(x, weights, y) or weighed(op, weights.shape[3])
    if wrong:
        return wrong
    one, height, width, channels = weights.shape
    multiplier = op.setting(3, "i4")
    if one != 1 or not channels or channels % x.shape[3] or multiplier not in (0, channels // x.shape[3]):
        return f"weights {list(weights.shape)} and multiplier {multiplier} for {list(x.shape)}"
    dilation = op.setting(6, "i4", 1), op.setting(5, "i4", 1)
    return activation(op.setting(4, "i1")) or _windows(op, x.shape, (height, width), channels, dilation)


def dense(op: Operator) -> Wrong:
    x, weights = op.inputs[:2]
    if len(weights.shape) != 2 or not weights.items or not x.shape or op.setting(1, "i1"):
        return f"weights {list(weights.shape)}, {x.type} {list(x.shape)}, format {op.setting(1, 'i1')}"
    units, depth = weights.shape
    wrong = weighed(op, units) or activation(op.setting(0, "i1"))
    if wrong:
        return wrong
    keep = op.setting(2, "u1")
    if x.items % depth or (keep and x.shape[-1] != depth):
        return f"weights {list(weights.shape)} for {list(x.shape)}"
    return gives(op, (*x.shape[:-1], units) if keep else (x.items // depth, units))


def pool(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    wrong = four(x, y) or same_types(x, y) or activation(op.setting(5, "i1"))
    window = op.setting(4, "i4"), op.setting(3, "i4")
    if not wrong and max(window) > 1 << 15:
        return f"a window of {list(window)}"
    return wrong or _windows(op, x.shape, window, x.shape[3], (1, 1))


def transposed_convolution(op: Operator) -> Wrong:
    asked, weights, x = op.inputs[:3]
    (y,) = op.outputs
    wrong = four(weights, x, y)
    if wrong:
        return wrong
    if asked.type != "int32" or asked.values != y.shape or y.shape[3] != weights.shape[0]:
        return f"gives {list(y.shape)}, where {list(asked.values or ())} are asked for"
    wrong = weighed(op._replace(inputs=(x, weights, *op.inputs[3:])), weights.shape[0])
    back = op._replace(outputs=(x,))
    return (
        wrong or activation(op.setting(3, "i1")) or _windows(back, y.shape, weights.shape[1:3], weights.shape[3], (1, 1))
    )


def matrices(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    if min(len(a.shape), len(b.shape)) < 2 or max(len(a.shape), len(b.shape)) > 5:
        return f"{list(a.shape)} by {list(b.shape)}"
    left, right = (s[:-2] + s[-2:][::-1] if t else s for s, t in
                   ((a.shape, op.setting(0, "u1")), (b.shape, op.setting(1, "u1"))))  # fmt: skip
    batch = broadcast(left[:-2], right[:-2])
    known = (a.type, b.type, y.type) in {(t, t, t) for t in ("float32", "int8", "int16")} | {
        ("float32", "int8", "float32")
    }
    if batch is None or left[-1] != right[-2] or not known:
        return f"{a.type} {list(left)} by {b.type} {list(right)}"
    return gives(op, (*batch, left[-2], right[-1]))
