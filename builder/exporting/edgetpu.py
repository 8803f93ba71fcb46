"""Find which operators of a backbone the Edge TPU supports, according to the compiler's documentation.

Its table of operators and their limitations, with the rules on types and shapes above it, is
https://coral.ai/docs/edgetpu/models-intro/#supported-operations (runtime 14, compiler 16). The compiler may refuse
more, also because of sizes, and says so in its log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT8, INT32, UINT8, Part, operator_name, scale_and_zero_point, type_name

_ANYTHING = (
    "ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "QUANTIZE", "RELU", "RELU6",
    "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SPACE_TO_DEPTH",
    "SQUARED_DIFFERENCE", "SQUEEZE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip
_MAX_SOFTMAX = 16_000
_INNERMOST = 3  # largest number of axes of a tensor longer than 1


@dataclass(frozen=True)
class OnCpu:
    """An operator that the Edge TPU does not support. ``index``: its index in the subgraph."""

    index: int
    operator: str
    reason: str


def not_mapped(part: Part) -> tuple[OnCpu, ...]:
    """The operators that the documentation does not allow, in order of execution.

    The compiler splits a model once: all operators after the first of these run on the CPU too.
    """
    found = []
    for index, op in enumerate(part.operators):
        reason = _tensors_refused(part, op) or _operator_refused(part, op)
        if reason:
            found.append(OnCpu(index, operator_name(part, op), reason))
    return tuple(found)


def _tensors_refused(part: Part, op: Any) -> str:
    for i in (*op.inputs, *op.outputs):
        if i < 0:
            continue
        tensor, constant = part.tensors[i], part.buffers[part.tensors[i].buffer] is not None
        if tensor.type not in (INT8, UINT8) and not (constant and tensor.type == INT32):
            return f"works on {type_name(tensor)}, not on 8 bits"
        signature = tensor.shapeSignature
        if signature is not None and min(signature, default=0) < 0:
            return "the size of a tensor is not constant"
        if not constant and any(n > 1 for n in list(tensor.shape)[:-_INNERMOST]):
            return f"more than the {_INNERMOST} innermost axes of a tensor are longer than 1"
    return ""


def _operator_refused(part: Part, op: Any) -> str:
    kind = operator_name(part, op)
    if kind in _ANYTHING:
        return ""
    rule = _RULES.get(kind)
    return "not among the operators of the Edge TPU" if rule is None else rule(part, op)


def _convolution(part: Part, op: Any) -> str:
    options = op.builtinOptions
    return "" if options.dilationWFactor == options.dilationHFactor else "dilation differs in x and y"


def _no_fused_activation(part: Part, op: Any) -> str:
    return "has a fused activation function" if op.builtinOptions.fusedActivationFunction else ""


def _concatenation(part: Part, op: Any) -> str:
    for tensor in (part.tensors[i] for i in op.inputs):
        content, (_, zero) = part.buffers[tensor.buffer], scale_and_zero_point(tensor)
        if content is not None and (len(op.inputs) != 2 or np.any(content != zero % 256)):  # content: its bytes
            return "concatenates a constant other than zeros to one tensor"
    return _no_fused_activation(part, op)


def _fully_connected(part: Part, op: Any) -> str:
    if op.builtinOptions.weightsFormat:
        return "its weights are not in the default format"
    shape = list(part.tensors[op.outputs[0]].shape)
    return "its output has more than one axis" if any(n > 1 for n in shape[:-1]) else ""


def _softmax(part: Part, op: Any) -> str:
    shape = list(part.tensors[op.inputs[0]].shape)
    if any(n > 1 for n in shape[:-1]) or shape[-1] > _MAX_SOFTMAX:
        return f"its input has more than one axis or more than {_MAX_SOFTMAX:,} elements"
    return ""


def _reduction(part: Part, op: Any) -> str:
    axes = _axes(part, op, op.inputs[1])
    return "" if axes is not None and 0 not in axes else "reduces the batch axis"


def _mean(part: Part, op: Any) -> str:
    shape = list(part.tensors[op.inputs[0]].shape)
    axes = _axes(part, op, op.inputs[1]) or set()
    if len(shape) - 1 in axes and shape[-1] % 4:
        return "reduces channels whose number is not a multiple of 4"
    return _reduction(part, op)


def _axes(part: Part, op: Any, index: int) -> set[int] | None:
    """The axes that a constant names, counted from the front."""
    content, rank = part.buffers[part.tensors[index].buffer], len(part.tensors[op.inputs[0]].shape)
    return None if content is None else {int(axis) % rank for axis in content.view(np.int32)}


def _padding(part: Part, op: Any) -> str:
    content = part.buffers[part.tensors[op.inputs[1]].buffer]
    return "" if content is not None and not np.any(content.view(np.int32)[:2]) else "pads the batch axis"


def _packing(part: Part, op: Any) -> str:
    rank = len(part.tensors[op.outputs[0]].shape)
    return "" if op.builtinOptions.axis % rank else "packs the batch axis"


def _splitting(part: Part, op: Any) -> str:
    """Its first input is the axis."""
    content, rank = part.buffers[part.tensors[op.inputs[0]].buffer], len(part.tensors[op.inputs[1]].shape)
    return "" if content is not None and int(content.view(np.int32)[0]) % rank else "splits the batch axis"


def _prelu(part: Part, op: Any) -> str:
    shape = list(part.tensors[op.inputs[1]].shape)
    return "its alpha has more than one axis; share them over height and width" if any(n > 1 for n in shape[:-1]) else ""


def _strided_slice(part: Part, op: Any) -> str:
    strides, options = part.buffers[part.tensors[op.inputs[3]].buffer], op.builtinOptions
    if strides is None or np.any(strides.view(np.int32) != 1) or options.ellipsisMask or options.newAxisMask:
        return "its strides are not all 1, or it has an ellipsis or a new axis"
    return ""


_RULES: dict[str, Callable[[Part, Any], str]] = {
    "AVERAGE_POOL_2D": _no_fused_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _no_fused_activation,
    "MEAN": _mean,
    "PACK": _packing,
    "PAD": _padding,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "SOFTMAX": _softmax,
    "SPLIT": _splitting,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduction,
}
