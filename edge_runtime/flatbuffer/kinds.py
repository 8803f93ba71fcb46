"""What each kind of operator needs, by its number in TensorFlow Lite's schema.

Shapes as the kernels of TensorFlow Lite compute them (``tensorflow/lite/kernels``, ``Prepare`` of each). A rule returns
what is wrong, or None.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

Shape = Tuple[int, ...]
Wrong = Optional[str]


class Operand(NamedTuple):
    """``values``: of a constant of int32 or int64 without a scale, in a row."""

    type: str
    shape: Shape
    constant: bool
    values: Optional[Tuple[int, ...]]
    quantized: bool
    per_channel: bool

    @property
    def items(self) -> int:
        return _product(self.shape)


class Operator(NamedTuple):
    """``setting``: reads a field of the options by (number, kind, default)."""

    kind: int
    inputs: Tuple[Any, ...]  # of Operand; None for one that is left out
    outputs: Tuple[Operand, ...]
    settings: int
    setting: Callable[..., Any]


Rule = Callable[[Operator], Wrong]


class Kind(NamedTuple):
    """``inputs``, ``outputs``: how many at least and at most. ``settings``: the number of its options' table.

    ``needed``: without its options it would divide by zero. ``whole``: the inputs that may be left out come last.
    """

    name: str
    inputs: Tuple[int, int]
    outputs: Tuple[int, int]
    settings: int
    rule: Rule
    needed: bool = False
    optional: int = 99  # from this input on one may be left out
    arithmetic: bool = False  # stored integers mean numbers by their scale

    def problem(self, op: Operator) -> Wrong:
        given = len(op.inputs), len(op.outputs)
        for count, (least, most), what in ((given[0], self.inputs, "inputs"), (given[1], self.outputs, "outputs")):
            if not least <= count <= most:
                return f"{count} {what}, where it has {least if least == most else f'{least} to {most}'}"
        if any(operand is None for operand in op.inputs[: self.optional]):
            return "an input that is left out"
        if op.settings not in (0, self.settings) or (self.needed and not op.settings):
            return "the settings of another operator" if op.settings else "no settings"
        operands = [operand for operand in (*op.inputs, *op.outputs) if operand is not None]
        if self.arithmetic and any(o.type in _STORED and not o.quantized for o in operands):
            return "a tensor without a scale"
        return self.rule(op)


_STORED = ("int8", "uint8", "int16", "int4")
_INDEX = ("int32", "int64")
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


def _product(shape: Sequence[int]) -> int:
    product = 1
    for n in shape:  # Python 3.7 has no math.prod
        product *= n
    return product


def _shape(op: Operator, *expected: Shape) -> Wrong:
    for output, shape in zip(op.outputs, expected):
        if output.shape != tuple(shape):
            return f"gives {list(output.shape)}, where its inputs make {list(shape)}"
    return None


def _types(*operands: Operand) -> Wrong:
    found = {operand.type for operand in operands}
    return None if len(found) == 1 else f"types that differ ({', '.join(sorted(found))})"


def _first(*problems: Wrong) -> Wrong:
    return next((problem for problem in problems if problem is not None), None)


def _broadcast(*shapes: Shape) -> Optional[Shape]:
    rank = max(map(len, shapes))
    sides = [{n for n in column if n != 1} for column in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes))]
    return None if any(len(side) > 1 for side in sides) else tuple(min(side, default=1) for side in sides)


def _activation(code: int) -> Wrong:
    return None if 0 <= code <= 3 else f"activation {code}, which is none"


def unary(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    return _first(_types(x, y), _shape(op, x.shape))


def softmax(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    beta = op.setting(0, "f4")
    if not x.shape or not 1e-6 < beta < 1e6:
        return f"beta {beta}" if x.shape else "a single number"
    if x.type not in ("float32", "int8", "uint8", "int16") or (
        x.type != y.type and (x.type, y.type) != ("int8", "int16")
    ):
        return f"types {x.type}, {y.type}"
    return _shape(op, x.shape)


def binary(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    shape = _broadcast(a.shape, b.shape)
    if shape is None or len(shape) > 6:
        return f"shapes {list(a.shape)} and {list(b.shape)}, which do not fit"
    return _first(_types(a, b, y), _activation(op.setting(0, "i1")) if op.settings else None, _shape(op, shape))


def plain_binary(op: Operator) -> Wrong:
    return binary(op._replace(settings=0))


def comparison(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    wrong = _types(a, b) or (None if y.type == "bool" else f"an output of {y.type}")
    return wrong or plain_binary(op._replace(inputs=(a, b), outputs=(y._replace(type=a.type),)))


def logical(op: Operator) -> Wrong:
    if op.outputs[0].type != "bool":
        return f"an output of {op.outputs[0].type}"
    return unary(op) if len(op.inputs) == 1 else plain_binary(op)


def select(op: Operator) -> Wrong:
    (chosen, a, b), (y,) = op.inputs, op.outputs
    shape = _broadcast(chosen.shape, a.shape, b.shape)
    if chosen.type != "bool" or shape is None:
        return f"a choice of {chosen.type} {list(chosen.shape)} between {list(a.shape)} and {list(b.shape)}"
    return _first(_types(a, b, y), _shape(op, shape))


def conversion(sources: Sequence[str], targets: Sequence[str]) -> Rule:
    def rule(op: Operator) -> Wrong:
        (x,), (y,) = op.inputs, op.outputs
        for operand, types in ((x, sources), (y, targets)):
            if operand.type not in types:
                return f"{x.type} to {y.type}"
            if operand.type in _STORED and not operand.quantized and (sources, targets) != (_ANY, _ANY):
                return "a tensor without a scale"
        return _shape(op, x.shape)

    return rule


_ANY = ("float32", "float16", "int32", "uint8", "int64", "bool", "int16", "int8", "uint32")


def _weighed(op: Operator, units: int) -> Wrong:
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
    return _shape(op, (x[0], height, width, channels))


def _four(*operands: Operand) -> Wrong:
    return next((f"a tensor of {len(o.shape)} dimensions, not 4" for o in operands if len(o.shape) != 4), None)


def convolution(op: Operator) -> Wrong:
    x, weights, (y,) = op.inputs[0], op.inputs[1], op.outputs
    wrong = _four(x, weights, y) or _weighed(op, weights.shape[0])
    if wrong:
        return wrong
    units, height, width, depth = weights.shape
    groups = x.shape[3] // depth if depth else 0
    if not units or groups < 1 or x.shape[3] % depth or units % groups:
        return f"weights {list(weights.shape)} for {list(x.shape)}"
    dilation = op.setting(5, "i4", 1), op.setting(4, "i4", 1)
    return _activation(op.setting(3, "i1")) or _windows(op, x.shape, (height, width), units, dilation)


def depthwise(op: Operator) -> Wrong:
    x, weights, (y,) = op.inputs[0], op.inputs[1], op.outputs
    wrong = _four(x, weights, y) or _weighed(op, weights.shape[3])
    if wrong:
        return wrong
    one, height, width, channels = weights.shape
    multiplier = op.setting(3, "i4")
    if one != 1 or not channels or channels % x.shape[3] or multiplier not in (0, channels // x.shape[3]):
        return f"weights {list(weights.shape)} and multiplier {multiplier} for {list(x.shape)}"
    dilation = op.setting(6, "i4", 1), op.setting(5, "i4", 1)
    return _activation(op.setting(4, "i1")) or _windows(op, x.shape, (height, width), channels, dilation)


def dense(op: Operator) -> Wrong:
    x, weights = op.inputs[:2]
    if len(weights.shape) != 2 or not weights.items or not x.shape or op.setting(1, "i1"):
        return f"weights {list(weights.shape)}, {x.type} {list(x.shape)}, format {op.setting(1, 'i1')}"
    units, depth = weights.shape
    wrong = _weighed(op, units) or _activation(op.setting(0, "i1"))
    if wrong:
        return wrong
    keep = op.setting(2, "u1")
    if x.items % depth or (keep and x.shape[-1] != depth):
        return f"weights {list(weights.shape)} for {list(x.shape)}"
    return _shape(op, (*x.shape[:-1], units) if keep else (x.items // depth, units))


def pool(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    wrong = _four(x, y) or _types(x, y) or _activation(op.setting(5, "i1"))
    window = op.setting(4, "i4"), op.setting(3, "i4")
    if not wrong and max(window) > 1 << 15:
        return f"a window of {list(window)}"
    return wrong or _windows(op, x.shape, window, x.shape[3], (1, 1))


def transposed_convolution(op: Operator) -> Wrong:
    asked, weights, x = op.inputs[:3]
    (y,) = op.outputs
    wrong = _four(weights, x, y)
    if wrong:
        return wrong
    if asked.type != "int32" or asked.values != y.shape or y.shape[3] != weights.shape[0]:
        return f"gives {list(y.shape)}, where {list(asked.values or ())} are asked for"
    wrong = _weighed(op._replace(inputs=(x, weights, *op.inputs[3:])), weights.shape[0])
    back = op._replace(outputs=(x,))
    return (
        wrong or _activation(op.setting(3, "i1")) or _windows(back, y.shape, weights.shape[1:3], weights.shape[3], (1, 1))
    )


def reshape(op: Operator) -> Wrong:
    x, (y,) = op.inputs[0], op.outputs
    if len(op.inputs) > 1:
        asked = op.inputs[1]
        if asked.type != "int32" or len(asked.shape) > 1 or (asked.constant and asked.values is None):
            return f"a shape of {asked.type} {list(asked.shape)}"
        wanted = None if asked.values is None else np.asarray(asked.values, np.int64)
        if wanted is not None and (len(wanted) != len(y.shape) or (wanted < -1).any() or (wanted == -1).sum() > 1):
            return f"a shape of {list(asked.values or ())}"
        if wanted is not None and any(w not in (-1, n) for w, n in zip(wanted.tolist(), y.shape)):
            return f"gives {list(y.shape)}, where {wanted.tolist()} is asked for"
    return _types(x, y) or _same_items(x, y)


def _same_items(x: Operand, y: Operand) -> Wrong:
    return None if x.items == y.items else f"{list(x.shape)} to {list(y.shape)}"


def squeeze(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    fits = [n for n in x.shape if n != 1] == [n for n in y.shape if n != 1]
    return _types(x, y) or (None if fits and len(y.shape) <= len(x.shape) else f"{list(x.shape)} to {list(y.shape)}")


def expand(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = _axes(axis, len(x.shape) + 1)
    if places is None or len(places) != 1:
        return f"axis {_told(axis)} for {list(x.shape)}"
    shape = list(x.shape)
    shape.insert(places[0], 1)
    return _types(x, y) or _shape(op, tuple(shape))


def _axes(operand: Operand, rank: int) -> Optional[List[int]]:
    if operand.values is None or operand.type not in _INDEX or not all(-rank <= v < rank for v in operand.values):
        return None
    return [v % rank for v in operand.values]


def _told(operand: Optional[Operand]) -> str:
    if operand is None or operand.values is None:
        return "that is not constant"
    return str(list(operand.values))[:60]


def reduction(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = _axes(axis, len(x.shape)) if x.shape else None
    if places is None or axis.type != "int32":
        return f"axis {_told(axis)} of {list(x.shape)}"
    keep = op.setting(0, "u1")
    kept = ((i not in places, n) for i, n in enumerate(x.shape))
    return _types(x, y) or _shape(op, tuple(n if stays else 1 for stays, n in kept if stays or keep))


def padding(op: Operator) -> Wrong:
    x, pads, (y,) = op.inputs[0], op.inputs[1], op.outputs
    rank = len(x.shape)
    if pads.values is None or pads.shape != (rank, 2) or pads.type not in _INDEX:
        return f"padding {_told(pads)} of {list(x.shape)}"
    if not all(0 <= v <= 1 << 20 for v in pads.values):
        return f"padding {_told(pads)}"
    if len(op.inputs) > 2 and (op.inputs[2].items != 1 or op.inputs[2].type != x.type):
        return "more than one number to pad with"
    shape = tuple(n + pads.values[2 * i] + pads.values[2 * i + 1] for i, n in enumerate(x.shape))
    return _types(x, y) or _shape(op, shape)


def mirror(op: Operator) -> Wrong:
    x, pads = op.inputs
    edge = op.setting(0, "i1")
    if edge not in (0, 1):
        return f"mode {edge}"
    room = [n - (1 - edge) for n in x.shape for _ in (0, 1)]
    if pads.values is not None and len(pads.values) == len(room) and any(v > r for v, r in zip(pads.values, room)):
        return f"padding {_told(pads)} of {list(x.shape)}"
    return padding(op)


def concatenation(op: Operator) -> Wrong:
    first, rank = op.inputs[0], len(op.inputs[0].shape)
    axis = op.setting(0, "i4")
    if not -rank <= axis < rank or op.setting(1, "i1"):
        return f"axis {axis} of {list(first.shape)}"
    axis %= rank
    rest = {(*o.shape[:axis], *o.shape[axis + 1 :], len(o.shape)) for o in op.inputs}
    if len(rest) != 1:
        return "shapes that do not fit"
    total = sum(o.shape[axis] for o in op.inputs)
    return _types(*op.inputs, *op.outputs) or _shape(op, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def gather(op: Operator) -> Wrong:
    (x, indices), (y,) = op.inputs, op.outputs
    rank, axis, batch = len(x.shape), op.setting(0, "i4"), op.setting(1, "i4")
    if indices.type not in _INDEX or not -rank <= axis < rank:
        return f"axis {axis} of {list(x.shape)} by {indices.type}"
    axis %= rank
    if not 0 <= batch <= min(axis, len(indices.shape)) or x.shape[:batch] != indices.shape[:batch]:
        return f"batch of {batch} in {list(x.shape)}, {list(indices.shape)}"
    if indices.values is not None and not all(0 <= v < x.shape[axis] for v in indices.values):
        return f"an index beyond {x.shape[axis]}"
    return _types(x, y) or _shape(op, (*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :]))


def lookup(op: Operator) -> Wrong:
    (indices, x), (y,) = op.inputs, op.outputs
    if indices.type != "int32" or len(indices.shape) != 1 or len(x.shape) < 2:
        return f"{list(x.shape)} by {indices.type} {list(indices.shape)}"
    if indices.values is not None and not all(0 <= v < x.shape[0] for v in indices.values):
        return f"an index beyond {x.shape[0]}"
    wrong = None if y.type in (x.type, "float32") else f"types {x.type}, {y.type}"
    return wrong or _shape(op, (*indices.shape, *x.shape[1:]))


def matrices(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    if min(len(a.shape), len(b.shape)) < 2 or max(len(a.shape), len(b.shape)) > 5:
        return f"{list(a.shape)} by {list(b.shape)}"
    left, right = (s[:-2] + s[-2:][::-1] if t else s for s, t in
                   ((a.shape, op.setting(0, "u1")), (b.shape, op.setting(1, "u1"))))  # fmt: skip
    batch = _broadcast(left[:-2], right[:-2])
    known = (a.type, b.type, y.type) in {(t, t, t) for t in ("float32", "int8", "int16")} | {
        ("float32", "int8", "float32")
    }
    if batch is None or left[-1] != right[-2] or not known:
        return f"{a.type} {list(left)} by {b.type} {list(right)}"
    return _shape(op, (*batch, left[-2], right[-1]))


def transpose(op: Operator) -> Wrong:
    (x, order), (y,) = op.inputs, op.outputs
    if order.values is None or sorted(order.values) != list(range(len(x.shape))) or order.type != "int32":
        return f"order {_told(order)} of {list(x.shape)}"
    return _types(x, y) or _shape(op, tuple(x.shape[i] for i in order.values))


def strided(op: Operator) -> Wrong:
    x, *parts = op.inputs
    (y,) = op.outputs
    if any(p.values is None or p.type != "int32" or len(p.values) != len(parts[0].values or ()) for p in parts):
        return "limits that are not constant, or not as many"
    masks = [op.setting(i, "i4") for i in range(5)]
    index: List[Any] = []
    for i, (begin, end, step) in enumerate(zip(*(p.values or () for p in parts))):
        begins, ends, rest, new, single = (mask >> i & 1 for mask in masks)
        if rest or new:
            index.append(Ellipsis if rest else None)
        elif not step:
            return "a stride of 0"
        elif single:
            index.append(begin)
        else:
            index.append(slice(None if begins else begin, None if ends else end, step))
    try:
        shape = np.broadcast_to(np.int8(0), x.shape)[tuple(index)].shape
    except IndexError:
        return f"a part outside {list(x.shape)}"
    return _types(x, y) or _shape(op, shape)


def part(op: Operator) -> Wrong:
    (x, begin, size), (y,) = op.inputs, op.outputs
    rank = len(x.shape)
    for operand in (begin, size):
        if operand.values is None or operand.type not in _INDEX or len(operand.values) != rank:
            return f"a part {_told(operand)} of {list(x.shape)}"
    shape = tuple(n - b if s == -1 else s for n, b, s in zip(x.shape, begin.values or (), size.values or ()))
    if any(b < 0 or s < 1 or b + s > n for n, b, s in zip(x.shape, begin.values or (), shape)):
        return f"a part from {_told(begin)} of {list(x.shape)}"
    return _types(x, y) or _shape(op, shape)


def split(op: Operator) -> Wrong:
    axis, x = op.inputs
    return _split(op, x, axis, None)


def split_by_sizes(op: Operator) -> Wrong:
    x, sizes, axis = op.inputs
    return _split(op, x, axis, sizes)


def _split(op: Operator, x: Operand, axis: Operand, sizes: Optional[Operand]) -> Wrong:
    places, count = _axes(axis, len(x.shape)) if x.shape else None, len(op.outputs)
    if places is None or len(places) != 1 or op.setting(0, "i4") != count:
        return f"axis {_told(axis)} of {list(x.shape)} in {count} parts"
    i = places[0]
    if sizes is None:
        parts: Tuple[int, ...] = (x.shape[i] // count,) * count
    elif sizes.values is None or len(sizes.values) != count or min(sizes.values) < 1:
        return f"parts {_told(sizes)}"
    else:
        parts = sizes.values
    if sum(parts) != x.shape[i]:
        return f"{x.shape[i]} in {count} parts"
    return _types(x, *op.outputs) or _shape(op, *((*x.shape[:i], n, *x.shape[i + 1 :]) for n in parts))


def pack(op: Operator) -> Wrong:
    x, rank = op.inputs[0], len(op.inputs[0].shape) + 1
    count, axis = op.setting(0, "i4"), op.setting(1, "i4")
    if count != len(op.inputs) or not -rank <= axis < rank or any(o.shape != x.shape for o in op.inputs):
        return f"{count} of {list(x.shape)} along axis {axis}"
    axis %= rank
    return _types(*op.inputs, *op.outputs) or _shape(op, (*x.shape[:axis], count, *x.shape[axis:]))


def unpack(op: Operator) -> Wrong:
    (x,), rank = op.inputs, len(op.inputs[0].shape)
    count, axis = op.setting(0, "i4"), op.setting(1, "i4")
    if count != len(op.outputs) or not -rank <= axis < rank or x.shape[axis] != count:
        return f"{count} of {list(x.shape)} along axis {axis}"
    axis %= rank
    return _types(x, *op.outputs) or _shape(op, *[(*x.shape[:axis], *x.shape[axis + 1 :])] * count)


def arg(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = _axes(axis, len(x.shape)) if x.shape else None
    if places is None or len(places) != 1 or y.type not in _INDEX:
        return f"axis {_told(axis)} of {list(x.shape)}"
    return _shape(op, tuple(n for i, n in enumerate(x.shape) if i != places[0]))


def resizing(op: Operator) -> Wrong:
    (x, size), (y,) = op.inputs, op.outputs
    if len(x.shape) != 4 or size.values is None or len(size.values) != 2 or size.type != "int32":
        return f"{list(x.shape)} to {_told(size)}"
    if not all(0 < n <= 1 << 14 for n in size.values):
        return f"a size of {_told(size)}"
    return _types(x, y) or _shape(op, (x.shape[0], *size.values, x.shape[3]))


def space_to_depth(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    block = op.setting(0, "i4")
    if _four(x) or block < 1 or x.shape[1] % block or x.shape[2] % block:
        return f"blocks of {block} in {list(x.shape)}"
    n, h, w, c = x.shape
    return _types(x, y) or _shape(op, (n, h // block, w // block, c * block * block))


def depth_to_space(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    block = op.setting(0, "i4")
    if _four(x) or not 0 < block < 1 << 10 or x.shape[3] % (block * block):
        return f"blocks of {block} in {list(x.shape)}"
    n, h, w, c = x.shape
    return _types(x, y) or _shape(op, (n, h * block, w * block, c // (block * block)))


def batches(op: Operator) -> Wrong:
    """SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND, whose third input are pads or crops."""
    (x, block, edges), (y,) = op.inputs, op.outputs
    sides = len(x.shape) - 2
    if sides not in (1, 2) or any(o.values is None or o.type != "int32" for o in (block, edges)):
        return f"{list(x.shape)} by {_told(block)}"
    if len(block.values or ()) != sides or edges.shape != (sides, 2):
        return f"blocks {_told(block)}, edges {_told(edges)} for {list(x.shape)}"
    if not all(0 < b <= 1 << 10 for b in block.values or ()) or not all(0 <= v <= 1 << 10 for v in edges.values or ()):
        return f"blocks {_told(block)}, edges {_told(edges)}"
    many, edge = (
        _product(block.values or ()),
        edges.values or (),
    )
    both = [edge[2 * i] + edge[2 * i + 1] for i in range(sides)]
    if op.kind == 38:
        fits = all((n + e) % b == 0 for n, e, b in zip(x.shape[1:], both, block.values or ()))
        shape = (
            x.shape[0] * many,
            *((n + e) // b for n, e, b in zip(x.shape[1:], both, block.values or ())),
            x.shape[-1],
        )
    else:
        fits = x.shape[0] % many == 0 and all(n * b > e for n, e, b in zip(x.shape[1:], both, block.values or ()))
        shape = (x.shape[0] // many, *(n * b - e for n, e, b in zip(x.shape[1:], both, block.values or ())), x.shape[-1])
    return (None if fits else f"blocks {_told(block)} in {list(x.shape)}") or _types(x, y) or _shape(op, shape)


def broadcast_to(op: Operator) -> Wrong:
    (x, asked), (y,) = op.inputs, op.outputs
    if asked.values != y.shape or asked.type not in _INDEX or _broadcast(x.shape, y.shape) != y.shape:
        return f"{list(x.shape)} to {_told(asked)}"
    return _types(x, y)


def tile(op: Operator) -> Wrong:
    (x, times), (y,) = op.inputs, op.outputs
    if times.values is None or times.type not in _INDEX or len(times.values) != len(x.shape):
        return f"{list(x.shape)} {_told(times)} times"
    if not all(0 < n <= 1 << 20 for n in times.values):
        return f"{_told(times)} times"
    return _types(x, y) or _shape(op, tuple(n * t for n, t in zip(x.shape, times.values)))


def along(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = _axes(axis, len(x.shape)) if x.shape else None
    return _types(x, y) or (f"axis {_told(axis)}" if not places else None) or _shape(op, x.shape)


def shape_of(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    return _shape(op, (len(x.shape),)) if y.type in _INDEX else f"an output of {y.type}"


def alike(op: Operator) -> Wrong:
    return _types(*op.inputs, *op.outputs) or _shape(op, *[o.shape for o in op.inputs])


_NUMBERS = ("float32", "int8", "uint8", "int16", "float16")
_TABLE = {
    # number: name, inputs, outputs, the number of its options' table, rule
    0: ("ADD", 2, 1, 11, binary), 1: ("AVERAGE_POOL_2D", 1, 1, 5, pool),
    2: ("CONCATENATION", (1, 1 << 14), 1, 10, concatenation), 3: ("CONV_2D", 3, 1, 1, convolution),
    4: ("DEPTHWISE_CONV_2D", 3, 1, 2, depthwise), 5: ("DEPTH_TO_SPACE", 1, 1, 94, depth_to_space),
    6: ("DEQUANTIZE", 1, 1, 38, conversion(("int8", "uint8", "int16", "float16", "int4"), ("float32",))),
    7: ("EMBEDDING_LOOKUP", 2, 1, 0, lookup), 8: ("FLOOR", 1, 1, 0, unary), 9: ("FULLY_CONNECTED", (2, 3), 1, 8, dense),
    11: ("L2_NORMALIZATION", 1, 1, 12, unary), 14: ("LOGISTIC", 1, 1, 0, unary), 17: ("MAX_POOL_2D", 1, 1, 5, pool),
    18: ("MUL", 2, 1, 21, binary), 19: ("RELU", 1, 1, 0, unary), 20: ("RELU_N1_TO_1", 1, 1, 0, unary),
    21: ("RELU6", 1, 1, 0, unary), 22: ("RESHAPE", (1, 2), 1, 17, reshape), 23: ("RESIZE_BILINEAR", 2, 1, 15, resizing),
    25: ("SOFTMAX", 1, 1, 9, softmax), 26: ("SPACE_TO_DEPTH", 1, 1, 19, space_to_depth), 28: ("TANH", 1, 1, 0, unary),
    34: ("PAD", 2, 1, 22, padding), 36: ("GATHER", 2, 1, 23, gather), 37: ("BATCH_TO_SPACE_ND", 3, 1, 24, batches),
    38: ("SPACE_TO_BATCH_ND", 3, 1, 25, batches), 39: ("TRANSPOSE", 2, 1, 26, transpose),
    40: ("MEAN", 2, 1, 27, reduction), 41: ("SUB", 2, 1, 28, binary), 42: ("DIV", 2, 1, 29, binary),
    43: ("SQUEEZE", 1, 1, 30, squeeze), 45: ("STRIDED_SLICE", 4, 1, 32, strided), 47: ("EXP", 1, 1, 33, unary),
    49: ("SPLIT", 2, (1, 1 << 14), 35, split), 50: ("LOG_SOFTMAX", 1, 1, 36, unary),
    53: ("CAST", 1, 1, 37, conversion(_ANY, _ANY)), 54: ("PRELU", 2, 1, 0, plain_binary),
    55: ("MAXIMUM", 2, 1, 39, plain_binary), 56: ("ARG_MAX", 2, 1, 40, arg), 57: ("MINIMUM", 2, 1, 39, plain_binary),
    58: ("LESS", 2, 1, 41, comparison), 59: ("NEG", 1, 1, 42, unary), 60: ("PADV2", 3, 1, 43, padding),
    61: ("GREATER", 2, 1, 44, comparison), 62: ("GREATER_EQUAL", 2, 1, 45, comparison),
    63: ("LESS_EQUAL", 2, 1, 46, comparison), 64: ("SELECT", 3, 1, 47, select), 65: ("SLICE", 3, 1, 48, part),
    66: ("SIN", 1, 1, 0, unary), 67: ("TRANSPOSE_CONV", (3, 4), 1, 49, transposed_convolution),
    69: ("TILE", 2, 1, 51, tile), 70: ("EXPAND_DIMS", 2, 1, 52, expand), 71: ("EQUAL", 2, 1, 53, comparison),
    72: ("NOT_EQUAL", 2, 1, 54, comparison), 73: ("LOG", 1, 1, 0, unary), 74: ("SUM", 2, 1, 27, reduction),
    75: ("SQRT", 1, 1, 0, unary), 76: ("RSQRT", 1, 1, 0, unary), 77: ("SHAPE", 1, 1, 55, shape_of),
    78: ("POW", 2, 1, 56, plain_binary), 79: ("ARG_MIN", 2, 1, 57, arg), 81: ("REDUCE_PROD", 2, 1, 27, reduction),
    82: ("REDUCE_MAX", 2, 1, 27, reduction), 83: ("PACK", (1, 1 << 14), 1, 59, pack),
    84: ("LOGICAL_OR", 2, 1, 60, logical), 86: ("LOGICAL_AND", 2, 1, 62, logical),
    87: ("LOGICAL_NOT", 1, 1, 63, logical), 88: ("UNPACK", 1, (1, 1 << 14), 64, unpack),
    89: ("REDUCE_MIN", 2, 1, 27, reduction), 90: ("FLOOR_DIV", 2, 1, 65, plain_binary),
    91: ("REDUCE_ANY", 2, 1, 27, reduction), 92: ("SQUARE", 1, 1, 66, unary), 93: ("ZEROS_LIKE", 1, 1, 67, unary),
    95: ("FLOOR_MOD", 2, 1, 72, plain_binary), 97: ("RESIZE_NEAREST_NEIGHBOR", 2, 1, 74, resizing),
    98: ("LEAKY_RELU", 1, 1, 75, unary), 99: ("SQUARED_DIFFERENCE", 2, 1, 76, plain_binary),
    100: ("MIRROR_PAD", 2, 1, 77, mirror), 101: ("ABS", 1, 1, 78, unary),
    102: ("SPLIT_V", 3, (1, 1 << 14), 79, split_by_sizes), 104: ("CEIL", 1, 1, 0, unary),
    105: ("REVERSE_V2", 2, 1, 81, along), 106: ("ADD_N", (1, 1 << 14), 1, 82, alike), 108: ("COS", 1, 1, 84, unary),
    111: ("ELU", 1, 1, 0, unary),
    114: ("QUANTIZE", 1, 1, 89, conversion(("float32", "int8", "uint8", "int16"), ("int8", "uint8", "int16"))),
    116: ("ROUND", 1, 1, 0, unary), 117: ("HARD_SWISH", 1, 1, 91, unary), 123: ("SELECT_V2", 3, 1, 98, select),
    126: ("BATCH_MATMUL", 2, 1, 101, matrices), 128: ("CUMSUM", 2, 1, 102, along),
    130: ("BROADCAST_TO", 2, 1, 104, broadcast_to), 140: ("REDUCE_ALL", 2, 1, 27, reduction),
    150: ("GELU", 1, 1, 116, unary), 152: ("RELU_0_TO_1", 1, 1, 0, unary), 158: ("SIGN", 1, 1, 123, unary),
}  # fmt: skip
# Names of what is refused: others than these show their number.
_REFUSED = {
    10: "HASHTABLE_LOOKUP", 16: "LSTM", 24: "RNN", 27: "SVDF", 31: "CALL", 35: "UNIDIRECTIONAL_SEQUENCE_RNN",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 46: "BIDIRECTIONAL_SEQUENCE_RNN", 48: "TOPK_V2", 51: "DELEGATE",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM", 85: "ONE_HOT", 94: "FILL", 96: "RANGE", 109: "WHERE", 110: "RANK", 118: "IF",
    119: "WHILE", 120: "NON_MAX_SUPPRESSION_V4", 121: "NON_MAX_SUPPRESSION_V5", 129: "CALL_ONCE", 136: "HASHTABLE",
    142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE",
}  # fmt: skip
_NEEDED = (1, 2, 3, 4, 9, 17, 25, 67, 83, 88, 49, 102, 26, 5)
_ARITHMETIC = (
    *(
        0,
        1,
        3,
        4,
        9,
        11,
        14,
        17,
        18,
        19,
        20,
        21,
        25,
        28,
        40,
        41,
        42,
        47,
        50,
        54,
        55,
        57,
        58,
        59,
        61,
        62,
        63,
        67,
        71,
        72,
        73,
    ),
    *(74, 75, 76, 78, 81, 82, 89, 98, 99, 101, 111, 117, 126, 150, 152),
)


def _range(count: Any) -> Tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


KINDS: Dict[int, Kind] = {
    number: Kind(
        name,
        _range(inputs),
        _range(outputs),
        settings,
        rule,
        needed=number in _NEEDED,
        optional={9: 2, 67: 3}.get(number, 99),  # the kernels of others need their bias
        arithmetic=number in _ARITHMETIC,
    )
    for number, (name, inputs, outputs, settings, rule) in _TABLE.items()
}
NAMES: Dict[int, str] = {**_REFUSED, **{number: kind.name for number, kind in KINDS.items()}}
