"""Export the merged model as a SavedModel for servers: ``predict(inputs, head)`` computes only the chosen head.

It is plain TensorFlow, so that a server needs nothing else: weights are stored once, with one function for the backbone
and one for each head, which all signatures call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from builder.merging.merge import MergedModel
from builder.reading.picture_input import PictureSourceInput
from builder.reading.text_input import text_layer
from builder.support.errors import ConfigError, ConversionError
from builder.support.files import written_folder
from builder.support.places import check_folder
from builder.support.quiet import quiet
from builder.support.tracing import traced
from edge_runtime.image_input import ImageInput
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import END_TO_END
from edge_runtime.text import TextInput

ALL, BY_INDEX, PIXELS = "all", "by_index", "pixels"  # signatures besides the heads
MARK = "saved_model.pb"
Function = Any  # a tf.function or what calls one


def check_target(folder: Path, heads: Sequence[str]) -> None:
    """Raises ``ConfigError`` where ``folder`` has anything but an older SavedModel, or a head's name is taken."""
    check_folder(folder, mark=MARK)
    taken = sorted({ALL, BY_INDEX, PIXELS} & set(heads))
    if taken:
        raise ConfigError(f"head name {taken[0]!r} is taken by a signature of the SavedModel; choose another")


@traced()
def export(merged: MergedModel, labels: Mapping[str, Sequence[str]], spec: InputSpec, folder: Path) -> None:
    """Write ``folder`` atomically. ``labels``: of each head, in the order of its scores.

    Signatures: ``serving_default`` and ``by_index`` (inputs, head), each head by its name (inputs), ``all`` (inputs); for
    pictures ``pixels`` (inputs, head) too. ``inputs``: texts, or encoded JPEG or PNG, strings (n,), or, where TensorFlow
    cannot split texts as the model needs it, the numbers of tokens, int32 (n, length); for ``pixels`` uint8
    (n, height, width, 3). ``head``: one for all rows or one for each; a name or an index as a string, for ``by_index``
    and ``pixels`` an index, int32. They give ``scores`` and ``labels`` (n, labels), padded with 0 and "" where rows have
    heads of different sizes; ``all`` gives scores by the names of the heads.
    """
    module = tf.Module()
    module.weights = [v.value for model in (merged.backbone, *merged.heads.values()) for v in model.variables]
    features, heads = _backbone(module, merged), {name: _head(module, merged, name) for name in merged.heads}
    enter, chosen = _entry(module, merged, spec), _chosen(heads, list(labels.values()))
    module.numbers = _numbers(list(merged.heads))
    texts = tf.TensorSpec((None,), tf.string, name="inputs")
    if isinstance(spec, TextInput) and spec.kind != "tokens":
        texts = tf.TensorSpec((None, spec.length), tf.int32, name="inputs")
    names, indices = (tf.TensorSpec(None, dtype, name="head") for dtype in (tf.string, tf.int32))

    def by_index(inputs: Any, head: Any) -> Any:
        return chosen(features(enter(inputs)), head)

    def by_name(inputs: Any, head: Any) -> Any:
        return by_index(inputs, module.numbers.lookup(head))

    def everything(inputs: Any) -> Any:
        found = features(enter(inputs))
        return {name: head(*found) for name, head in heads.items()}

    def alone(inputs: Any, *, name: str) -> Any:
        return _labelled(heads[name](*features(enter(inputs))), tf.constant(list(labels[name]))[None])

    signatures = {
        END_TO_END: tf.function(by_name).get_concrete_function(texts, names),
        BY_INDEX: tf.function(by_index).get_concrete_function(texts, indices),
        ALL: tf.function(everything).get_concrete_function(texts),
        **{name: tf.function(partial(alone, name=name)).get_concrete_function(texts) for name in heads},
    }
    if isinstance(spec, ImageInput):
        pixels = tf.TensorSpec((None, *spec.shape[1:]), tf.uint8, name="inputs")
        raw = tf.function(lambda inputs, head: chosen(features(_transformed(merged)(inputs)), head))
        signatures[PIXELS] = raw.get_concrete_function(pixels, indices)
    with written_folder(folder, mark=MARK) as draft, quiet():
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        try:
            tf.saved_model.save(module, str(draft), signatures=signatures, options=options)
        except tf.errors.OpError as error:  # TensorFlow raises it for a full disk too
            reason = " ".join(str(error).split())[:200]
            raise ConversionError(f"{folder}: the SavedModel cannot be written ({reason})") from error


def _backbone(module: tf.Module, merged: MergedModel) -> Function:
    """A function from the graph's input to the list of the seam's tensors."""
    source_input = merged.source_input

    def run(tensors: Any) -> list[Any]:
        found = merged.backbone(tensors, training=False)
        return list(found) if isinstance(found, (list, tuple)) else [found]

    function = tf.function(run, input_signature=[tf.TensorSpec((None, *source_input.shape), source_input.dtype)])
    module.backbone = function
    return function


