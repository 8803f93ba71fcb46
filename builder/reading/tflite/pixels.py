"""The input scaling of a file: the quantization of its input, and leading operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, UnreadableModelError, renumber
from builder.reading.tflite.file import is_channels_first
from builder.reading.tflite.operators import Held
from builder.settings.input_scaling import CHANNELS, GREY, PixelTransform, named_preprocessing
from builder.tflite.flatbuffer import (
    FLOAT32,
    INT8,
    NO_ACTIVATION,
    UINT8,
    Part,
    is_quantity,
    scale_and_zero_point,
    shape_of,
    type_name,
)

_TO_CHANNELS_LAST = [0, 2, 3, 1]


@dataclass(frozen=True)
class Entry:
    """The input tensor of a file. ``shape``: with the batch axis. ``channels_first``: (1, channels, height, width).

    ``low``: the integer for pixel 0; None for a float input. ``quantization``: scale and zero point by which values that
    were scaled outside become integers; None where the integers are the pixels.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    channels_first: bool
    low: int | None
    quantization: tuple[float, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        height, width = self.shape[2:] if self.channels_first else self.shape[1:3]
        return height, width

    @property
    def channels(self) -> int:
        return self.shape[1 if self.channels_first else 3]

    def take(self, pixels: np.ndarray) -> np.ndarray:
        """What the file takes, for pixels (n, height, width, channels) as they are brought to it outside."""
        if self.quantization is not None:
            scale, zero_point = self.quantization
            limits = np.iinfo(self.dtype)
            pixels = np.clip(np.round(pixels / scale) + zero_point, limits.min, limits.max)
        elif self.low is not None:
            pixels = pixels.astype(np.int16) + self.low
        if self.channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels.astype(self.dtype))


def read_entry(part: Part) -> tuple[Entry, PixelTransform]:
    """The input of a part, and the transform from its quantization: pixel 0 is the lowest integer, and so on. Raises
    ``UnreadableModelError``.
    """
    (index,) = part.inputs.values()
    tensor = part.tensors[index]
    shape = shape_of(tensor)
    first = is_channels_first(shape)
    if len(shape) != 4 or shape[1 if first else 3] not in (CHANNELS, GREY):
        raise UnreadableModelError(
            f"expected one picture (1, height, width, 3), or (.., 1) for greyscale, found input {shape}; not for pictures"
        )
    plain = PixelTransform().of(shape[1 if first else 3])
    if shape[0] != 1 or min(shape) < 1:
        raise UnreadableModelError(f"expected one picture at a time, found input {shape}; convert it for a batch of 1")
    if tensor.type == FLOAT32:
        return Entry(shape, np.dtype(np.float32), first, None), plain
    if tensor.type not in (UINT8, INT8):
        raise UnreadableModelError(f"expected pixels as float32, uint8 or int8, found {type_name(tensor)}")
    low = 0 if tensor.type == UINT8 else -128
    entry = Entry(shape, np.dtype(np.uint8 if tensor.type == UINT8 else np.int8), first, low)
    told = tensor.quantization
    if told is None or told.scale is None or not len(told.scale):
        return entry, plain
    scale, zero_point = scale_and_zero_point(tensor)
    return entry, plain.then(scale, scale * (low - zero_point))


def entered(
    entry: Entry, inside: PixelTransform, declared: PixelTransform | None, part: Part
) -> tuple[Entry, PixelTransform, PixelTransform] | None:
    """The entry of integers, the input scaling outside it and the one inside.

    ``inside``: of the quantization, where the integers are the pixels. ``declared``: how the user says that pixels are
    scaled before they are quantized; unscaled are the integers themselves. None where nobody says it and the range of the
    input is not that of a usual scaling: then the integers may be anything. Raises ``UnreadableModelError``.
    """
    plain = PixelTransform().of(entry.channels)
    if declared is None:
        usual = (*named_preprocessing(entry.channels).values(), _CENTRED.of(entry.channels))
        return (entry, plain, inside) if any(_apart(inside, how) <= _UNUSUAL for how in usual) else None
    if _apart(declared, inside) <= _STEP or (declared == plain and _apart(inside, plain) > 0.5):
        return entry, plain, inside
    if _outside(declared, inside) > _CUT:
        raise UnreadableModelError(
            f"its input holds integers for {inside}, which cannot hold {declared}; leave preprocessing out, or give the "
            "file without quantization"
        )
    scale, zero_point = _quantization(part)
    return replace(entry, quantization=(scale, zero_point)), declared, plain


