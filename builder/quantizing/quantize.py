"""Float -> fewer bits: weights per channel, activations with ranges pinned at the input and the seam."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe, recipe_manager

from builder.quantizing.accumulators import fit_accumulators
from builder.quantizing.steps import computable
from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import FLOAT32, INT8, INT16, Part, quantization, read_parts, tensor_name
from builder.tflite.parts import Range
from builder.tflite.writer import write_parts
from edge_runtime.metadata import BACKBONE
from edge_runtime.quantization import FLOAT

# The masked mean of words is a sum divided by their number. The quantizer would make both int8; interpreters have no
# kernel for such a division, and one scale for sums of one word and of forty leaves short texts no precision.
FLOAT_ONLY = (qtyping.TFLOperationName.DIV, qtyping.TFLOperationName.SUM)


def pin(float_model: bytes, ranges: Mapping[str, Range], input_range: Range | None) -> dict[str, Range]:
    """``ranges`` with the input's range set to ``input_range`` (None for tokens), and one range on both sides of the
    seam.

    For a picture the input range is what pixels 0 and 255 become: with 255 steps of one pixel each, quantization leaves
    the pixels unchanged.
    """
    parts = read_parts(float_model)
    names = {name: [tensor_name(t) for t in part.tensors] for name, part in parts.items()}
    backbone = parts[BACKBONE]
    seam = {tensor: ranges[names[BACKBONE][i]] for tensor, i in backbone.outputs.items()}
    pinned = dict(ranges)
    if input_range is not None:
        pinned.update((names[BACKBONE][i], input_range) for i in backbone.inputs.values())
    for name, part in parts.items():
        if name != BACKBONE:
            pinned.update((names[name][i], seam[tensor]) for tensor, i in part.inputs.items())
    return pinned


def quantize(float_model: bytes, ranges: Mapping[str, Range], precision: str = "int8") -> bytes:
    """``float_model`` in one of ``PRECISIONS``.

    ``int8``, ``int16``: activations; their weights are int8, per channel. ``dynamic``: int8 weights, activations rounded
    to int8 by each layer as it runs. ``weights``: int8 weights that a DEQUANTIZE makes float again when the file is
    opened, ``float16`` likewise; both compute in float. Raises ``ConversionError``.
    """
    if precision == "float":
        return float_model
    if precision not in STATIC:
        return run_recipe(float_model, _RECIPES[precision](), None)
    meant = dict(ranges)
    for _ in range(_ATTEMPTS):
        made = run_recipe(float_model, _RECIPES[precision](), meant)
        parts = read_parts(made)
        wanted = computable(parts, {**meant, **_seam_as_made(parts)})
        if wanted == meant:
            break
        meant = wanted
    return write_parts(parts) if fit_accumulators(read_parts(float_model), parts) else made


def _seam_as_made(parts: Mapping[str, Part]) -> dict[str, Range]:
    """The ranges of the heads' inputs where the backbone's outputs have a fixed scale: softmax and sigmoid do, whatever
    their range is.
    """
    if BACKBONE not in parts:
        return {}
    backbone, found = parts[BACKBONE], dict[str, Range]()
    for name, part in parts.items():
        for tensor, i in part.inputs.items() if name != BACKBONE else ():
            given = quantization(backbone.tensors[backbone.outputs[tensor]])
            if given != FLOAT and quantization(part.tensors[i]) != given:
                found[tensor_name(part.tensors[i])] = given.limits
    return found


def run_recipe(float_model: bytes, recipe: Any, ranges: Mapping[str, Range] | None) -> bytes:
    """Quantize ``float_model`` by litert-quantizer. ``ranges``: of activations that become integers.

    Raises ``ConversionError``.
    """
    process = quantizer.Quantizer(float_model, recipe)
    for kind in FLOAT_ONLY if ranges else ():
        process.update_quantization_recipe(".*", kind, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    limits = (
        None
        if ranges is None
        else {
            name: {"min": np.asarray([low], np.float32), "max": np.asarray([high], np.float32)}
            for name, (low, high) in ranges.items()
        }
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = process.quantize(limits, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ConversionError(f"this model cannot be quantized: {error}") from error
    parts = read_parts(bytes(result.quantized_model))
    forgotten = [_take_along(part, op) for part in parts.values() for op in part.operators if len(op.outputs) > 1]
    return write_parts(parts) if any(forgotten) else bytes(result.quantized_model)


def _take_along(part: Part, op: Any) -> bool:
    """Convert outputs that no operator reads: the quantizer leaves them in float, kernels need all of one type.

    Returns whether there were any.
    """
    outputs = [part.tensors[i] for i in op.outputs]
    made = [tensor for tensor in outputs if tensor.type in (INT8, INT16)]
    left = [tensor for tensor in outputs if tensor.type == FLOAT32 and made]
    for tensor in left:
        tensor.type, tensor.quantization = made[0].type, made[0].quantization
    return bool(left)


def _float16() -> Any:
    manager = recipe_manager.RecipeManager()
    everything, casting = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName.FLOAT_CASTING
    manager.add_weight_only_config(".*", everything, 16, algorithm_key=casting)
    return manager.get_quantization_recipe()


def _dynamic() -> Any:
    """Dense layers get one scale for the whole tensor: per-channel scales need FULLY_CONNECTED version 12, which
    interpreters before TensorFlow Lite 2.17 refuse. Depthwise layers compute in float: XNNPACK has no dynamic kernel for
    them, and TensorFlow Lite's own takes four times as long as float.
    """
    manager = recipe_manager.RecipeManager()
    manager.add_dynamic_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8)
    manager.add_dynamic_config(
        ".*", qtyping.TFLOperationName.FULLY_CONNECTED, 8, granularity=qtyping.QuantGranularity.TENSORWISE
    )
    manager.add_weight_only_config(".*", qtyping.TFLOperationName.DEPTHWISE_CONV_2D, 8)
    return manager.get_quantization_recipe()


_RECIPES = {
    "int8": recipe.static_wi8_ai8,
    "int16": recipe.static_wi8_ai16,
    "dynamic": _dynamic,
    "weights": recipe.weight_only_wi8_afp32,
    "float16": _float16,
}
STATIC = ("int8", "int16")  # with integer activations
_ATTEMPTS = 4  # a wider range may ask for another behind it
PRECISIONS = (*_RECIPES, "float")
LEARNABLE = ("int8", "int16", "weights")  # float16 is as good as float
