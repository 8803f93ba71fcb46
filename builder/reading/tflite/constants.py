"""The constants of a file as float32, from any precision, with their rounding errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT32, Part, dtype_of, type_name
from builder.tflite.parts import constant

_INTEGERS = (np.int8, np.uint8, np.int16, np.int32, np.int64)


class UnreadableTensorError(ValueError):
    """A tensor of a kind that is not read; the message says which."""


@dataclass(frozen=True, eq=False)
class Constant:
    """``values``: float32, or integers for axes and shapes. ``slack``: the largest rounding error of each value, where
    its scale differs between files; None otherwise.
    """

    values: np.ndarray
    slack: np.ndarray | None = None

    @property
    def is_quantity(self) -> bool:
        return bool(self.values.dtype == np.float32)


def read_constant(part: Part, tensor: int) -> Constant | None:
    """The constant in a tensor; None for an operator's output. Raises ``UnreadableTensorError``."""
    own = part.tensors[tensor]
    if part.buffers[own.buffer] is None:
        return None
    if own.sparsity is not None or own.isVariable:
        raise UnreadableTensorError(f"a {'sparse' if own.sparsity is not None else 'variable'} tensor")
    try:
        values = constant(part, tensor, dtype_of(own))
    except KeyError as error:
        raise UnreadableTensorError(f"numbers of type {type_name(own)}") from error
    assert values is not None
    if values.dtype in (np.float16, np.float32):
        return Constant(values.astype(np.float32))
    return dequantized(values, own)


def dequantized(values: np.ndarray, tensor: Any, scale: np.ndarray | None = None) -> Constant:
    """Dequantize integers as an interpreter does; integers without quantization stay.

    ``scale``: of a bias whose tensor has none. The scale of an int32 bias depends on the activations: it differs between
    files of one network, and the value with it by up to half a step.
    """
    told = tensor.quantization
    if scale is None and (told is None or told.scale is None or not len(told.scale)):
        return Constant(values)
    scales = np.asarray(told.scale if scale is None else scale, np.float32)
    zeros = 0 if scale is not None or told.zeroPoint is None else np.asarray(told.zeroPoint, np.int64)
    if scales.size > 1:
        shape = [1] * values.ndim
        shape[0 if scale is not None else told.quantizedDimension] = -1
        scales, zeros = scales.reshape(shape), np.reshape(np.broadcast_to(zeros, scales.size), shape)
    real = (values.astype(np.int64) - zeros).astype(np.float64) * scales.astype(np.float64)
    slack = np.broadcast_to(scales / 2, values.shape) if tensor.type == INT32 else None
    return Constant(real.astype(np.float32), slack)
