"""uint8 pixels in front of a backbone of any precision: what enters the file never changes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import FLOAT32, INT8, INT16, QUANTIZE, UINT8, Part, plain_tensor, scale_and_zero_point
from builder.tflite.parts import Range
from edge_runtime.metadata import BACKBONE

_STEPS = 255
_WHOLE = 1e-4  # of a step; nearer to an integer than this, a zero point is one


def take_pixels(backbone: Part, span: Range | None) -> Part:
    """A copy of the backbone with a uint8 ``image`` in front. ``span``: what pixels 0 and 255 stand for; None of a
    backbone that takes tokens, which stays as it is.

    int8: a QUANTIZE that subtracts 128. Float: a DEQUANTIZE, and an ADD where 0 lies between two pixels. int16: a
    QUANTIZE behind those, since interpreters up to TensorFlow Lite 2.14 have none from 8 bits to 16. Raises
    ``ConversionError``.
    """
    if span is None:
        return backbone
    index = backbone.inputs["image"]
    image = backbone.tensors[index]
    if image.type == UINT8:
        return backbone
    backbone = replace(
        backbone, tensors=list(backbone.tensors), codes=list(backbone.codes), buffers=list(backbone.buffers)
    )
    image = backbone.tensors[index] = copy.copy(image)
    image.name = f"{BACKBONE}/image_inside"
    if image.type == INT8:
        scale, zero_point = scale_and_zero_point(image)
        pixels = _append(backbone, "image", image.shape, np.uint8, scale, zero_point + 128)
        return _put_in_front(backbone, pixels, [backbone.operator(QUANTIZE, [pixels], [index])])
    if image.type == FLOAT32:
        return _put_in_front(backbone, *_in_float(backbone, index, span))
    if image.type == INT16:
        real = _append(backbone, "image_float", image.shape, np.float32)
        pixels, operators = _in_float(backbone, real, span)
        return _put_in_front(backbone, pixels, [*operators, backbone.operator(QUANTIZE, [real], [index])])
    raise ConversionError(f"the backbone's input is of type {image.type}; nothing was linked")


def _in_float(part: Part, target: int, span: Range) -> tuple[int, list[Any]]:
    """A uint8 tensor, and the operators that make the float tensor ``target`` of it."""
    low, scale = span[0], (span[1] - span[0]) / _STEPS
    shape, zero_point = part.tensors[target].shape, -low / scale
    if abs(zero_point - round(zero_point)) < _WHOLE and 0 <= round(zero_point) <= _STEPS:
        pixels = _append(part, "image", shape, np.uint8, scale, round(zero_point))
        return pixels, [part.operator("DEQUANTIZE", [pixels], [target])]
    pixels = _append(part, "image", shape, np.uint8, scale, 0)
    scaled = _append(part, "image_scaled", shape, np.float32)
    offset = _append(part, "image_offset", [1], np.float32)
    part.set_constant(offset, np.array([low], np.float32))
    add = part.operator("ADD", [scaled, offset], [target], ("AddOptions", {}))
    return pixels, [part.operator("DEQUANTIZE", [pixels], [scaled]), add]


def _append(part: Part, name: str, shape: Any, dtype: Any, scale: float | None = None, zero_point: int = 0) -> int:
    part.tensors.append(plain_tensor(f"{BACKBONE}/{name}", shape, dtype, scale=scale, zero_point=zero_point))
    return len(part.tensors) - 1


def _put_in_front(part: Part, pixels: int, operators: list[Any]) -> Part:
    return replace(part, operators=[*operators, *part.operators], inputs={"image": pixels})
