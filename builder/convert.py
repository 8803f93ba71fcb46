"""Keras -> a float ``.tflite`` with one subgraph and one signature for the backbone and for each head."""

from __future__ import annotations

import tempfile
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from builder.errors import ConversionError
from builder.merge import MergedModel, pixel_layer
from builder.pixels import CHANNELS
from builder.quiet import quiet

BACKBONE = "backbone"


def convert(merged: MergedModel) -> bytes:
    """Signatures: ``backbone`` (image -> features) and each head by its name (features -> scores); batch 1, float32.

    The backbone's ``image`` is what the pixels' quantization stands for: transformed already where that is one scale and
    one offset, raw 0..255 where channels differ, with a 1x1 convolution behind it.
    Raises ``ConversionError``.
    """
    functions = {BACKBONE: _frozen(_device_backbone(merged), "image", (1, *merged.size, CHANNELS), "features")}
    for name, head in merged.heads.items():
        functions[name] = _frozen(head, "features", (1, *merged.features_shape), "scores")
    with tempfile.TemporaryDirectory(prefix="polyhead-") as folder, quiet() as noise:
        # Weights must be constants before they are saved: the converter cannot calibrate or share variables.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), folder, signatures=functions, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return bytes(converter.convert())
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            reason = noise() or str(error)
            raise ConversionError(f"TensorFlow Lite cannot express this model: {reason[-500:].strip()}") from error


def _device_backbone(merged: MergedModel) -> Any:
    if merged.pixels.is_uniform:
        return merged.backbone
    layer = pixel_layer(merged.pixels)
    return lambda image, training: merged.backbone(layer(image), training=training)


def _frozen(model: Any, source: str, shape: tuple[int, ...], result: str) -> Any:
    """A concrete function whose weights are constants; ``source`` and ``result`` name its input and its output."""

    spec = tf.TensorSpec(shape, tf.float32, name=source)
    live = tf.function(lambda tensor: tf.identity(model(tensor, training=False), name=result))
    frozen = convert_variables_to_constants_v2(live.get_concrete_function(spec))
    return tf.function(lambda **inputs: {result: frozen(inputs[source])[0]}).get_concrete_function(**{source: spec})
