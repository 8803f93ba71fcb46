"""Keras -> a float ``.tflite`` with one subgraph and one signature for the backbone and for each head."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from builder.merging.rebuild import whole_model
from builder.merging.recurrent import unrolled
from builder.merging.substitute import groups, places, stamped, template
from builder.reading.classifier import Classifier
from builder.reading.source_input import SourceInput
from builder.support.errors import ConversionError
from builder.support.quiet import quiet
from builder.support.tracing import traced
from builder.tflite.flatbuffer import Part, read_parts, tensor_name
from builder.tflite.writer import write_parts
from edge_runtime.errors import reason
from edge_runtime.metadata import BACKBONE
from edge_runtime.temporary import TemporaryFolder

_AT_ONCE = 16  # functions in one conversion: its time grows faster than linearly with their number
_WORTH_IT = 3  # from so many heads of one structure on, converting one for all is quicker


def convert(
    backbone: Any,
    heads: Mapping[str, Any],
    *,
    source_input: SourceInput,
    seam: Sequence[str],
) -> bytes:
    """Convert the backbone and the heads to one float ``.tflite``; batch 1, float32, tokens int32.

    Its signatures are ``backbone`` (image or tokens -> the seam) and one for each head (the tensors of the seam that it
    reads -> scores). The backbone's ``image`` holds the values that the quantized pixels represent: scaled already where
    the input scaling is one scale and one offset, raw 0..255 followed by a 1x1 convolution where channels differ.

    Raises:
        ConversionError: TensorFlow Lite cannot express a model, or the temporary folder is full.
    """
    shapes, on_device = {source_input.name: source_input.shape}, _on_device(backbone, source_input)
    function = partial(_frozen, on_device, shapes, list(seam), tf.as_dtype(source_input.dtype))
    parts = _parts({BACKBONE: function})
    _name_tensors(parts[BACKBONE], BACKBONE)
    return write_parts({**parts, **convert_heads(heads)})


def convert_classifier(classifier: Classifier) -> Part:
    """One whole Keras classifier as a float part, from what its graph takes to its scores; batch 1.

    Raises ``ConversionError`` and ``ModelFileError``.
    """
    name, shapes = classifier.name, {classifier.source_input.name: classifier.source_input.shape}
    return _parts({name: partial(_frozen, unrolled(whole_model(classifier)), shapes, ["scores"])})[name]


def convert_heads(heads: Mapping[str, Any]) -> dict[str, Part]:
    """Each Keras head as a float part (tensors of the seam that it reads -> scores); heads of one structure at once."""
    parts, templates, single = dict[str, Part](), dict[str, Any](), list[str]()
    alike = {names[0]: names for names in groups(heads)}
    for first, names in alike.items():
        if len(names) < _WORTH_IT:
            single += names
        else:
            templates[first] = template(unrolled(heads[first]))
    for first, part in _parts({first: partial(_head, own) for first, own in templates.items()}).items():
        where = places(part, templates[first].get_weights())
        if where is None:
            single += alike[first]
        else:
            parts.update((name, stamped(part, where, heads[name].get_weights())) for name in alike[first])
    parts.update(_parts({name: partial(_head, unrolled(heads[name])) for name in single}))
    for name in heads:
        _name_tensors(parts[name], name)
    return {name: parts[name] for name in heads}


@traced()
def _parts(functions: Mapping[str, Callable[[], Any]]) -> dict[str, Part]:
    """Convert each concrete function; functions converted together share one buffer for equal constants."""
    parts: dict[str, Part] = {}
    for start in range(0, len(functions), _AT_ONCE):
        some = list(functions)[start : start + _AT_ONCE]
        parts.update(read_parts(_convert({name: functions[name]() for name in some})))
    return parts


def _head(head: Any) -> Any:
    return _frozen(head, {tensor.name: tuple(tensor.shape[1:]) for tensor in head.inputs}, ["scores"])


def _convert(functions: Mapping[str, Any]) -> bytes:
    with TemporaryFolder() as folder, quiet() as noise, _old_objects_left():
        converter = _converter(functions, folder)
        try:
            return bytes(converter.convert())
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            told = noise() or str(error)
            raise ConversionError(f"TensorFlow Lite cannot express this model: {told[-500:].strip()}") from error


@contextlib.contextmanager
def _old_objects_left() -> Iterator[None]:
    """Keep the garbage collector from searching TensorFlow's half a million old objects during each conversion."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _converter(functions: Mapping[str, Any], folder: str) -> Any:
    """Raises ``ConversionError`` where ``folder`` does not hold a SavedModel of the functions: its disk is full."""
    # Weights must be constants before they are saved: the converter cannot calibrate or share variables.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(tf.Module(), folder, signatures=functions, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
    except (OSError, tf.errors.OpError) as error:
        raise ConversionError(
            f"{folder}: the temporary files of the conversion cannot be written ({reason(error)[:200]}); make room "
            "there, or set TMPDIR to a folder with room"
        ) from error
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _on_device(backbone: Any, source_input: SourceInput) -> Any:
    layer = source_input.layer_in_file()
    if layer is None:
        return unrolled(backbone)
    return lambda image, training: backbone(layer(image), training=training)


def _frozen(model: Any, shapes: Mapping[str, tuple[int, ...]], results: list[str], dtype: Any = tf.float32) -> Any:
    """A concrete function whose weights are constants, from inputs of ``shapes`` (no batch axis) to ``results``."""
    specs = {name: tf.TensorSpec((1, *shape), dtype, name=name) for name, shape in shapes.items()}

    def live(*tensors: Any) -> list[Any]:
        outputs = model(tensors[0] if len(tensors) == 1 else list(tensors), training=False)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return [tf.identity(tensor, name=name) for tensor, name in zip(outputs, results, strict=True)]

    frozen = convert_variables_to_constants_v2(tf.function(live).get_concrete_function(*specs.values()))
    return tf.function(
        lambda **inputs: dict(zip(results, frozen(*(inputs[name] for name in shapes)), strict=True))
    ).get_concrete_function(**specs)


def _name_tensors(part: Part, prefix: str) -> None:
    """Short names, none of them twice in the file; the converter's are paths of every operation that was folded in."""
    roles = {index: name for name, index in {**part.inputs, **part.outputs}.items()}
    used: set[str] = set()
    for i, tensor in enumerate(part.tensors):
        name = roles.get(i) or re.sub(r"^[^/]*/", "", tensor_name(tensor).split(";")[0]) or "tensor"
        unique = next(n for n in (name, *(f"{name}_{k}" for k in range(1, len(part.tensors) + 1))) if n not in used)
        used.add(unique)
        tensor.name = f"{prefix}/{unique}"
