"""What an operator does, in the words of a profile: its kind, its precision, and how much of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from builder.tflite.flatbuffer import FLOAT32, INT8, Part, operator_name
from builder.tflite.parts import is_constant

CONVERSION = "conversion"  # between float and int8, either way
DYNAMIC_LAYERS = ("CONV_2D", "FULLY_CONNECTED")  # as ``quantize`` makes them
LAYERS = ("DEPTHWISE_CONV_2D", *DYNAMIC_LAYERS)


def kind_of(part: Part, op: Any) -> str:
    """The operator's name; a convolution of 1 x 1, which has kernels of its own, is called so."""
    name = operator_name(part, op)
    if name in ("QUANTIZE", "DEQUANTIZE"):
        return CONVERSION
    if name == "CONV_2D" and list(part.tensors[op.inputs[1]].shape[1:3]) == [1, 1]:
        return "CONV_2D 1x1"
    return name


def precision_of(part: Part, op: Any) -> str:
    """``float``, ``int8``, ``dynamic`` (float, its weights int8), or ``int16`` and what else no profile has."""
    given = next(part.tensors[i] for i in op.inputs if i >= 0 and not is_constant(part, i))
    if given.type == INT8:
        return "int8"
    if given.type != FLOAT32:
        return "int16"
    layer = operator_name(part, op) in LAYERS
    return "dynamic" if layer and part.tensors[op.inputs[1]].type == INT8 else "float"


def work_of(part: Part, op: Any) -> float:
    """Multiply-adds of an operator with weights; of any other, the elements of its largest activation."""
    name, results = operator_name(part, op), float(np.prod(part.tensors[op.outputs[0]].shape))
    if name in LAYERS:
        kernel = part.tensors[op.inputs[1]].shape
        return results * float(np.prod(kernel[1:3] if name == "DEPTHWISE_CONV_2D" else kernel[1:]))
    if name == "BATCH_MATMUL":
        first = part.tensors[op.inputs[0]].shape
        return results * float(first[-2] if op.builtinOptions.adjX else first[-1])
    ends = [i for i in (*op.inputs, *op.outputs) if i >= 0 and not is_constant(part, i)]
    return max(float(np.prod(part.tensors[i].shape)) for i in ends)
