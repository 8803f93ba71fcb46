"""Operators that take parts of tensors, or put them together."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import numpy as np

from edge_runtime.flatbuffer.operands import INDEX, Operand, Operator, Wrong, axes, gives, same_types, told


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
    return same_types(*op.inputs, *op.outputs) or gives(op, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def gather(op: Operator) -> Wrong:
    (x, indices), (y,) = op.inputs, op.outputs
    rank, axis, batch = len(x.shape), op.setting(0, "i4"), op.setting(1, "i4")
    if indices.type not in INDEX or not -rank <= axis < rank:
        return f"axis {axis} of {list(x.shape)} by {indices.type}"
    axis %= rank
    if not 0 <= batch <= min(axis, len(indices.shape)) or x.shape[:batch] != indices.shape[:batch]:
        return f"batch of {batch} in {list(x.shape)}, {list(indices.shape)}"
    if indices.values is not None and not all(0 <= v < x.shape[axis] for v in indices.values):
        return f"an index beyond {x.shape[axis]}"
    return same_types(x, y) or gives(op, (*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :]))


def lookup(op: Operator) -> Wrong:
    (indices, x), (y,) = op.inputs, op.outputs
    if indices.type != "int32" or len(indices.shape) != 1 or len(x.shape) < 2:
        return f"{list(x.shape)} by {indices.type} {list(indices.shape)}"
    if indices.values is not None and not all(0 <= v < x.shape[0] for v in indices.values):
        return f"an index beyond {x.shape[0]}"
    wrong = None if y.type in (x.type, "float32") else f"types {x.type}, {y.type}"
    return wrong or gives(op, (*indices.shape, *x.shape[1:]))


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
    return same_types(x, y) or gives(op, shape)


def part(op: Operator) -> Wrong:
    (x, begin, size), (y,) = op.inputs, op.outputs
    rank = len(x.shape)
    for operand in (begin, size):
        if operand.values is None or operand.type not in INDEX or len(operand.values) != rank:
            return f"a part {told(operand)} of {list(x.shape)}"
    shape = tuple(n - b if s == -1 else s for n, b, s in zip(x.shape, begin.values or (), size.values or ()))
    if any(b < 0 or s < 1 or b + s > n for n, b, s in zip(x.shape, begin.values or (), shape)):
        return f"a part from {told(begin)} of {list(x.shape)}"
    return same_types(x, y) or gives(op, shape)


def split(op: Operator) -> Wrong:
    axis, x = op.inputs
    return _split(op, x, axis, None)


def split_by_sizes(op: Operator) -> Wrong:
    x, sizes, axis = op.inputs
    return _split(op, x, axis, sizes)


def _split(op: Operator, x: Operand, axis: Operand, sizes: Optional[Operand]) -> Wrong:
    places, count = axes(axis, len(x.shape)) if x.shape else None, len(op.outputs)
    if places is None or len(places) != 1 or op.setting(0, "i4") != count:
        return f"axis {told(axis)} of {list(x.shape)} in {count} parts"
    i = places[0]
    if sizes is None:
        parts: Tuple[int, ...] = (x.shape[i] // count,) * count
    elif sizes.values is None or len(sizes.values) != count or min(sizes.values) < 1:
        return f"parts {told(sizes)}"
    else:
        parts = sizes.values
    if sum(parts) != x.shape[i]:
        return f"{x.shape[i]} in {count} parts"
    return same_types(x, *op.outputs) or gives(op, *((*x.shape[:i], n, *x.shape[i + 1 :]) for n in parts))


def pack(op: Operator) -> Wrong:
    x, rank = op.inputs[0], len(op.inputs[0].shape) + 1
    count, axis = op.setting(0, "i4"), op.setting(1, "i4")
    if count != len(op.inputs) or not -rank <= axis < rank or any(o.shape != x.shape for o in op.inputs):
        return f"{count} of {list(x.shape)} along axis {axis}"
    axis %= rank
    return same_types(*op.inputs, *op.outputs) or gives(op, (*x.shape[:axis], count, *x.shape[axis:]))


def unpack(op: Operator) -> Wrong:
    (x,), rank = op.inputs, len(op.inputs[0].shape)
    count, axis = op.setting(0, "i4"), op.setting(1, "i4")
    if count != len(op.outputs) or not -rank <= axis < rank or x.shape[axis] != count:
        return f"{count} of {list(x.shape)} along axis {axis}"
    axis %= rank
    return same_types(x, *op.outputs) or gives(op, *[(*x.shape[:axis], *x.shape[axis + 1 :])] * count)
