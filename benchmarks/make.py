"""Make the files of one variant in a process of its own: ``python -m benchmarks.make VARIANT HEADS FOLDER BACKBONE GB``.

Prints one line of JSON: the time from Keras models in memory to finished files, without imports.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks.subject import PIXELS, as_classifiers, make_models
from benchmarks.variants import PICTURES, paths
from builder.merging.backbone import SharedBackbone, find_backbone
from builder.merging.merge import MergedModel, merge
from builder.quantizing.quantize import pin, quantize
from builder.quantizing.ranges import measure_ranges
from builder.tflite.flatbuffer import Part, read_parts
from builder.tflite.link import LinkedModel, link
from builder.tflite.pixel_input import take_pixels
from builder.tflite.writer import Writer
from edge_runtime.bundle import append_members
from edge_runtime.image_input import ImageInput
from edge_runtime.metadata import BACKBONE, HeadInfo, Metadata

MEASURED_CONVERSIONS = 3  # of separate files; the others are copies of these under other names
Timed = dict[str, Any]


def make_ours(models: dict[str, Any], pictures: np.ndarray, folder: Path) -> Timed:
    """Make one polyhead file by the stages of ``builder.pipeline``, and the bare backbone of that file beside it.

    The stages that only check (equivalence, verification) are left out, because the other variants check nothing.
    """
    stages, clock = {}, _Clock()
    classifiers = as_classifiers(models)
    stages["read"] = clock.lap()
    shared = find_backbone(classifiers)
    stages["find"] = clock.lap()
    merged = merge(classifiers, shared)
    stages["merge"] = clock.lap()
    float_model = merged.float_model()
    stages["convert"] = clock.lap()
    ranges = measure_ranges(float_model, merged.source_input.device_input(pictures), merged.heads)
    stages["calibrate"] = clock.lap()
    int8_model = quantize(float_model, pin(float_model, ranges, merged.source_input.input_range))
    stages["quantize"] = clock.lap()
    parts = read_parts(int8_model)
    parts[BACKBONE] = take_pixels(parts[BACKBONE], merged.source_input.input_range)
    linked = link(parts)
    (target,) = paths(folder, "ours", len(models))
    target.write_bytes(append_members(linked.model, _metadata(merged, shared, linked, classifiers)))
    stages["link"] = clock.lap()
    (bare,) = paths(folder, "bare", len(models))
    bare.write_bytes(bare_backbone(parts[BACKBONE]))
    weights = [sum(int(np.prod(w.shape)) for w in head.weights if w.ndim > 1) for head in merged.heads.values()]
    return {"seconds": sum(stages.values()), "stages": stages, "head_weight_bytes": max(weights)}


def bare_backbone(part: Part) -> bytes:
    """A model of the backbone alone, from a uint8 picture to int8 features."""
    writer = Writer()
    writer.add_subgraph(BACKBONE, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    return writer.finish("backbone alone")


def make_separate(models: dict[str, Any], pictures: np.ndarray, folder: Path) -> Timed:
    """Make an int8 file of each classifier with TensorFlow's converter. ``each``: seconds of each conversion."""
    targets = paths(folder, "separate", len(models))
    each = []
    for target, model in list(zip(targets, models.values(), strict=True))[:MEASURED_CONVERSIONS]:
        clock = _Clock()
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        target.write_bytes(_to_int8(converter, lambda: ([image] for image in _samples(pictures))))
        each.append(clock.lap())
    for i, target in enumerate(targets[len(each) :]):
        shutil.copyfile(targets[i % len(each)], target)
    return {"each": each}


def make_signatures(models: dict[str, Any], pictures: np.ndarray, folder: Path) -> Timed:
    """Make one file with TensorFlow's converter, with an end-to-end signature for each classifier."""
    clock = _Clock()
    functions = {name: _frozen(model) for name, model in models.items()}
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), saved, signatures=functions, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=list(functions))

        def samples() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for name in functions:
                for image in _samples(pictures):
                    yield name, {"image": image}

        model = _to_int8(converter, samples)
    (target,) = paths(folder, "signatures", len(models))
    target.write_bytes(model)
    return {"seconds": clock.lap()}


def _frozen(model: Any) -> Any:
    """A function with constant weights: the converter cannot calibrate several signatures whose weights are variables."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")
    live = tf.function(lambda image: model(image, training=False)).get_concrete_function(spec)
    constant = convert_variables_to_constants_v2(live)
    return tf.function(lambda image: {"scores": constant(image)[0]}).get_concrete_function(image=spec)


def _to_int8(converter: Any, samples: Callable[[], Any]) -> bytes:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return bytes(converter.convert())


def _samples(pictures: np.ndarray) -> Iterator[np.ndarray]:
    for picture in pictures:
        yield PIXELS.apply(picture)[None]


def _metadata(merged: MergedModel, shared: SharedBackbone, linked: LinkedModel, classifiers: list[Any]) -> Metadata:
    heads = tuple(HeadInfo(c.name, c.labels, "softmax", linked.head_bytes[c.name]) for c in classifiers)
    built = {"precision": "int8", "parameters": shared.parameters}
    return Metadata(
        ImageInput(merged.source_input.shape[0], merged.source_input.shape[1]),
        merged.digest,
        linked.seam,
        heads,
        len(linked.model),
        linked.scores,
        built=built,
    )


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the clock was made, or since the last lap."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


MAKERS = {"ours": make_ours, "separate": make_separate, "signatures": make_signatures}


def main(variant: str, heads: str, folder: str, backbone: str, gigabytes: str) -> None:
    resource.setrlimit(
        resource.RLIMIT_AS, (int(float(gigabytes) * 1e9),) * 2
    )  # fail rather than slow the whole machine down
    models = make_models(backbone, int(heads))
    with contextlib.redirect_stdout(io.StringIO()):  # Keras prints a line for every export
        result = MAKERS[variant](models, np.load(Path(folder) / PICTURES), Path(folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
