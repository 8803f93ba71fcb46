"""For a file that takes pictures of any size: the size at which it is read, and its shapes there."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from builder.reading.tflite.constants import read_constant
from builder.reading.tflite.file import TfliteFile, input_sides, is_channels_first
from builder.reading.tflite.original import shapes_at
from builder.support.errors import ModelFileError
from builder.support.naming import advice
from builder.tflite.flatbuffer import Part, operator_name, settings_of
from builder.tflite.writer import write_parts
from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer import check_model

_PIXELWISE = ("ADD", "CAST", "DEQUANTIZE", "DIV", "MUL", "QUANTIZE", "SUB")


def at_size(file: TfliteFile, part: Part, size: tuple[int, int] | None) -> tuple[Part, bool]:
    """The part at one size, and whether that is the size to which its first operator resizes every picture.

    ``size``: height and width as chosen. Raises ``ModelFileError`` where the size is unknown, or the part cannot run at
    it.
    """
    own = None if size else _brought_to(part)
    chosen = size or own
    if chosen is None:
        raise ModelFileError(
            f"{file.path}: it takes pictures of any size, and does not tell the size of training; "
            f"add {advice('size', 'PIXELS', number=True)}"
        )
    (source,) = part.inputs.values()
    height, width = (side or other for side, other in zip(input_sides(part), chosen, strict=True))
    first = is_channels_first(part.tensors[source].shape)
    channels = int(part.tensors[source].shape[1 if first else 3])
    shapes = shapes_at(file, (1, channels, height, width) if first else (1, height, width, channels))
    found = copy.copy(part)
    found.tensors = [copy.copy(tensor) for tensor in part.tensors]
    for tensor, shape in zip(found.tensors, shapes, strict=False):  # the interpreter's own tensors follow
        if part.buffers[tensor.buffer] is None:
            tensor.shape, tensor.shapeSignature = np.asarray(shape, np.int32), None
    try:
        check_model(write_parts({"network": found}))
    except BundleError as error:
        raise ModelFileError(f"{file.path}: at {width} x {height}: {error}; choose another size") from error
    return found, own is not None


def _brought_to(part: Part) -> tuple[int, int] | None:
    """The target of a leading RESIZE_BILINEAR as Keras writes it, after at most arithmetic."""
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
