"""What a sigmoid or a swish makes of the outputs of the layer before it: where it is flat, their errors do not count.

The same for the clamp of a ReLU6 changed nothing (docs/concepts/quantization.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import Part, operator_name, tensor_name

Response = Callable[[np.ndarray], np.ndarray]


def slope(response: Response, values: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The mean slope of ``response`` within ``width`` of ``values``, float64 of the shape of ``values``."""
    return np.asarray((response(values + width) - response(values - width)) / (2 * width))


def responses(part: Part) -> dict[str, Response]:
    """Map the name of a tensor that only a sigmoid or a swish reads to that function."""
    readers: dict[int, list[Any]] = {}
    for op in part.operators:
        for i in op.inputs:
            readers.setdefault(i, []).append(op)
    found: dict[str, Response] = {}
    for index, ops in readers.items():
        gates = [op for op in ops if operator_name(part, op) == "LOGISTIC"]
        others = [op for op in ops if operator_name(part, op) != "LOGISTIC"]
        product = gates and all(
            operator_name(part, op) == "MUL" and set(op.inputs) == {index, gates[0].outputs[0]} for op in others
        )
        if len(gates) == 1 and product and index not in part.outputs.values():
            found[tensor_name(part.tensors[index])] = _swish if others else _sigmoid
    return found


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))


def _swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * _sigmoid(values))