def _quantization(part: Part) -> tuple[float, int]:
    (index,) = part.inputs.values()
    if not is_quantity(part.tensors[index]):
        raise UnreadableModelError("it takes unscaled pixels as integers; leave preprocessing out")
    return scale_and_zero_point(part.tensors[index])


_STEP, _UNUSUAL, _CUT = 1 / 255, 0.02, 0.5  # of the range of the values
_CENTRED = PixelTransform().then(1, -128)


def _outside(declared: PixelTransform, inside: PixelTransform) -> float:
    """How far the values of a scaling reach beyond the range of the integers, relative to that range."""
    low, high = inside.offset[0], 255 * inside.scale[0] + inside.offset[0]
    values = declared.apply(np.array([[0.0] * declared.channels, [255.0] * declared.channels]))
    return float(max(low - values.min(), values.max() - high) / (high - low))


def _apart(one: PixelTransform, other: PixelTransform) -> float:
    """The largest difference of two scalings of a pixel, relative to the range of the second."""
    if one.order != other.order:
        return np.inf
    pixels = np.array([[0.0] * one.channels, [255.0] * one.channels], np.float32)
    found, expected = one.apply(pixels), other.apply(pixels)
    return float(np.abs(found - expected).max() / np.ptp(expected))


def without_front(graph: Graph, entry: Entry, transform: PixelTransform) -> tuple[Graph, PixelTransform]:
    """The graph after the input scaling, and the transform extended by that scaling.

    Raises ``UnreadableModelError`` where channels stay first.
    """
    first, kept = Ref(INPUT, 0), Ref(INPUT, 0)
    alias, axis = dict[Ref, Ref](), 1 if entry.channels_first else 3
    while (place := _only_reader(graph, first)) is not None:
        node = graph.nodes[place]
        if node.kind == "RESIZE_BILINEAR":  # scaling commutes with it: the weights of pixels add up to 1
            first = kept = Ref(place, 0)
            continue
        if node.kind == "TRANSPOSE" and axis == 1 and np.ravel(node.args[1]).tolist() == _TO_CHANNELS_LAST:
            axis = 3
        else:
            affine = _affine(node, axis, entry.channels)
            if affine is None:
                break
            transform = transform.then(*affine)
        first = Ref(place, 0)
        alias[first] = kept
    if axis != 3 and entry.channels != GREY:  # with one channel, first and last are the same
        raise UnreadableModelError("channels come first and no TRANSPOSE follows; export it with channels last")
    keep = [i for i in range(len(graph.nodes)) if Ref(i, 0) not in alias]
    return renumber(graph, keep, alias), transform


def _only_reader(graph: Graph, ref: Ref) -> int | None:
    places = [i for i, node in enumerate(graph.nodes) for found in node.inputs() if found == ref]
    return places[0] if len(places) == 1 and graph.output != Ref(places[0], 0) else None


def _affine(node: Node, axis: int, channels: int) -> tuple[Any, Any] | None:
    """(scale, offset) of arithmetic with a constant, one number or one for each channel; otherwise None."""
    if node.kind not in ("ADD", "SUB", "MUL", "DIV") or len(node.weights) != 1:
        return None
    if node.config["settings"].get("fusedActivationFunction", NO_ACTIVATION) != NO_ACTIVATION:
        return None
    value = node.weights[0].value
    shape = (1,) * (4 - value.ndim) + value.shape
    if any(n != 1 for place, n in enumerate(shape) if place != axis) or shape[axis] not in (1, channels):
        return None
    constant, tensor_first = value.ravel().astype(np.float64), isinstance(node.args[1], Held)
    if node.kind == "ADD":
        return 1.0, constant
    if node.kind == "MUL":
        return constant, 0.0
    if node.kind == "SUB":
        return (1.0, -constant) if tensor_first else (-1.0, constant)
    return (1 / constant, 0.0) if tensor_first and np.all(constant) else None
