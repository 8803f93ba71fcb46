"""Which operators can run on a batch of samples, and how large the batch is.

A converted network has batch size 1. An operator that processes each sample independently gives the same in a batch.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT32, Part, dtype_of, operator_name
from builder.tflite.parts import constant

_BYTES = 1 << 24  # largest size of an operator's activations in one batch: more does not fit the caches
_SPATIAL = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
}  # fmt: skip
_UNARY = {
    "QUANTIZE", "DEQUANTIZE", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "ELU", "GELU",
    "HARD_SWISH", "NEG", "RSQRT", "SQRT", "SQUARE", "EXP",
}  # fmt: skip
_BINARY = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"}


def batch_of(part: Part, op: Any, tensors: list[int], samples: int) -> int:
    """The batch size for ``op`` with activation inputs ``tensors``: up to ``samples``, or 1 if it may mix samples."""
    ends = [part.tensors[i] for i in (*tensors, *op.outputs)]
    if any(len(t.shape) < 2 or t.shape[0] != 1 for t in ends) or not _apart(part, op, tensors):
        return 1
    size = sum(int(np.prod(t.shape)) * dtype_of(t).itemsize for t in ends)
    return int(np.clip(_BYTES // max(size, 1), 1, samples))


def elementwise(part: Part, op: Any) -> bool:
    """Whether each number of the result depends only on the numbers in its place."""
    return operator_name(part, op) in _UNARY | _BINARY


def batched(tensor: Any, batch: int) -> Any:
    """A copy of the tensor's table with batch size ``batch``."""
    own = copy.copy(tensor)
    own.shape, own.shapeSignature = [batch, *(int(n) for n in tensor.shape[1:])], None
    return own


def reshaped(part: Part, op: Any, values: np.ndarray) -> np.ndarray | None:
    """The result of ``op`` on ``values`` (samples, ...) if it is a RESHAPE that keeps the batch axis; otherwise None."""
    if operator_name(part, op) != "RESHAPE" or len(op.outputs) != 1:
        return None
    read, made = ([int(n) for n in part.tensors[i].shape] for i in (op.inputs[0], op.outputs[0]))
    return values.reshape(len(values), *made[1:]) if read[:1] == made[:1] == [1] and len(made) > 1 else None


def _apart(part: Part, op: Any, tensors: list[int]) -> bool:
    """Whether ``op`` processes each index of the first axis independently."""
    kind, ranks = operator_name(part, op), {len(part.tensors[i].shape) for i in (*tensors, *op.outputs)}
    if kind in _SPATIAL | _UNARY:
        return True
    if kind in _BINARY:
        others = [part.tensors[i] for i in op.inputs if i not in tensors]
        return len(ranks) == 1 and all(len(t.shape) < min(ranks) or t.shape[0] == 1 for t in others)
    if kind == "FULLY_CONNECTED":
        return op.inputs[0] in tensors and op.inputs[1] not in tensors
    if kind == "CONCATENATION":
        return op.builtinOptions.axis not in (0, -min(ranks)) and len(tensors) == len(op.inputs)
    if kind in ("MEAN", "SUM", "REDUCE_MAX"):
        axes = _integers(part, op.inputs[1])
        return axes is not None and not {0, -len(part.tensors[op.inputs[0]].shape)}.intersection(axes.ravel().tolist())
    if kind in ("PAD", "PADV2", "MIRROR_PAD"):
        margins = _integers(part, op.inputs[1])
        return margins is not None and not margins[0].any()
    return kind == "SOFTMAX"


def _integers(part: Part, tensor: int) -> np.ndarray | None:
    return constant(part, tensor, np.int32) if part.tensors[tensor].type == INT32 else None
