"""Reading and pruning one subgraph: its constants, its names, and the operators that make a tensor."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT32, NO_TENSOR, Part, quantization, tensor_name

Range = tuple[float, float]  # minimum and maximum


def dequantized(part: Part, tensor: int, values: np.ndarray) -> np.ndarray:
    """``values`` of ``tensor`` as float32; values of a float tensor stay as they are."""
    return quantization(part.tensors[tensor]).dequantize(values)


_UP = 1e-3  # of a step: more than float32 loses of a pixel


def as_held(tensor: Any, values: np.ndarray) -> np.ndarray:
    """``values`` in the type of the tensor: quantized, unless they are token numbers.

    The middle between two steps counts as the upper one. Where 0 lies in the middle between two pixel values, as with
    x / 127.5 - 1, every pixel does: the quantizer takes the zero point below, so a device holds the upper one.
    """
    if tensor.type == INT32:
        return values
    found = quantization(tensor)
    return found.quantize(values + np.float32(_UP * found.scale))


def constant(part: Part, tensor: int, dtype: Any) -> np.ndarray | None:
    """The content of a constant tensor in its shape; None for an activation and for an omitted input."""
    if tensor == NO_TENSOR:
        return None
    content = part.buffers[part.tensors[tensor].buffer]
    return None if content is None else content.view(dtype).reshape(part.tensors[tensor].shape)


def is_constant(part: Part, tensor: int) -> bool:
    """Whether the tensor is a constant, so that the file holds its content."""
    return tensor != NO_TENSOR and part.buffers[part.tensors[tensor].buffer] is not None


def constant_operators(part: Part) -> list[Any]:
    """The operators that read only constants, such as those that unpack weights."""
    return [op for op in part.operators if all(i < 0 or is_constant(part, i) for i in op.inputs)]


def makers(part: Part, op: Any, given: Collection[int] = ()) -> list[Any]:
    """The operators that make inputs of ``op`` other than ``given``."""
    wanted = set(op.inputs) - set(given)
    return [other for other in part.operators if wanted.intersection(other.outputs)]


def names(part: Part) -> Iterator[tuple[str, int]]:
    """(name, index) of every tensor."""
    for i, tensor in enumerate(part.tensors):
        yield tensor_name(tensor), i


def without_unused(part: Part) -> Part:
    """``part`` without operators whose outputs nothing reads, and without tensors that nothing refers to."""
    wanted, kept = set(part.outputs.values()), list[Any]()
    for op in reversed(part.operators):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(op.inputs)
    used = sorted({i for i in wanted if i >= 0} | {i for op in kept for i in op.outputs} | set(part.inputs.values()))
    place = {old: new for new, old in enumerate(used)}
    operators = []
    for op in reversed(kept):
        own = copy.copy(op)
        own.inputs, own.outputs = ([place.get(i, i) for i in indices] for indices in (op.inputs, op.outputs))
        operators.append(own)
    inputs, outputs = ({name: place[i] for name, i in ends.items()} for ends in (part.inputs, part.outputs))
    return replace(part, tensors=[part.tensors[i] for i in used], operators=operators, inputs=inputs, outputs=outputs)
