"""Measure the effect of each part of quantization: ``python -m benchmarks.quantization --write build/quantization``.

All methods use the same float network and the same pictures: those of ``calibration_data``, with its held-out pictures
for the figures. The finished file runs in the interpreter, and its logits are compared with float. Writes a table (.md),
figures (.json) and a plot (.png).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.networks import ROOT, SUBJECTS, Subject, make_subject, without_softmax
from builder.quantizing.baselines import baseline_int8
from builder.quantizing.latency import backbone_ms
from builder.quantizing.learn_layer import Learning
from builder.quantizing.noise import snr_db
from builder.quantizing.prepare import prepared
from builder.quantizing.quantize import pin, quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.rounding import round_parts
from builder.reporting.plots import BLUE, GREY, RED
from builder.settings.config import OWN
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import Part, quantization, read_parts
from builder.tflite.parts import names
from builder.tflite.stepper import Stepper
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

CURVE = (5, 10, 25, 50, 100)
CONVERTER = "TensorFlow's converter"


@dataclass(frozen=True)
class Way:
    """How a network is quantized: the switches of ``builder.settings.config.BuildConfig``."""

    name: str
    equalize: bool = False
    ranges: str = "minmax"
    rounding: str = "nearest"
    refit: bool = True
    algorithm: str = OWN
    precision: str = "int8"


DEFAULT = Way("all of them (the default)", equalize=True, ranges="mse", rounding="learnt")
STOCK = Way("litert-quantizer, min/max", algorithm="litert_minmax")
WAYS = (
    Way("TensorFlow's quantizer, our ranges", algorithm="tensorflow"),
    STOCK,
    Way("litert-quantizer, MSE", algorithm="litert_mse"),
    Way("litert-quantizer, OCTAV", algorithm="litert_octav"),
    Way("prepared", equalize=True),
    Way("percentile", ranges="percentile"),
    Way("mse", ranges="mse"),
    Way("bias corrected", rounding="bias"),
    Way("learnt, without refit", rounding="learnt", refit=False),
    Way("learnt", rounding="learnt"),
    Way("learnt, prepared", equalize=True, rounding="learnt"),
    Way("learnt, mse", ranges="mse", rounding="learnt"),
    DEFAULT,
    Way("its weights alone, computed in float", equalize=True, ranges="mse", rounding="learnt", precision="weights"),
)
SHORT = (*WAYS[:2], WAYS[9], DEFAULT, WAYS[-1])
ACTIVATIONS = "its activations alone"


def main() -> int:
    parser = argparse.ArgumentParser(description="SNR and agreement of every quantization method, on the same pictures.")
    parser.add_argument(
        "--write", type=Path, default=ROOT / "build" / "quantization", help="name of the files, no suffix"
    )
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--curve", action="store_true", help="for lite0 also with fewer calibration pictures")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.subjects:
        try:
            subject = make_subject(name)
        except ConfigError as error:
            parser.error(str(error))
        found[name] = dict(_rows(subject, name))
        if arguments.curve and name == "lite0":
            found["pictures"] = dict(_curve(subject))
            found["halves"] = _halves(subject)
            print(found["pictures"], found["halves"], flush=True)
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    arguments.write.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    arguments.write.with_suffix(".md").write_text(table(found), "utf-8")
    plot(found, arguments.write.with_suffix(".png"))
    return 0


def quantized(subject: Subject, way: Way, images: np.ndarray) -> tuple[dict[str, Part], dict[str, Part]]:
    """Backbone and heads in float (prepared if ``way`` says so), and quantized by ``way``, calibrated on ``images``."""
    pixels = subject.merged.source_input.input_range
    model = subject.float_model
    if way.equalize:
        model = prepared(model, images, pixels).of(way.precision)
    measured = measure_ranges(model, images, subject.heads, estimate=way.ranges)
    ranges = pin(model, measured, pixels)
    if way.algorithm != OWN:
        return read_parts(model), read_parts(baseline_int8(model, ranges, way.algorithm))
    parts = read_parts(quantize(model, ranges, way.precision))
    if way.rounding != "nearest":
        learning = Learning(weights=way.rounding == "learnt", refit=way.refit)
        round_parts(read_parts(model), parts, images, learning=learning)
    return read_parts(model), parts


def _rows(subject: Subject, name: str) -> Iterator[tuple[str, Any]]:
    truth = subject.logits(read_parts(subject.float_model))
    print(f"{name}: float file and Keras are {subject.from_keras(truth):.1g} apart", flush=True)
    rows, backbones = dict[str, Any](), dict[str, Part]()
    if subject.whole is not None:
        rows[CONVERTER] = _judged(truth, partial(by_tensorflow, subject))
    for way in SHORT if name in ("ill", "mobilenet") else WAYS:
        start = time.perf_counter()
        float_parts, parts = quantized(subject, way, subject.calibration)
        seconds = time.perf_counter() - start
        rows[way.name] = {**_judged(truth, partial(subject.logits, parts)), "seconds": round(seconds, 1)}
        backbones[way.name] = parts[BACKBONE]
        print(name, way.name, rows[way.name], flush=True)
        if way == DEFAULT:
            rows[ACTIVATIONS] = _judged(truth, partial(activations_alone, subject, float_parts, parts))
            print(name, ACTIVATIONS, rows[ACTIVATIONS], flush=True)
    float_ms, *own_ms = backbone_ms(read_parts(subject.float_model)[BACKBONE], *backbones.values())
    for way_name, latency in zip(backbones, own_ms, strict=True):
        rows[way_name]["backbone_ms"] = round(latency, 2)
    print(name, "milliseconds", {"float": float_ms, **dict(zip(backbones, own_ms, strict=True))}, flush=True)
    yield from rows.items()


def _judged(truth: Mapping[str, np.ndarray], run: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """SNR and agreement of all heads together; each head runs on every picture."""
    found = run()
    agreement = float(np.mean([np.mean(found[head].argmax(1) == truth[head].argmax(1)) for head in truth]))
    signal, device = (np.concatenate([logits[head] for head in truth], axis=1) for logits in (truth, found))
    return {"snr_db": round(snr_db(signal, device), 2), "agreement": round(agreement, 4)}


def activations_alone(
    subject: Subject, float_parts: Mapping[str, Part], int8_parts: Mapping[str, Part]
) -> dict[str, np.ndarray]:
    """Logits of the float network where only the activations of the backbone are rounded as in int8."""
    part, int8 = float_parts[BACKBONE], int8_parts[BACKBONE]
    theirs, mine = dict(names(int8)), {i: name for name, i in names(part)}
    stepper = Stepper(part, dict.fromkeys(part.inputs.values(), subject.held_out))
    for op in part.operators:
        stepper.step()
        for i in op.outputs:
            if mine[i] in theirs:
                rounding = quantization(int8.tensors[theirs[mine[i]]])
                stepper.put(i, rounding.dequantize(rounding.quantize(stepper.value(i))))
    features = {name: stepper.value(i) for name, i in part.outputs.items()}
    logits = {}
    for name in subject.heads:
        head = without_softmax(float_parts[name])
        run = Stepper(head, {i: features[tensor] for tensor, i in head.inputs.items()})
        logits[name] = run.until(head.outputs["scores"])
    return logits


def by_tensorflow(subject: Subject) -> dict[str, np.ndarray]:
    """Logits of the network converted by TensorFlow, with its own calibration; int8 input and output."""
    model = subject.whole
    dense = model.layers[-1]
    logits = keras.layers.Dense(dense.units)
    whole = keras.Model(model.input, logits(dense.input))
    logits.set_weights(dense.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(whole)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in subject.calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with contextlib.redirect_stdout(io.StringIO()):
        content = bytes(converter.convert())
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=content, num_threads=2)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    (scale, zero), (out_scale, out_zero) = source["quantization"], result["quantization"]
    rows = []
    for image in subject.held_out:
        pixels = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], pixels[None])
        interpreter.invoke()
        rows.append((interpreter.get_tensor(result["index"])[0].astype(np.float32) - out_zero) * out_scale)
    return {subject.heads[0]: np.stack(rows)}


def _curve(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Figures by the number of calibration pictures, for the default and for min/max with rounding to nearest."""
    truth = subject.logits(read_parts(subject.float_model))
    for count in CURVE:
        row = {}
        for way in (STOCK, DEFAULT):
            parts = quantized(subject, way, subject.calibration[:count])[1]
            row[way.name] = _judged(truth, partial(subject.logits, parts))
        yield str(count), row


