"""Two linear layers, one behind the other, as one: what lies between them is never rounded.

The first linear bottleneck of MobileNetV2 and EfficientNet is read by the expansion of the next block and by nothing
else. It has few channels and many values, so its 256 steps may cost more than those of any other tensor. The product of
the two matrices is one layer, which takes as long as both (docs/concepts/quantization.md).
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from builder.quantizing.channels import is_layer, weights_of
from builder.tflite.flatbuffer import Part, fused_activation, operator_name, read_parts
from builder.tflite.parts import constant, without_unused
from builder.tflite.writer import write_parts
from edge_runtime.metadata import BACKBONE

MOST_WORK = 1.5  # multiplications of one layer against those of both: as much as writing and reading the tensor takes


def folded(model: bytes) -> bytes:
    """The float ``model`` with such pairs of its backbone as one layer: the same function."""
    parts = read_parts(model)
    found = fold(parts[BACKBONE])
    return write_parts({**parts, BACKBONE: found}) if found is not parts[BACKBONE] else model


def fold(part: Part) -> Part:
    """A copy of a float part; the part itself where it has no such pair."""
    pairs = foldable(part)
    if not pairs:
        return part
    found = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers))
    found.operators = [copy.copy(op) for op in part.operators if all(op is not first for first, _ in pairs)]
    by_result = {op.outputs[0]: op for op in found.operators}
    for first, second in pairs:
        inner, outer = weights_of(found, first)[:, 0, 0], weights_of(found, second)[:, 0, 0]
        bias, outer_bias = (constant(found, op.inputs[2], np.float32) for op in (first, second))
        assert bias is not None and outer_bias is not None  # is_layer
        product = (outer.astype(np.float64) @ inner.astype(np.float64)).astype(np.float32)
        found.set_constant(second.inputs[1], product[:, None, None])
        found.tensors[second.inputs[1]].shape = [len(product), 1, 1, product.shape[1]]
        found.set_constant(second.inputs[2], (outer_bias + outer @ bias).astype(np.float32))
        by_result[second.outputs[0]].inputs = [first.inputs[0], *second.inputs[1:]]
    return without_unused(found)


def foldable(part: Part) -> list[tuple[Any, Any]]:
    """Pairs of 1 x 1 convolutions of which the second alone reads the first, with nothing in between."""
    uses = Counter([*part.outputs.values(), *(i for op in part.operators for i in op.inputs)])
    pointwise = [op for op in part.operators if _is_pointwise(part, op)]
    linear = {op.outputs[0]: op for op in pointwise if _is_linear(op) and uses[op.outputs[0]] == 1}
    pairs, taken = list[tuple[Any, Any]](), set[int]()
    for second in pointwise:
        first = linear.get(second.inputs[0])
        if first is not None and first.outputs[0] not in taken and _is_little_work(part, first, second):
            pairs.append((first, second))
            taken.add(second.outputs[0])  # three in a row: the last stays
    return pairs


def _is_pointwise(part: Part, op: Any) -> bool:
    return operator_name(part, op) == "CONV_2D" and is_layer(part, op) and weights_of(part, op).shape[1:3] == (1, 1)


def _is_linear(op: Any) -> bool:
    return fused_activation(op) == "NONE" and (op.builtinOptions.strideH, op.builtinOptions.strideW) == (1, 1)


def _is_little_work(part: Part, first: Any, second: Any) -> bool:
    inner, outer = weights_of(part, first), weights_of(part, second)
    return bool(len(outer) * inner.shape[-1] <= MOST_WORK * (inner.size + outer.size))
