"""The tensors that must have the same scales of their channels, and the layers that write and read them.

Dividing channel c of a tensor by s_c is undone where a layer reads it. In between, sums, pools, padding and ReLU pass the
scale on, and so does a product with a gate: that of a squeeze-and-excite, or the sigmoid of a swish. The sigmoid itself
needs the values as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import FLOAT32, Part, dtype_of, fused_activation, operator_name, shape_of
from builder.tflite.parts import constant

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_POOLS = ("MAX_POOL_2D", "AVERAGE_POOL_2D")
_OF_ALL_CHANNELS = ("PAD", "MEAN", "RESHAPE")


@dataclass
class Group:
    """``tensors``: joined by operators that pass a scale on. ``makers``, ``readers``: the layers that write and read
    them. ``sigmoids``: the LOGISTIC operators that read one of them.
    """

    tensors: set[int] = field(default_factory=set)
    makers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)
    sigmoids: list[Any] = field(default_factory=list)
    closed: bool = False  # something else writes or reads one of them

    @property
    def scalable(self) -> bool:
        return not self.closed and bool(self.makers) and bool(self.readers)


def groups(part: Part) -> list[Group]:
    """The groups of a float part. Every activation belongs to one."""
    group_of: dict[int, Group] = {}
    for op in part.operators:
        for i in (*op.inputs, *op.outputs):
            if _is_activation(part, i):
                group_of.setdefault(i, Group({i}))
    joined = {id(op): _joined(part, op) for op in part.operators}
    for tensors in joined.values():
        _join(group_of, tensors)
    for i in (*part.inputs.values(), *part.outputs.values()):
        if i in group_of:  # tokens are not
            group_of[i].closed = True
    for op in part.operators:
        layer, there = is_layer(part, op), joined[id(op)]
        for i in op.inputs:
            if i not in group_of or i in there:
                continue
            if layer and i == op.inputs[0]:
                group_of[i].readers.append(op)
            elif operator_name(part, op) == "LOGISTIC":
                group_of[i].sigmoids.append(op)
            else:
                group_of[i].closed = True
        for i in op.outputs:
            if i not in group_of or i in there:
                continue
            if layer and _keeps_scale(op):
                group_of[i].makers.append(op)
            else:
                group_of[i].closed = True
    return list({id(group): group for group in group_of.values()}.values())


def _is_activation(part: Part, tensor: int) -> bool:
    if tensor < 0:
        return False
    found = part.tensors[tensor]
    return found.type == FLOAT32 and part.buffers[found.buffer] is None


def _join(group_of: dict[int, Group], tensors: list[int]) -> None:
    for i in tensors[1:]:
        first, other = group_of[tensors[0]], group_of[i]
        if other is not first:
            first.tensors |= other.tensors
            group_of.update(dict.fromkeys(other.tensors, first))


def _joined(part: Part, op: Any) -> list[int]:
    """The activations among the inputs and outputs of ``op`` that must have the same scales; none where it does not
    commute with a positive scale of each channel.
    """
    kind, inputs = operator_name(part, op), [i for i in op.inputs if _is_activation(part, i)]
    if kind in ("RELU", "ADD", *_POOLS):
        same = len(inputs) == len(op.inputs) and all(
            shape_of(part.tensors[i]) == shape_of(part.tensors[inputs[0]]) for i in inputs
        )
        passes = same and (kind == "RELU" or _keeps_scale(op))
        return [*inputs, op.outputs[0]] if passes else []
    if kind in _OF_ALL_CHANNELS and len(inputs) == 1:
        return [inputs[0], op.outputs[0]] if _keeps_channels(part, op, inputs[0]) else []
    if kind == "MUL" and _keeps_scale(op) and len(inputs) == 2:
        gated = [i for i in inputs if _gates(part, op, i)]
        return [gated[0], op.outputs[0]] if len(gated) == 1 else []
    return []


def _keeps_channels(part: Part, op: Any, tensor: int) -> bool:
    """Whether the last axis of ``tensor``, which ``op`` reads, stays the last one, whole and by itself."""
    kind, source, shape = operator_name(part, op), shape_of(part.tensors[tensor]), shape_of(part.tensors[op.outputs[0]])
    if not source or not shape or source[-1] != shape[-1]:
        return False
    if kind == "RESHAPE":
        return sum(n != 1 for n in source) <= 1  # one position: its channels in a row
    content = constant(part, op.inputs[1], dtype_of(part.tensors[op.inputs[1]]))
    if content is None:
        return False
    if kind == "PAD":
        return not content[-1].any()
    return all(axis % len(source) != len(source) - 1 for axis in content.ravel().tolist())


def _gates(part: Part, op: Any, tensor: int) -> bool:
    """Whether the other input of a product is a gate for ``tensor``: one value a channel, or a sigmoid."""
    shape, others = shape_of(part.tensors[op.outputs[0]]), [i for i in op.inputs if i != tensor]
    if len(others) != 1 or shape_of(part.tensors[tensor]) != shape:
        return False
    gate = shape_of(part.tensors[others[0]])
    if gate != shape:
        return all(n == 1 for n in gate[:-1])
    return any(others[0] in o.outputs and operator_name(part, o) == "LOGISTIC" for o in part.operators)


def _keeps_scale(op: Any) -> bool:
    return fused_activation(op) in ("NONE", "RELU")


def is_layer(part: Part, op: Any) -> bool:
    """Whether the operator has constant weights that no other uses, for pairs of channels or for each channel."""
    if operator_name(part, op) not in _LAYERS or len(op.inputs) != 3:
        return False
    weights = constant(part, op.inputs[1], np.float32)
    alone = all(sum(list(other.inputs).count(i) for other in part.operators) == 1 for i in op.inputs[1:])
    source, result = part.tensors[op.inputs[0]], part.tensors[op.outputs[0]]
    same = weights is not None and weights.shape[-1] == source.shape[-1] and len(source.shape) == len(result.shape)
    return alone and same and constant(part, op.inputs[2], np.float32) is not None


def scale_outputs(part: Part, op: Any, scale: np.ndarray) -> None:
    weights, bias = weights_of(part, op), constant(part, op.inputs[2], np.float32)
    assert bias is not None  # is_layer
    depthwise = operator_name(part, op) == "DEPTHWISE_CONV_2D"
    shape = (1, 1, 1, -1) if depthwise else (-1,) + (1,) * (weights.ndim - 1)
    part.set_constant(op.inputs[1], weights * scale.reshape(shape))
    part.set_constant(op.inputs[2], bias * scale)


def scale_inputs(part: Part, op: Any, scale: np.ndarray) -> None:
    part.set_constant(op.inputs[1], weights_of(part, op) * scale)


def weights_of(part: Part, op: Any) -> np.ndarray:
    found = constant(part, op.inputs[1], np.float32)
    assert found is not None  # is_layer
    return found
