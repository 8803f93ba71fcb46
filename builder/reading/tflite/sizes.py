"""A file that takes pictures of any size: at which it is read, and the shapes of its tensors there."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from builder.reading.tflite.constants import read_constant
from builder.reading.tflite.file import TfliteFile
from builder.reading.tflite.original import shapes_at
from builder.settings.input_scaling import CHANNELS
from builder.support.errors import ModelFileError
from builder.support.naming import advice
from builder.tflite.flatbuffer import Part, operator_name, settings_of

_PIXELWISE = ("ADD", "CAST", "DEQUANTIZE", "DIV", "MUL", "QUANTIZE", "SUB")


def is_open(part: Part) -> bool:
    """Is the height or the width of its pictures left open?"""
    return None in _sides(part)


def at_size(file: TfliteFile, part: Part, size: tuple[int, int] | None) -> tuple[Part, bool]:
    """The part at one size, and whether that is the one to which its first operator brings every picture.

    ``size``: height and width as chosen. Raises ``ModelFileError`` where nothing says it, or it cannot be run at it.
    """
    own = None if size else _brought_to(part)
    chosen = size or own
    if chosen is None:
        raise ModelFileError(
            f"{file.path}: it takes pictures of any size, and nothing in it tells which it was trained at; "
            f"add {advice('size', 'PIXELS', number=True)}"
        )
    (source,) = part.inputs.values()
    height, width = (side or other for side, other in zip(_sides(part), chosen, strict=True))
    first = len(part.tensors[source].shape) == 4 and part.tensors[source].shape[1] == CHANNELS
    shapes = shapes_at(file, (1, CHANNELS, height, width) if first else (1, height, width, CHANNELS))
    found = copy.copy(part)
    found.tensors = [copy.copy(tensor) for tensor in part.tensors]
    for tensor, shape in zip(found.tensors, shapes, strict=False):  # behind them stand the interpreter's own
        if part.buffers[tensor.buffer] is None:
            tensor.shape, tensor.shapeSignature = np.asarray(shape, np.int32), None
    return found, own is not None


def _sides(part: Part) -> tuple[int | None, int | None]:
    """Height and width of the input, None where they are open; some converters write 1 for both."""
    (source,) = part.inputs.values()
    tensor = part.tensors[source]
    shape = [int(n) for n in (() if tensor.shape is None else tensor.shape)]
    if len(shape) != 4:
        return 0, 0
    told = shape if tensor.shapeSignature is None else [int(n) for n in tensor.shapeSignature]
    place = 2 if shape[1] == CHANNELS and shape[3] != CHANNELS else 1
    if len(told) != 4 or shape[place : place + 2] == [1, 1]:
        return None, None
    height, width = (n if n > 0 else None for n in told[place : place + 2])
    return height, width


def _brought_to(part: Part) -> tuple[int, int] | None:
    """Height and width to which a RESIZE_BILINEAR brings the pixels before anything but arithmetic, as Keras resizes."""
    (place,) = part.inputs.values()
    while True:
        readers = [op for op in part.operators if place in op.inputs]
        if len(readers) != 1:
            return None
        op, kind = readers[0], operator_name(part, readers[0])
        if kind == "RESIZE_BILINEAR":
            return _target(part, op)
        if kind not in _PIXELWISE:
            return None
        place = op.outputs[0]


def _target(part: Part, op: Any) -> tuple[int, int] | None:
    _, settings = settings_of(op) or (None, {})
    size = read_constant(part, op.inputs[1])
    if size is None or size.values.shape != (2,) or settings.get("alignCorners") or not settings.get("halfPixelCenters"):
        return None
    height, width = (int(n) for n in size.values)
    return height, width
