"""Baselines for int8: TensorFlow's converter and the algorithms of litert-quantizer."""

from __future__ import annotations

from collections.abc import Mapping

from litert_quantizer import algorithm_manager, qtyping, recipe_manager

from builder.quantizing.quantize import run_recipe
from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import read_parts, set_limits, tensor_name
from builder.tflite.parts import Range
from builder.tflite.writer import write_parts

_LITERT = {
    "litert_minmax": algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    "litert_mse": algorithm_manager.AlgorithmName.MSE,
    "litert_octav": algorithm_manager.AlgorithmName.OCTAV,
}
_LAYERS = (
    qtyping.TFLOperationName.CONV_2D,
    qtyping.TFLOperationName.DEPTHWISE_CONV_2D,
    qtyping.TFLOperationName.FULLY_CONNECTED,
)


def baseline_int8(float_model: bytes, ranges: Mapping[str, Range], algorithm: str) -> bytes:
    """``float_model`` in int8 by one of ``config.ALGORITHMS`` other than our own, with ``ranges`` for its activations.

    The algorithms of litert-quantizer differ in how they choose the scales of weights; all round to nearest. Raises
    ``ConversionError``.
    """
    if algorithm == "tensorflow":
        return _by_tensorflow(float_model, ranges)
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
    for kind in _LAYERS:
        manager.add_static_config(".*", kind, 8, 8, algorithm_key=_LITERT[algorithm])
    return run_recipe(float_model, manager.get_quantization_recipe(), ranges)


def _by_tensorflow(float_model: bytes, ranges: Mapping[str, Range]) -> bytes:
    """What ``tf.lite.TFLiteConverter`` does after its min/max calibration."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    parts = read_parts(float_model)
    for part in parts.values():
        for i in part.activations():
            low, high = ranges[tensor_name(part.tensors[i])]
            set_limits(part.tensors[i], min(low, 0.0), max(high, 0.0))
    try:
        return bytes(
            mlir_quantize(write_parts(parts), fully_quantize=True, input_data_type=tf.int8, output_data_type=tf.int8)
        )
    except RuntimeError as error:
        raise ConversionError(f"TensorFlow's converter cannot quantize this model to int8: {error}") from error
