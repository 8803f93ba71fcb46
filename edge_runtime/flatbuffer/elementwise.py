"""Operators that compute number by number, and along an axis."""

from __future__ import annotations

from typing import Sequence

from edge_runtime.flatbuffer.operands import (
    INDEX,
    STORED,
    Operator,
    Rule,
    Wrong,
    activation,
    axes,
    broadcast,
    first,
    gives,
    same_types,
    told,
)


def unary(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    return first(same_types(x, y), gives(op, x.shape))


def softmax(op: Operator) -> Wrong:
    (x,), (y,) = op.inputs, op.outputs
    beta = op.setting(0, "f4")
    if not x.shape or not 1e-6 < beta < 1e6:
        return f"beta {beta}" if x.shape else "a single number"
    if x.type not in ("float32", "int8", "uint8", "int16") or (
        x.type != y.type and (x.type, y.type) != ("int8", "int16")
    ):
        return f"types {x.type}, {y.type}"
    return gives(op, x.shape)


def binary(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    shape = broadcast(a.shape, b.shape)
    if shape is None or len(shape) > 6:
        return f"shapes {list(a.shape)} and {list(b.shape)}, which do not fit"
    return first(same_types(a, b, y), activation(op.setting(0, "i1")) if op.settings else None, gives(op, shape))


def plain_binary(op: Operator) -> Wrong:
    return binary(op._replace(settings=0))


def comparison(op: Operator) -> Wrong:
    (a, b), (y,) = op.inputs, op.outputs
    wrong = same_types(a, b) or (None if y.type == "bool" else f"an output of {y.type}")
    return wrong or plain_binary(op._replace(inputs=(a, b), outputs=(y._replace(type=a.type),)))


def logical(op: Operator) -> Wrong:
    if op.outputs[0].type != "bool":
        return f"an output of {op.outputs[0].type}"
    return unary(op) if len(op.inputs) == 1 else plain_binary(op)


def select(op: Operator) -> Wrong:
    (chosen, a, b), (y,) = op.inputs, op.outputs
    shape = broadcast(chosen.shape, a.shape, b.shape)
    if chosen.type != "bool" or shape is None:
        return f"a choice of {chosen.type} {list(chosen.shape)} between {list(a.shape)} and {list(b.shape)}"
    return first(same_types(a, b, y), gives(op, shape))


def conversion(sources: Sequence[str], targets: Sequence[str]) -> Rule:
    def rule(op: Operator) -> Wrong:
        (x,), (y,) = op.inputs, op.outputs
        for operand, types in ((x, sources), (y, targets)):
            if operand.type not in types:
                return f"{x.type} to {y.type}"
            if operand.type in STORED and not operand.quantized and (sources, targets) != (ANY, ANY):
                return "a tensor without a scale"
        return gives(op, x.shape)

    return rule


ANY = ("float32", "float16", "int32", "uint8", "int64", "bool", "int16", "int8", "uint32")


def reduction(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = axes(axis, len(x.shape)) if x.shape else None
    if places is None or axis.type != "int32":
        return f"axis {told(axis)} of {list(x.shape)}"
    keep = op.setting(0, "u1")
    kept = ((i not in places, n) for i, n in enumerate(x.shape))
    return same_types(x, y) or gives(op, tuple(n if stays else 1 for stays, n in kept if stays or keep))


def arg(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = axes(axis, len(x.shape)) if x.shape else None
    if places is None or len(places) != 1 or y.type not in INDEX:
        return f"axis {told(axis)} of {list(x.shape)}"
    return gives(op, tuple(n for i, n in enumerate(x.shape) if i != places[0]))


def along(op: Operator) -> Wrong:
    (x, axis), (y,) = op.inputs, op.outputs
    places = axes(axis, len(x.shape)) if x.shape else None
    return same_types(x, y) or (f"axis {told(axis)}" if not places else None) or gives(op, x.shape)


def alike(op: Operator) -> Wrong:
    return same_types(*op.inputs, *op.outputs) or gives(op, *[o.shape for o in op.inputs])
