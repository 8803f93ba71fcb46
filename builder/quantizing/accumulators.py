"""Keep the sums of int8 layers within int32.

The scale of a bias is the input's scale times that of the weights. Where the weights of a channel are close to zero,
which is common after training, the bias does not fit into int32 at that scale: the quantizer clips it, and the sum
overflows. The scale of such weights is raised as far as the bias needs, as TensorFlow's converter does it
(``AdjustWeightsForBiasScale`` in ``tensorflow/compiler/mlir/lite/quantization``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT8, INT32, NO_TENSOR, Part, operator_name, quantization, tensor_name
from builder.tflite.parts import constant, names

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
ROOM = 2**30  # for a bias; the other half is for the products, and needs 30,000 taps to fill


def fit_accumulators(float_parts: Mapping[str, Part], int8_parts: Mapping[str, Part]) -> bool:
    """Give weights of ``int8_parts`` the scales that their biases need, in place. Returns whether any changed."""
    changed = [
        _fit(float_parts[name], dict(names(float_parts[name])), part, op, uses)
        for name, part in int8_parts.items()
        for uses in (Counter(i for op in part.operators for i in op.inputs),)
        for op in part.operators
        if operator_name(part, op) in LAYERS and len(op.inputs) == 3
    ]
    return any(changed)


def _fit(floating: Part, known: Mapping[str, int], part: Part, op: Any, uses: Counter[int]) -> bool:
    source, kernel, bias = op.inputs
    if NO_TENSOR in op.inputs or (part.tensors[kernel].type, part.tensors[bias].type) != (INT8, INT32):
        return False  # with int16 activations a bias has 64 bits
    held, stored = constant(part, kernel, np.int8), constant(part, bias, np.int32)
    if held is None or stored is None:
        return False
    weights, wanted = (_in_float(floating, known, part, i) for i in (kernel, bias))
    if weights is None or wanted is None or uses[kernel] > 1 or uses[bias] > 1:
        return False  # shared, for example by a layer that is called twice: one scale cannot suit all inputs
    found = part.tensors[kernel].quantization
    scales, step = np.asarray(found.scale, np.float64), float(quantization(part.tensors[source]).scale)
    if len(scales) != len(wanted):
        return False  # one scale for all channels: the largest weight is not close to zero
    least = np.abs(wanted) / (step * ROOM)
    small = scales < least
    if not small.any():
        return False
    new = np.where(small, least, scales).astype(np.float32).astype(np.float64)
    shape = [1] * held.ndim
    shape[int(found.quantizedDimension)] = -1
    integers = np.where(small.reshape(shape), np.rint(weights / new.reshape(shape)), held)
    part.set_constant(kernel, integers.astype(np.int8))
    part.set_constant(bias, np.where(small, np.rint(wanted / (step * new)), stored).astype(np.int32))
    found.scale = new.astype(np.float32).tolist()
    part.tensors[bias].quantization.scale = (step * new).astype(np.float32).tolist()
    return True


def _in_float(floating: Part, known: Mapping[str, int], part: Part, tensor: int) -> np.ndarray | None:
    name = tensor_name(part.tensors[tensor])
    return constant(floating, known[name], np.float32) if name in known else None
