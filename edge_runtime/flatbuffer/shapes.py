"""Operators that give the same numbers another shape, or more room."""

from __future__ import annotations

import numpy as np

from edge_runtime.flatbuffer.operands import (
    INDEX,
    Operand,
    Operator,
    Wrong,
    axes,
    broadcast,
    four,
    gives,
    product,
    same_types,
    told,
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
    return same_types(x, y) or _same_items(x, y)


def _same_items(x: Operand, y: Operand) -> Wrong:
    return None if x.items == y.items else f"{list(x.shape)} to {list(y.shape)}"


def squeeze(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    fits = [n for n in x.shape if n != 1] == [n for n in y.shape if n != 1]
    return same_types(x, y) or (None if fits and len(y.shape) <= len(x.shape) else f"{list(x.shape)} to {list(y.shape)}")


def expand(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = axes(axis, len(x.shape) + 1)
    if places is None or len(places) != 1:
        return f"axis {told(axis)} for {list(x.shape)}"
    shape = list(x.shape)
    shape.insert(places[0], 1)
    return same_types(x, y) or gives(op, tuple(shape))


def transpose(op: Operator) -> Wrong:
    (x, order), (y,) = op.inputs, op.outputs
    if order.values is None or sorted(order.values) != list(range(len(x.shape))) or order.type != "int32":
        return f"order {told(order)} of {list(x.shape)}"
    return same_types(x, y) or gives(op, tuple(x.shape[i] for i in order.values))


def padding(op: Operator) -> Wrong:
    x, pads, (y,) = op.inputs[0], op.inputs[1], op.outputs
    rank = len(x.shape)
    if pads.values is None or pads.shape != (rank, 2) or pads.type not in INDEX:
        return f"padding {told(pads)} of {list(x.shape)}"
    if not all(0 <= v <= 1 << 20 for v in pads.values):
        return f"padding {told(pads)}"
    if len(op.inputs) > 2 and (op.inputs[2].items != 1 or op.inputs[2].type != x.type):
        return "more than one number to pad with"
    shape = tuple(n + pads.values[2 * i] + pads.values[2 * i + 1] for i, n in enumerate(x.shape))
    return same_types(x, y) or gives(op, shape)


def mirror(op: Operator) -> Wrong:
    x, pads = op.inputs
    edge = op.setting(0, "i1")
    if edge not in (0, 1):
        return f"mode {edge}"
    room = [n - (1 - edge) for n in x.shape for _ in (0, 1)]
    if pads.values is not None and len(pads.values) == len(room) and any(v > r for v, r in zip(pads.values, room)):
        return f"padding {told(pads)} of {list(x.shape)}"
    return padding(op)


def resizing(op: Operator) -> Wrong:
    (x, size), (y,) = op.inputs, op.outputs
    if len(x.shape) != 4 or size.values is None or len(size.values) != 2 or size.type != "int32":
        return f"{list(x.shape)} to {told(size)}"
    if not all(0 < n <= 1 << 14 for n in size.values):
        return f"a size of {told(size)}"
    return same_types(x, y) or gives(op, (x.shape[0], *size.values, x.shape[3]))


def space_to_depth(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    block = op.setting(0, "i4")
    if four(x) or block < 1 or x.shape[1] % block or x.shape[2] % block:
        return f"blocks of {block} in {list(x.shape)}"
    n, h, w, c = x.shape
    return same_types(x, y) or gives(op, (n, h // block, w // block, c * block * block))


def depth_to_space(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    block = op.setting(0, "i4")
    if four(x) or not 0 < block < 1 << 10 or x.shape[3] % (block * block):
        return f"blocks of {block} in {list(x.shape)}"
    n, h, w, c = x.shape
    return same_types(x, y) or gives(op, (n, h * block, w * block, c // (block * block)))


def batches(op: Operator) -> Wrong:
    """SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND, whose third input are pads or crops."""
    (x, block, edges), (y,) = op.inputs, op.outputs
    sides = len(x.shape) - 2
    if sides not in (1, 2) or any(o.values is None or o.type != "int32" for o in (block, edges)):
        return f"{list(x.shape)} by {told(block)}"
    if len(block.values or ()) != sides or edges.shape != (sides, 2):
        return f"blocks {told(block)}, edges {told(edges)} for {list(x.shape)}"
    if not all(0 < b <= 1 << 10 for b in block.values or ()) or not all(0 <= v <= 1 << 10 for v in edges.values or ()):
        return f"blocks {told(block)}, edges {told(edges)}"
    many, edge = (
        product(block.values or ()),
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
    return (None if fits else f"blocks {told(block)} in {list(x.shape)}") or same_types(x, y) or gives(op, shape)


def broadcast_to(op: Operator) -> Wrong:
    (x, asked), (y,) = op.inputs, op.outputs
    if asked.values != y.shape or asked.type not in INDEX or broadcast(x.shape, y.shape) != y.shape:
        return f"{list(x.shape)} to {told(asked)}"
    return same_types(x, y)


def tile(op: Operator) -> Wrong:
    (x, times), (y,) = op.inputs, op.outputs
    if times.values is None or times.type not in INDEX or len(times.values) != len(x.shape):
        return f"{list(x.shape)} {told(times)} times"
    if not all(0 < n <= 1 << 20 for n in times.values):
        return f"{told(times)} times"
    return same_types(x, y) or gives(op, tuple(n * t for n, t in zip(x.shape, times.values)))


def shape_of(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    return gives(op, (len(x.shape),)) if y.type in INDEX else f"an output of {y.type}"
