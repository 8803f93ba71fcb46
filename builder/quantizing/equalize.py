"""Cross-layer equalization: scale the channels of a tensor to similar ranges, and undo it in the layers that read them.

A tensor has one scale for all its channels, so a channel with a small range gets few of the 256 steps. Where only sums,
pools and ReLU lie between two layers, channel c may be divided by s_c in the first and multiplied by it in the second:
``s = r1^a / r2^(1 - a)``, r1 the channel's range, r2 that of the weights that read it (Nagel et al. 2019, arXiv
1906.04721, equation 11, with a = 1/2; Xiao et al. 2023, arXiv 2211.10438, equation 4). The network's outputs stay the
same.

ReLU commutes with a positive scale. ReLU6 would clip at another value, also in channels that never reached 6 on the
calibration pictures (docs/concepts/quantization.md), and swish does not commute with scaling: no channel is scaled across
them. Tensors that residual additions join get the same scales.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import FLOAT32, Part, fused_activation, operator_name, read_parts
from builder.tflite.parts import constant
from builder.tflite.writer import write_parts
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

STRENGTH = 0.5  # a; 0.75 and 1 were no better (docs/concepts/quantization.md)
_MOST = 2.0**16  # largest ratio between the scales of two channels
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_POOLS = ("MAX_POOL_2D", "AVERAGE_POOL_2D")


@dataclass
class _Group:
    """Tensors joined by additions, pools and ReLU, with the layers that write and read them."""

    tensors: set[int] = field(default_factory=set)
    makers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)
    scalable: bool = True


def equalized(model: bytes, images: np.ndarray, advance: Callable[[], None] = lambda: None) -> bytes:
    """The float ``model`` with its backbone equalized for ``images``, float32 (samples, height, width, 3), as its
    ``image`` takes them. ``advance`` is called after each image.
    """
    parts = read_parts(model)
    tensors = equalizable(parts[BACKBONE])
    if not tensors:
        return model
    ranges = _channel_ranges(model, parts[BACKBONE], tensors, images, advance)
    return write_parts({**parts, BACKBONE: equalize(parts[BACKBONE], ranges)})


def _channel_ranges(
    model: bytes, backbone: Part, tensors: set[int], images: np.ndarray, advance: Callable[[], None]
) -> dict[int, np.ndarray]:
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=model, num_threads=2, experimental_preserve_all_tensors=True)
    runner, found = interpreter.get_signature_runner(BACKBONE), dict[int, np.ndarray]()
    (name,) = backbone.inputs
    for image in images:
        runner(**{name: image[None]})
        for i in tensors:
            values = np.abs(interpreter.get_tensor(i, backbone.subgraph))
            largest = values.reshape(-1, values.shape[-1]).max(0)
            found[i] = np.maximum(found.get(i, largest), largest)
        advance()
    return found


def equalize(part: Part, channel_ranges: Mapping[int, np.ndarray]) -> Part:
    """An equalized copy of a float part, with the same outputs. ``channel_ranges``: for each tensor, the largest
    magnitude of each channel, float (channels,).
    """
    found = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers))
    for group in _groups(part):
        if not group.scalable or not group.makers or not group.readers:
            continue
        values = np.max([channel_ranges[i] for i in sorted(group.tensors)], axis=0)
        scale = _scale(values, np.max([_reading(part, op, values) for op in group.readers], axis=0))
        for op in group.makers:
            _scale_outputs(found, op, 1 / scale)
        for op in group.readers:
            _scale_inputs(found, op, scale)
    return found


def equalizable(part: Part) -> set[int]:
    """The tensors whose channels ``equalize`` may scale."""
    return {i for group in _groups(part) if group.scalable and group.makers and group.readers for i in group.tensors}


def _scale(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The divisor of each channel; 1 where nothing is known. The largest is near 1."""
    known = (values > 0) & (weights > 0)
    if not known.any():
        return np.ones(len(values), np.float32)
    scale = np.ones(len(values))
    scale[known] = values[known] ** STRENGTH / weights[known] ** (1 - STRENGTH)
    scale[known] /= scale[known].max()
    return np.maximum(scale, 1 / _MOST).astype(np.float32)