def _halves(subject: Subject) -> dict[str, float]:
    """SNR of the logits in dB, of files calibrated on two halves of the pictures: against float and each other."""
    head = subject.heads[0]
    truth = subject.logits(read_parts(subject.float_model))[head]
    halves = [subject.calibration[half::2] for half in (0, 1)]
    found = [subject.logits(quantized(subject, DEFAULT, half)[1])[head] for half in halves]
    pairs = {"first": (truth, found[0]), "second": (truth, found[1]), "each other": (found[0], found[1])}
    return {name: round(snr_db(*pair), 2) for name, pair in pairs.items()}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """SNR of the logits and top-1 agreement of every method, for each subject."""
    subjects = [name for name in found if name in SUBJECTS]
    lines = ["| way | " + " | ".join(f"{s}: SNR (dB) | agreement" for s in subjects) + " |"]
    lines.append("| --- |" + " ---: | ---: |" * len(subjects))
    for way in found[subjects[0]]:
        cells = []
        for subject in subjects:
            row = found[subject].get(way)
            cells.append(f"{row['snr_db']:.1f} | {row['agreement']:.3f}" if row else "- | -")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    subjects = [name for name in found if name in SUBJECTS]
    ways = list(found[subjects[0]])
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.36 * len(ways)))
    for shift, (subject, colour) in enumerate(zip(subjects, (BLUE, RED, GREY), strict=False)):
        rows = [(i, found[subject][way]["snr_db"]) for i, way in enumerate(ways) if way in found[subject]]
        axes.barh([i + 0.35 * shift for i, _ in rows], [v for _, v in rows], 0.33, color=colour, label=subject)
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.set_xlabel("signal to noise of the 1000 logits (dB), held-out pictures")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
