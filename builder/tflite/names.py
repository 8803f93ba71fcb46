"""Names tensors after the layers that make them, for readers who open the file in Netron.

Converter and quantizer leave misleading names: ``backbone/stem_relu_1/Relu6`` can be the bias of a convolution.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from builder.tflite.flatbuffer import Part, operator_name, tensor_name

# The roles of an operator's constant inputs, by position.
_WEIGHTS = {1: "kernel", 2: "bias"}
_CONSTANTS: dict[str, dict[int, str]] = {
    "CONV_2D": _WEIGHTS, "DEPTHWISE_CONV_2D": _WEIGHTS, "FULLY_CONNECTED": _WEIGHTS, "MEAN": {1: "axes"},
    "PAD": {1: "paddings"}, "PRELU": {1: "alpha"}, "REDUCE_MAX": {1: "axes"}, "RESHAPE": {1: "shape"}, "SUM": {1: "axes"},
    "TRANSPOSE_CONV": {0: "shape", 1: "kernel", 3: "bias"},
}  # fmt: skip


def with_names(part: Part) -> Part:
    """``part`` with unique names: tensors ``<part>/<layer>`` and constants ``<part>/<layer>/kernel``.

    Inputs and outputs of the signature keep their names. Applying it twice changes nothing.
    """
    names = {i: tensor_name(part.tensors[i]) for i in (*part.inputs.values(), *part.outputs.values())}
    taken = set(names.values())

    def give(index: int, name: str) -> None:
        if index not in names:
            names[index] = _free(name, taken)
            taken.add(names[index])

    for op in part.operators:
        for i in op.outputs:
            give(i, _layer(tensor_name(part.tensors[i])))
        roles = _CONSTANTS.get(operator_name(part, op), {})
        for place, i in enumerate(op.inputs):
            if i >= 0:  # ``give`` skips the outputs of earlier operators, which have their names
                give(i, f"{names[op.outputs[0]]}/{roles.get(place, 'constant')}")
    tensors = [copy.copy(tensor) for tensor in part.tensors]
    for i, name in names.items():
        tensors[i].name = name
    return replace(part, tensors=tensors)


def _layer(name: str) -> str:
    """The name without the operation inside the layer: ``backbone/stem_1/convolution`` -> ``backbone/stem_1``."""
    return "/".join(name.split("/")[:2])


def _free(name: str, taken: set[str]) -> str:
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
