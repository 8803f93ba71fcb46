"""Affine quantization, ``real = scale * (quantized - zero_point)`` (Jacob et al. 2018, equation 1)."""

from __future__ import annotations

from typing import Any, NamedTuple, Tuple

import numpy as np


class Quantization(NamedTuple):
    """The mapping from the integers of one tensor to real numbers."""

    scale: float
    zero_point: int
    dtype: Any  # the numpy dtype of the integers, or float32 with scale 0

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Nearest integers, clipped to the range of the dtype; any shape. Floats pass where the tensor is float."""
        if self.scale == 0:
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        clipped: np.ndarray = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return clipped

    def dequantize(self, values: np.ndarray) -> np.ndarray:
        """float32 of the same shape."""
        if self.scale == 0:
            return values.astype(np.float32)
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    @property
    def limits(self) -> Tuple[float, float]:
        """The least and the greatest number that it can stand for; int16 is symmetric and leaves -32768 out."""
        integers = np.iinfo(self.dtype)
        low = -integers.max if integers.bits == 16 else integers.min
        numbers = self.dequantize(np.array([low, integers.max], self.dtype))
        return float(numbers[0]), float(numbers[1])


FLOAT = Quantization(0.0, 0, np.dtype("float32"))
