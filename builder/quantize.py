"""Float -> fewer bits: weights per channel, activations with ranges pinned at the input and the seam."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe, recipe_manager

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


def quantize(float_model: bytes, ranges: Mapping[str, Range], precision: str = "int8") -> bytes:
    """``float_model`` in one of ``PRECISIONS``.

    ``int8``, ``int16``: activations; their weights are int8, per channel. ``weights``: int8 weights that a DEQUANTIZE
    makes float again when the file is opened, ``float16`` likewise; both compute in float. Raises ``ConversionError``.
    """
    if precision == "float":
        return float_model
    process = quantizer.Quantizer(float_model, _RECIPES[precision]())
    limits = {
        name: {"min": np.asarray([low], np.float32), "max": np.asarray([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = process.quantize(
                limits if precision in _STATIC else None, enable_progress_bar=False, enable_progress_report=False
            )
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ConversionError(f"this model cannot be quantized to {precision}: {error}") from error
    return bytes(result.quantized_model)


def _float16() -> Any:
    manager = recipe_manager.RecipeManager()
    everything, casting = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName.FLOAT_CASTING
    manager.add_weight_only_config(".*", everything, 16, algorithm_key=casting)
    return manager.get_quantization_recipe()


# Weight-only int8 of the dynamic kind, which rounds activations as it runs, is left out: its dense layers with a scale
# for each channel need FULLY_CONNECTED version 12, which old interpreters refuse, and its noise is up to the interpreter.
_RECIPES = {
    "int8": recipe.static_wi8_ai8,
    "int16": recipe.static_wi8_ai16,
    "weights": recipe.weight_only_wi8_afp32,
    "float16": _float16,
}
_STATIC = ("int8", "int16")
PRECISIONS = (*_RECIPES, "float")
