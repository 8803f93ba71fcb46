"""A uint8 input in front of a backbone of any precision: the input of a file does not depend on its precision."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import (
    FLOAT32,
    INT8,
    INT16,
    QUANTIZE,
    UINT8,
    Part,
    plain_tensor,
    scale_and_zero_point,
    type_name,
)
from builder.tflite.parts import Range
from edge_runtime.metadata import BACKBONE

_STEPS = 255
_WHOLE = 1e-4  # of a step: a zero point that is nearer to an integer is taken as that integer


def take_pixels(backbone: Part, span: Range | None) -> Part:
    """A copy of the backbone with a uint8 input ``image`` in front.

    int8: a QUANTIZE that subtracts 128. Float: a DEQUANTIZE, and an ADD where 0 is not the value of a pixel. int16: a
    QUANTIZE after those, because interpreters up to TensorFlow Lite 2.14 cannot quantize from 8 to 16 bits.

    Args:
        backbone: The backbone in any precision.
        span: The real values of the pixels 0 and 255; None for a backbone that takes tokens, which is returned as it is.

    Raises:
        ConversionError: The input of the backbone has another type.
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
    raise ConversionError(f"input of the backbone: expected int8, int16, float32 or uint8, found {type_name(image)}")


def _in_float(part: Part, target: int, span: Range) -> tuple[int, list[Any]]:
    """A new uint8 tensor, and the operators that compute the float tensor ``target`` from it."""
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
