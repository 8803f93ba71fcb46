"""What a swish, a hard swish or a sigmoid makes of the outputs of a layer: errors where it is flat do not count.

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
    """Map the name of a tensor that only a sigmoid, a swish or a hard swish reads to that function."""
    readers: dict[int, list[Any]] = {}
    for op in part.operators:
        for i in op.inputs:
            readers.setdefault(i, []).append(op)
    found = {i: _of_readers(part, i, ops) for i, ops in readers.items() if i not in part.outputs.values()}
    return {tensor_name(part.tensors[i]): response for i, response in found.items() if response is not None}


def _of_readers(part: Part, tensor: int, ops: list[Any]) -> Response | None:
    kinds = [operator_name(part, op) for op in ops]
    if kinds == ["HARD_SWISH"]:
        return _hard_swish
    if kinds.count("LOGISTIC") != 1:
        return None
    gate = ops[kinds.index("LOGISTIC")].outputs[0]
    others = [op for op, kind in zip(ops, kinds, strict=True) if kind != "LOGISTIC"]
    product = all(operator_name(part, op) == "MUL" and set(op.inputs) == {tensor, gate} for op in others)
    return (_swish if others else _sigmoid) if product else None


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))


def _swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * _sigmoid(values))


def _hard_swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * np.clip(values + 3, 0, 6) / 6)