def _groups(part: Part) -> Iterable[_Group]:
    """Every tensor belongs to one group. A group is scalable only if it is written and read by nothing but layers and
    operators that keep a channel's scale.
    """
    group_of: dict[int, _Group] = {}
    for op in part.operators:
        for i in (*op.inputs, *op.outputs):
            if i >= 0 and part.tensors[i].type == FLOAT32 and part.buffers[part.tensors[i].buffer] is None:
                group_of.setdefault(i, _Group({i}))
    for op in part.operators:
        if _passes_on(part, op):
            _join(group_of, [*op.inputs, *op.outputs])
    for i in (*part.inputs.values(), *part.outputs.values()):
        if i in group_of:  # tokens are not
            group_of[i].scalable = False
    for op in part.operators:
        if _passes_on(part, op):
            continue
        layer = is_layer(part, op)
        for i in op.inputs:
            if i in group_of and not (layer and i == op.inputs[0]):
                group_of[i].scalable = False
            elif i in group_of:
                group_of[i].readers.append(op)
        for i in filter(group_of.__contains__, op.outputs):
            if layer and _keeps_scale(op):
                group_of[i].makers.append(op)
            else:
                group_of[i].scalable = False
    return {id(group): group for group in group_of.values()}.values()


def _join(group_of: dict[int, _Group], tensors: list[int]) -> None:
    first = group_of[tensors[0]]
    for i in tensors[1:]:
        other = group_of[i]
        if other is not first:
            first.tensors |= other.tensors
            group_of.update(dict.fromkeys(other.tensors, first))


def _passes_on(part: Part, op: Any) -> bool:
    """Whether the operator commutes with a positive scale of each channel."""
    kind = operator_name(part, op)
    if kind != "RELU" and not (kind in ("ADD", *_POOLS) and _keeps_scale(op)):
        return False
    tensors = [part.tensors[i] for i in op.inputs]
    activations = all(part.buffers[t.buffer] is None and t.type == FLOAT32 for t in tensors)
    return activations and all(list(t.shape) == list(tensors[0].shape) for t in tensors)


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


def _reading(part: Part, op: Any, values: np.ndarray) -> np.ndarray:
    """The largest weight that reads each channel, (channels,), relative to the largest contribution of any channel to its
    output, so that neither the scale of outputs nor that of channels matters. ``values``: ranges of the channels.
    """
    weights = np.abs(weights_of(part, op))
    if operator_name(part, op) == "DEPTHWISE_CONV_2D":
        return np.asarray(1 / np.maximum(values, 1e-30))  # each channel has a scale of its own
    flat = weights.reshape(weights.shape[0], -1, weights.shape[-1])
    most = np.maximum((flat * values).max((1, 2), keepdims=True), 1e-30)
    return np.asarray((flat / most).max((0, 1)))


def _scale_outputs(part: Part, op: Any, scale: np.ndarray) -> None:
    weights, bias = weights_of(part, op), constant(part, op.inputs[2], np.float32)
    assert bias is not None  # is_layer
    depthwise = operator_name(part, op) == "DEPTHWISE_CONV_2D"
    shape = (1, 1, 1, -1) if depthwise else (-1,) + (1,) * (weights.ndim - 1)
    part.set_constant(op.inputs[1], weights * scale.reshape(shape))
    part.set_constant(op.inputs[2], bias * scale)


def _scale_inputs(part: Part, op: Any, scale: np.ndarray) -> None:
    part.set_constant(op.inputs[1], weights_of(part, op) * scale)


def weights_of(part: Part, op: Any) -> np.ndarray:
    found = constant(part, op.inputs[1], np.float32)
    assert found is not None  # is_layer
    return found