def _head(module: tf.Module, merged: MergedModel, name: str) -> Function:
    """A function from all tensors of the seam to scores (n, labels)."""
    head, reads = merged.heads[name], [merged.seam.index(tensor.name) for tensor in merged.heads[name].inputs]
    specs = [tf.TensorSpec((None, *shape), tf.float32) for shape in merged.seam_shapes.values()]

    def run(*seam: Any) -> Any:
        inputs = [seam[i] for i in reads]
        return head(inputs[0] if len(inputs) == 1 else inputs, training=False)

    function = tf.function(run, input_signature=specs)
    setattr(module, f"head_{name}", function)
    return function


def _chosen(heads: Mapping[str, Function], labels: Sequence[Sequence[str]]) -> Function:
    """A function from the seam and head indices, one for all rows or one for each, to the signatures' outputs."""
    names, widths = list(heads), tf.constant([len(own) for own in labels])
    widest = max(map(len, labels))
    table = tf.constant([[*own, *[""] * (widest - len(own))] for own in labels])

    def pad(head: Function, rows: Sequence[Any]) -> Any:
        scores = head(*rows)
        return tf.pad(scores, [[0, 0], [0, widest - scores.shape[1]]])

    def run(seam: Sequence[Any], head: Any) -> Any:
        count = tf.shape(seam[0])[0]
        head = _one_a_row(head, count, names)
        found = tf.zeros((count, widest))
        different, _ = tf.unique(head)
        for number in different:  # each requested head runs once, on its own rows
            rows = tf.where(head == number)
            some = [tf.gather_nd(tensor, rows) for tensor in seam]
            scores = tf.switch_case(number, [partial(pad, one, some) for one in heads.values()])
            found = tf.tensor_scatter_nd_update(found, rows, scores)
        width = tf.reduce_max(tf.concat([[0], tf.gather(widths, head)], 0))
        return _labelled(found[:, :width], tf.gather(table, head)[:, :width])

    return tf.function(run)


def _one_a_row(head: Any, count: Any, names: Sequence[str]) -> Any:
    """Head indices, int32 (count,). An unknown head or a wrong number of heads is an error that the client sees."""
    head = tf.reshape(head, [-1])
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
    known = tf.reduce_all((head >= 0) & (head < len(names)))
    tf.debugging.Assert(known, [f"no such head; expected an index from 0 to {len(names) - 1} or a name: {shown}"])
    fits = (tf.size(head) == 1) | (tf.size(head) == count)
    with tf.control_dependencies([tf.debugging.Assert(fits, ["expected one head for all inputs, or one for each"])]):
        return head + tf.zeros([count], tf.int32)


def _labelled(scores: Any, labels: Any) -> dict[str, Any]:
    return {"scores": scores, "labels": tf.broadcast_to(labels, tf.shape(scores))}


def _numbers(names: Sequence[str]) -> Any:
    """A function from names, or indices as text, to indices."""
    keys = [*names, *map(str, range(len(names)))]
    values = tf.constant([*range(len(names))] * 2, tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), values), default_value=-1)


def _entry(module: tf.Module, merged: MergedModel, spec: InputSpec) -> Function:
    """A function from strings (n,) to the graph's input."""
    if isinstance(spec, TextInput) and spec.kind != "tokens":
        return lambda tokens: tokens
    if isinstance(spec, TextInput):
        module.text = text_layer(spec)  # keeps its lookup table alive
        return lambda texts: tf.ensure_shape(tf.cast(module.text(texts[:, None]), tf.int32), (None, spec.length))
    enter = _transformed(merged)
    return lambda encoded: enter(tf.map_fn(partial(_decoded, spec=spec), encoded, fn_output_signature=tf.uint8))


def _transformed(merged: MergedModel) -> Function:
    """A function from pixels 0..255 to the graph's input."""
    assert isinstance(merged.source_input, PictureSourceInput)
    pixels = merged.source_input.pixels
    order, scale, offset = list(pixels.order), tf.constant(pixels.scale), tf.constant(pixels.offset)
    return lambda images: tf.gather(tf.cast(images, tf.float32), order, axis=3) * scale + offset


def _decoded(encoded: Any, *, spec: ImageInput) -> Any:
    """Decode a JPEG or PNG to uint8 of ``spec.shape``, within a step or two of ``edge_runtime.preprocess``."""
    image = tf.io.decode_image(encoded, channels=spec.shape[-1], expand_animations=False)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.constant([spec.height, spec.width], tf.float32)
    if spec.fit == "crop":
        kept = tf.cast(tf.round(target * tf.reduce_min(size / target)), tf.int32)
        image = tf.image.resize_with_crop_or_pad(image, kept[0], kept[1])
    if spec.fit == "pad":
        scaled = tf.maximum(tf.cast(tf.round(size * tf.reduce_min(target / size)), tf.int32), 1)
        image = tf.cast(_resized(image, scaled, spec), tf.uint8)
        return tf.ensure_shape(tf.image.resize_with_crop_or_pad(image, spec.height, spec.width), spec.shape[1:])
    return tf.ensure_shape(_resized(image, [spec.height, spec.width], spec), spec.shape[1:])


def _resized(image: Any, size: Any, spec: ImageInput) -> Any:
    method = {"lanczos": "lanczos3"}.get(spec.method, spec.method)
    image = tf.image.resize(tf.cast(image, tf.float32), size, method=method, antialias=spec.antialias)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
