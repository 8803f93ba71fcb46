"""Keras -> a float ``.tflite`` with one subgraph and one signature for the backbone and for each head."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from builder.errors import ConversionError
from builder.flatbuffer import Part, read_parts, write_parts
from builder.merge import MergedModel, pixel_layer
from builder.pixels import CHANNELS
from builder.quiet import quiet
from edge_runtime.metadata import BACKBONE

_AT_ONCE = 16  # functions in one conversion: its time grows faster than their number


def convert(merged: MergedModel, advance: Callable[[], None] = lambda: None) -> bytes:
    """Signatures: ``backbone`` (image -> features) and each head by its name (features -> scores); batch 1, float32.

    The backbone's ``image`` is what the pixels' quantization stands for: transformed already where that is one scale and
    one offset, raw 0..255 where channels differ, with a 1x1 convolution behind it.
    ``advance`` is called after each conversion. Raises ``ConversionError``.
    """
    functions = {BACKBONE: lambda: _frozen(_device_backbone(merged), "image", (1, *merged.size, CHANNELS), "features")}
    for name, head in merged.heads.items():
        functions[name] = partial(_frozen, head, "features", (1, *merged.features_shape), "scores")
    parts: dict[str, Part] = {}
    for start in range(0, len(functions), _AT_ONCE):
        some = list(functions)[start : start + _AT_ONCE]
        parts.update(read_parts(_convert({name: functions[name]() for name in some})))
        advance()
    for name, part in parts.items():
        _name_tensors(part, name)
    return write_parts(parts)


def _convert(functions: Mapping[str, Any]) -> bytes:
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


def _name_tensors(part: Part, prefix: str) -> None:
    """Short names, none of them twice in the file; the converter's are paths of every operation that was folded in."""
    roles = {index: name for name, index in {**part.inputs, **part.outputs}.items()}
    used: set[str] = set()
    for i, tensor in enumerate(part.tensors):
        name = roles.get(i) or re.sub(r"^[^/]*/", "", tensor.name.decode().split(";")[0]) or "tensor"
        unique = next(n for n in (name, *(f"{name}_{k}" for k in range(1, len(part.tensors) + 1))) if n not in used)
        used.add(unique)
        tensor.name = f"{prefix}/{unique}"
