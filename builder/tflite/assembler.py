"""Builds a subgraph of float operators without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import FLOAT32, Part, plain_tensor

_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "SOFTMAX": ("SoftmaxOptions", {"beta": 1.0}),
    "REDUCE_MAX": ("ReducerOptions", {"keepDims": True}),
    "SUM": ("ReducerOptions", {"keepDims": True}),
    "MEAN": ("ReducerOptions", {"keepDims": False}),
    "GATHER": ("GatherOptions", {"axis": 1}),
    "CONCATENATION": ("ConcatenationOptions", {"axis": 1}),
    "FULLY_CONNECTED": ("FullyConnectedOptions", {}),
    "RESHAPE": ("ReshapeOptions", {}),
    "MUL": ("MulOptions", {}),
    "ADD": ("AddOptions", {}),
    "SUB": ("SubOptions", {}),
    "EXP": ("ExpOptions", {}),
    "DEQUANTIZE": ("DequantizeOptions", {}),
}


class Assembler:
    """Adds operators to ``part`` in order. Methods return the index of the tensor that they made.

    Args:
        prefix: First part of the names of its tensors.
    """

    def __init__(self, prefix: str) -> None:
        self.part = Part(prefix, 0, [], [], {}, {}, [], [None])
        self._prefix = prefix

    def input(self, name: str, like: Any) -> int:
        """Add an input for the tensor ``like``, with its type, shape and quantization; the file stores one table."""
        self.part.inputs[name] = self._append(like)
        return self.part.inputs[name]

    def source(self, name: str, shape: Sequence[int]) -> int:
        """Add a float input of ``shape``, batch axis included."""
        self.part.inputs[name] = self._tensor(name, shape, np.dtype(np.float32))
        return self.part.inputs[name]

    def constant(self, values: np.ndarray, *, scale: float | None = None) -> int:
        """Add a constant. ``scale``: the scale of int8 values."""
        index = self._tensor(f"constant_{len(self.part.tensors)}", values.shape, values.dtype, scale)
        self.part.set_constant(index, np.ascontiguousarray(values))
        return index

    def add(self, kind: str, inputs: Sequence[int], shape: Sequence[int], *, name: str | None = None) -> int:
        """Add an operator with one float output of ``shape``; -1 in ``inputs`` stands for an omitted input."""
        return self.operator(kind, inputs, [shape], _OPTIONS.get(kind), name=name)[0]

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        shapes: Sequence[Sequence[int]],
        options: tuple[str, Mapping[str, Any]] | None,
        *,
        name: str | None = None,
    ) -> list[int]:
        """Add an operator with other settings than usual and one float output for each of ``shapes``.

        See ``Part.operator``.
        """
        name = name or f"{kind.lower()}_{len(self.part.tensors)}"
        names = [f"{name}_{i}" if i else name for i in range(len(shapes))]
        outputs = [self._tensor(own, shape, np.dtype(np.float32)) for own, shape in zip(names, shapes, strict=True)]
        self.part.operators.append(self.part.operator(kind, inputs, outputs, options))
        return outputs

    def real(self, tensor: int) -> int:
        """The tensor in float: the tensor itself, or a new DEQUANTIZE of it."""
        own = self.part.tensors[tensor]
        return tensor if own.type == FLOAT32 else self.add("DEQUANTIZE", [tensor], own.shape)

    def reshape(self, tensor: int, shape: Sequence[int], *, name: str | None = None) -> int:
        return self.add("RESHAPE", [tensor, self.constant(np.array(shape, np.int32))], shape, name=name)

    def gather(self, tensor: int, indices: np.ndarray, *, name: str | None = None) -> int:
        """Gather along axis 1 of a tensor (1, n), which gives (1, *indices.shape)."""
        return self.add("GATHER", [tensor, self.constant(indices.astype(np.int32))], (1, *indices.shape), name=name)

    def _tensor(self, name: str, shape: Sequence[int], dtype: Any, scale: float | None = None) -> int:
        return self._append(plain_tensor(f"{self._prefix}/{name}", shape, dtype, scale=scale))

    def _append(self, tensor: Any) -> int:
        self.part.tensors.append(tensor)
        return len(self.part.tensors) - 1
