"""Equalization across swish: channels of different ranges get the same number of steps, for one more product.

Behind a swish, and behind a squeeze-and-excite, channels may be scaled like those of a linear layer: in front of it the
layer divides channel c by s_c, the layers that read it multiply. Only the sigmoid needs the values as they were, so what
it reads is multiplied by s_c. That product is the price: it is worth it where most channels use few steps. In the first
layers of EfficientNet a channel reaches a hundred and its neighbour three (docs/concepts/quantization.md).

The s_c are powers of two. int8 holds their ratios without error, as it does not those of other numbers; and only the
sigmoid reads the product, so it loses little.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from builder.quantizing.backbone_runner import by_channel
from builder.quantizing.channels import Group, groups, scale_inputs, scale_outputs
from builder.tflite.flatbuffer import Part, plain_tensor, read_parts, tensor_name
from builder.tflite.writer import write_parts
from edge_runtime.metadata import BACKBONE

SAMPLES = 32
LEAST = 2.0  # bits that a channel gains in the mean
_MOST = 6  # bits: int8 holds 1 and 2^-6
_FLAT = 6.0  # below -6 a swish is nearly 0, and what is there needs no steps


def swish_equalized(model: bytes, images: np.ndarray) -> bytes:
    """The float ``model`` with the same outputs, and channels of its backbone scaled across swish where that is worth it.

    ``images``: (samples, ...), as the backbone takes them, of which the first ``SAMPLES`` count.
    """
    parts = read_parts(model)
    part = parts[BACKBONE]
    found = [group for group in groups(part) if group.scalable and group.sigmoids]
    if not found:
        return model
    sizes = _sizes(model, part, found, images[:SAMPLES])
    bits = [bits_of(size) for size in sizes]
    worth = [(group, own) for group, own in zip(found, bits, strict=True) if -own.mean() >= LEAST]
    if not worth:
        return model
    return write_parts({**parts, BACKBONE: scaled(part, worth)})


def bits_of(sizes: np.ndarray) -> np.ndarray:
    """The exponents of s_c, integers from -6 to 0, for channels of such ``sizes``, (channels,)."""
    relative = np.maximum(sizes, 1e-30) / max(float(sizes.max()), 1e-30)
    return np.asarray(np.clip(np.rint(np.log2(relative)), -_MOST, 0))


def scaled(part: Part, worth: list[tuple[Group, np.ndarray]]) -> Part:
    """A copy of a float part with groups of ``channels.groups`` divided by two to the power of ``bits``, (channels,)."""
    found = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers), operators=list(part.operators))
    for group, bits in worth:
        scale = (2.0**bits).astype(np.float32)
        for op in group.makers:
            scale_outputs(found, op, 1 / scale)
        for op in group.readers:
            scale_inputs(found, op, scale)
        for op in group.sigmoids:
            _restore(found, op, scale)
    return found


def _restore(part: Part, sigmoid: Any, scale: np.ndarray) -> None:
    """Put a product with ``scale`` in front of the operator ``sigmoid``."""
    (source,) = sigmoid.inputs
    shape, name = list(part.tensors[source].shape), tensor_name(part.tensors[source])
    first = len(part.tensors)
    part.tensors += [
        plain_tensor(f"{name}/scale", [1] * (len(shape) - 1) + [len(scale)], np.float32),
        plain_tensor(f"{name}/restored", shape, np.float32),
    ]
    part.set_constant(first, scale)
    place = next(n for n, op in enumerate(part.operators) if op is sigmoid)
    own = copy.copy(sigmoid)
    own.inputs = [first + 1]
    product = part.operator("MUL", [source, first], [first + 1], ("MulOptions", {}))
    part.operators[place : place + 1] = [product, own]


def _sizes(model: bytes, part: Part, found: list[Group], images: np.ndarray) -> list[np.ndarray]:
    """How large each channel of each group is, (channels,): the geometric mean of its largest value, which may be that of
    a single pixel, and of the root of its mean square.
    """
    fronts = {op.inputs[0] for group in found for op in group.sigmoids}
    largest, squares = ({i: np.zeros(1) for group in found for i in group.tensors} for _ in range(2))
    for held in by_channel(model, part, largest, images):
        for i, own in held.items():
            values = np.maximum(own, -_FLAT) if i in fronts else own
            largest[i] = np.maximum(largest[i], np.abs(values).max(0))
            squares[i] = squares[i] + np.square(values).mean(0)
    return [
        np.sqrt(
            np.max([largest[i] for i in group.tensors], axis=0)
            * np.sqrt(np.max([squares[i] for i in group.tensors], axis=0) / len(images))
        )
        for group in found
    ]
