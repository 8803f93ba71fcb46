"""Keep the sums of int8 layers within int32.

The scale of a bias is the input's scale times that of the weights. Where the weights of a channel are close to zero,
which is common after training, the bias does not fit into int32 at that scale: the quantizer clips it, and the sum
overflows. The scale of such weights is raised as far as the bias needs, as TensorFlow's converter does it
(``AdjustWeightsForBiasScale`` in ``tensorflow/compiler/mlir/lite/quantization``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT8, INT32, NO_TENSOR, Part, operator_name, quantization, tensor_name
from builder.tflite.parts import constant

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
ROOM = 2**30  # for a bias; the other half is for the products, and needs 30,000 taps to fill


@dataclass(frozen=True)
class _Layer:
    """``bias``: its tensor, holding ``stored``. ``weights``, ``wanted``: the float layer's. ``step``: of its input."""

    bias: int
    stored: np.ndarray
    weights: np.ndarray
    wanted: np.ndarray
    step: float


def fit_accumulators(float_parts: Mapping[str, Part], int8_parts: Mapping[str, Part]) -> bool:
    """Give weights of ``int8_parts`` the scales that their biases need, in place. Returns whether any changed."""
    changed = [
        _fit(part, kernel, [_layer(float_parts[name], part, op) for op in readers], uses)
        for name, part in int8_parts.items()
        for uses in (Counter(i for op in part.operators for i in op.inputs),)
        for kernel, readers in _by_kernel(part).items()
    ]
    return any(changed)


def _by_kernel(part: Part) -> dict[int, list[Any]]:
    """The layers with a bias that read each kernel: several where a layer is called more than once."""
    found = dict[int, list[Any]]()
    for op in part.operators:
        if operator_name(part, op) in LAYERS and len(op.inputs) == 3 and NO_TENSOR not in op.inputs:
            found.setdefault(op.inputs[1], []).append(op)
    return found


def _layer(floating: Part, part: Part, op: Any) -> _Layer | None:
    """Found by what it gives: where inputs of several scales share a bias, the quantizer makes copies with names of their
    own. None where it is no int8 layer of weights and biases that are known.
    """
    source, kernel, bias = op.inputs
    if (part.tensors[kernel].type, part.tensors[bias].type) != (INT8, INT32):
        return None  # beside int16 activations a bias has 64 bits
    gives = tensor_name(part.tensors[op.outputs[0]])
    same = [one for one in floating.operators if tensor_name(floating.tensors[one.outputs[0]]) == gives]
    if len(same) != 1 or len(same[0].inputs) != 3:
        return None
    stored = constant(part, bias, np.int32)
    weights, wanted = (constant(floating, i, np.float32) for i in same[0].inputs[1:])
    if stored is None or weights is None or wanted is None:
        return None
    return _Layer(bias, stored, weights, wanted, float(quantization(part.tensors[source]).scale))


def _fit(part: Part, kernel: int, readers: Sequence[_Layer | None], uses: Counter[int]) -> bool:
    layers = [layer for layer in readers if layer is not None]
    own = Counter(layer.bias for layer in layers)
    if len(layers) != uses[kernel] or any(uses[bias] != count for bias, count in own.items()):
        return False  # something else reads them too
    held = constant(part, kernel, np.int8)
    found = part.tensors[kernel].quantization
    scales = np.asarray(found.scale, np.float64)
    if held is None or any(len(scales) != len(layer.wanted) for layer in layers):
        return False  # one for all channels: the largest weight of all is not next to nothing
    least = np.max([np.abs(layer.wanted) / (layer.step * ROOM) for layer in layers], axis=0)
    small = scales < least
    if not small.any():
        return False
    new = np.where(small, least, scales).astype(np.float32).astype(np.float64)
    shape = [1] * held.ndim
    shape[int(found.quantizedDimension)] = -1
    integers = np.where(small.reshape(shape), np.rint(layers[0].weights / new.reshape(shape)), held)
    part.set_constant(kernel, integers.astype(np.int8))
    found.scale = new.astype(np.float32).tolist()
    for layer in layers:
        size = layer.step * new
        part.set_constant(layer.bias, np.where(small, np.rint(layer.wanted / size), layer.stored).astype(np.int32))
        part.tensors[layer.bias].quantization.scale = size.astype(np.float32).tolist()
    return True
