"""Float -> int8: every tensor that can be int8 is, weights per channel, with ranges pinned at the input and the seam."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping

import numpy as np
from litert_quantizer import quantizer, recipe

from builder.errors import ConversionError
from builder.flatbuffer import read_parts
from builder.pixels import PixelTransform
from builder.ranges import Range
from edge_runtime.metadata import BACKBONE


def pin(float_model: bytes, ranges: Mapping[str, Range], pixels: PixelTransform) -> dict[str, Range]:
    """``ranges`` with the input set to what pixels 0 and 255 become, and one range on both sides of the seam.

    With the input's 255 steps of one pixel each, quantizing a picture is taking its pixels as they are.
    """
    parts = read_parts(float_model)
    names = {name: [t.name.decode() for t in part.tensors] for name, part in parts.items()}
    backbone = parts[BACKBONE]
    seam = {tensor: ranges[names[BACKBONE][i]] for tensor, i in backbone.outputs.items()}
    pinned = {**ranges, names[BACKBONE][backbone.inputs["image"]]: pixel_range(pixels)}
    for name, part in parts.items():
        if name != BACKBONE:
            pinned.update((names[name][i], seam[tensor]) for tensor, i in part.inputs.items())
    return pinned


def pixel_range(pixels: PixelTransform) -> Range:
    """What the file's input tensor stands for: transformed pixels where the transform is uniform, else raw ones."""
    if not pixels.is_uniform:
        return 0.0, 255.0
    return pixels.offset[0], 255 * pixels.scale[0] + pixels.offset[0]


def quantize(float_model: bytes, ranges: Mapping[str, Range]) -> bytes:
    """int8 weights (per channel) and activations, int32 biases. Raises ``ConversionError``."""
    process = quantizer.Quantizer(float_model, recipe.static_wi8_ai8())
    limits = {
        name: {"min": np.asarray([low], np.float32), "max": np.asarray([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = process.quantize(limits, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ConversionError(f"this model cannot be quantized to int8: {error}") from error
    return bytes(result.quantized_model)
