"""What a swish, a hard swish or a sigmoid makes of the outputs of a layer: errors where it is flat do not count.

The same for the clamp of a ReLU6 changed nothing (docs/concepts/quantization.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import FLOAT32, Part, operator_name, shape_of, tensor_name
from builder.tflite.parts import constant

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Response:
    """``function``: of each value. ``scale``: that of the values of each channel, (channels,), where ``swish.py`` scaled
    them; None for 1.
    """

    function: Function
    scale: np.ndarray | None = None

    def of(self, channels: np.ndarray) -> Function:
        """The function for values of these ``channels``, integers of the values' shape."""
        return self.function if self.scale is None else _scaled(self.function, self.scale[channels])

    def of_outputs(self, shape: tuple[int, int, int]) -> Function:
        """The function for outputs of a layer, (groups, rows, outputs), of which ``shape`` says groups and outputs: each
        group or each output is a channel.
        """
        if self.scale is None:
            return self.function
        return _scaled(self.function, self.scale.reshape(shape))


def _scaled(function: Function, scale: np.ndarray) -> Function:
    return lambda values: function(values * scale) / scale


def slope(response: Function, values: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The mean slope of ``response`` within ``width`` of ``values``, float64 of the shape of ``values``."""
    return np.asarray((response(values + width) - response(values - width)) / (2 * width))


def responses(part: Part) -> dict[str, Response]:
    """Map the name of a tensor that only a sigmoid, a swish or a hard swish reads to that function."""
    readers: dict[int, list[Any]] = {}
    for op in part.operators:
        for i in op.inputs:
            readers.setdefault(i, []).append(op)
    found = {i: _of_readers(part, i, readers) for i in readers if i not in part.outputs.values()}
    return {tensor_name(part.tensors[i]): response for i, response in found.items() if response is not None}


def _of_readers(part: Part, tensor: int, readers: dict[int, list[Any]]) -> Response | None:
    ops = readers[tensor]
    if [operator_name(part, op) for op in ops] == ["HARD_SWISH"]:
        return Response(_hard_swish)
    gates = [(op, found) for op in ops if (found := _gate(part, tensor, op, readers)) is not None]
    if len(gates) != 1:
        return None
    ((first, (gate, scale)),) = gates
    others = [op for op in ops if op is not first]
    if not all(operator_name(part, op) == "MUL" and set(op.inputs) == {tensor, gate} for op in others):
        return None
    if others:
        return Response(_swish, scale)
    return Response(_sigmoid) if scale is None else None


def _gate(part: Part, tensor: int, op: Any, readers: dict[int, list[Any]]) -> tuple[int, np.ndarray | None] | None:
    """The sigmoid of ``tensor`` that ``op`` makes; or makes behind a product with a scale for each channel, and that."""
    kind = operator_name(part, op)
    if kind == "LOGISTIC":
        return op.outputs[0], None
    behind = readers.get(op.outputs[0], [])
    if kind != "MUL" or op.inputs[0] != tensor or [operator_name(part, other) for other in behind] != ["LOGISTIC"]:
        return None
    scale = constant(part, op.inputs[1], np.float32) if part.tensors[op.inputs[1]].type == FLOAT32 else None
    if scale is None or shape_of(part.tensors[tensor])[-1:] != (scale.size,):
        return None
    if not scale.all():  # what is always 0 in front of a sigmoid is no swish
        return None
    return behind[0].outputs[0], scale.ravel()


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))


def _swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * _sigmoid(values))


def _hard_swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * np.clip(values + 3, 0, 6) / 6)
