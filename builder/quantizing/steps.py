"""Steps that kernels can compute with: an activation that is (almost) 0 in all samples gets a wider range.

Behind a ReLU that is never above 0, a range of no width would give a step so small that XNNPACK refuses the network (it
rescales what an operator computes by less than 256), or that the interpreter ends the whole process: a sum whose terms
cancel does so. A wider step loses nothing: it is a fraction of the step of what the operator computes.
Source: "requantization scale" in XNNPACK's ``src/operators``; sums and hard swish were tried in both interpreters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from builder.quantizing.accumulators import LAYERS
from builder.tflite.flatbuffer import INT8, Part, is_quantity, operator_name, tensor_name
from builder.tflite.parts import Range

_STEPS = 255
_LEAST = 2.0**-6  # of the step of what is computed; a factor of 4 from the limit
_SUMS = ("ADD", "SUB")
# How many inputs of an operator have a step that counts. Kernels of the others compute with any.
_INPUTS = {**dict.fromkeys((*_SUMS, "MUL", *LAYERS), 2), "HARD_SWISH": 1}


def width_of(limits: Range) -> float:
    """Of the range with 0 in it: 255 steps."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)


def widened(limits: Range, to: float) -> Range:
    """The range with 0 in it, as much wider at one end as at the other if both are beyond 0."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    more = to - (high - low)
    below = 0.0 if low == 0 else more if high == 0 else more / 2
    return low - below, high + more - below


def computable(parts: Mapping[str, Part], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """``ranges`` of the activations of the int8 ``parts``, wider where an operator needs a larger step."""
    found = dict(ranges)
    for part in parts.values():
        for op in part.operators:
            name, step = tensor_name(part.tensors[op.outputs[0]]), _least_step(part, op)
            if name in found and width_of(found[name]) < step * _STEPS:
                found[name] = widened(found[name], step * _STEPS)
    return found


def _least_step(part: Part, op: Any) -> float:
    """The least step that the output of an operator may have; 0 where any will do."""
    kind = operator_name(part, op)
    steps = [_step(part, i) for i in op.inputs[: _INPUTS.get(kind, 0)]]
    if not steps or not all(steps) or not _step(part, op.outputs[0]):
        return 0.0
    return _LEAST * (max(steps) if kind in _SUMS else math.prod(steps))


def _step(part: Part, tensor: int) -> float:
    """The largest step of a tensor's channels; 0 where it is not of int8."""
    if not is_quantity(part.tensors[tensor]) or part.tensors[tensor].type != INT8:
        return 0.0
    return float(max(part.tensors[tensor].quantization.scale))
