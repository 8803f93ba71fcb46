"""What each part of the quantization is worth: ``python -m benchmarks.quantization --write docs/quantization``.

The same pictures and the same float network for all: calibrated on pictures of ``calibration_data``, judged on its
held-out ones; the real file in the real interpreter, its logits against float. Writes a table (.md), figures (.json) and
a plot (.png).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.subject import as_classifiers
from builder.backbone import find_backbone
from builder.calibration import read_samples
from builder.convert import convert
from builder.equalize import equalized
from builder.flatbuffer import Part, read_parts
from builder.joint.logistic import log_softmax
from builder.latency import backbone_ms
from builder.merge import MergedModel, merge
from builder.noise import snr_db
from builder.page import BLUE, GREY, RED
from builder.quantize import pin, quantize
from builder.ranges import Range, measure_ranges
from builder.rounding import round_parts
from builder.samples import draw_evenly, find_pictures
from builder.sensitivity import answers
from builder.training.efficientnet_lite0 import efficientnet_lite0
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE, ImageInput

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = 100
CURVE = (5, 10, 25, 50, 100)
HEAD = "classes"
SUBJECTS = ("lite0", "ill")
POWERS = 6  # of two, by which channels of the ill-conditioned twin are scaled at most


@dataclass(frozen=True)
class Way:
    """How a network is quantized."""

    name: str
    equalize: bool = False
    ranges: str = "minmax"
    rounding: str = "nearest"


WAYS = (
    Way("litert-quantizer, min/max"),
    Way("equalized", equalize=True),
    Way("percentile", ranges="percentile"),
    Way("mse", ranges="mse"),
    Way("bias corrected", rounding="bias"),
    Way("learnt", rounding="learnt"),
    Way("learnt, equalized", equalize=True, rounding="learnt"),
    Way("learnt, mse", ranges="mse", rounding="learnt"),
    Way("learnt, equalized, mse", equalize=True, ranges="mse", rounding="learnt"),
)
SHORT = (WAYS[0], WAYS[5], WAYS[6])


@dataclass(frozen=True)
class Subject:
    """A float network with one head that ends in logits. ``calibration``, ``held_out``: as its ``image`` takes them."""

    keras_model: Any
    merged: MergedModel
    float_model: bytes
    calibration: np.ndarray
    held_out: np.ndarray

    def logits(self, backbone: Part, head: Part) -> np.ndarray:
        return answers(backbone, {HEAD: _without_softmax(head)}, self.held_out)[HEAD]


def main() -> int:
    parser = argparse.ArgumentParser(description="SNR and agreement of every way to quantize, on the same pictures.")
    parser.add_argument(
        "--write", type=Path, default=ROOT / "build" / "quantization", help="name of the files, no suffix"
    )
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--curve", action="store_true", help="how many pictures are needed, too")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.subjects:
        subject = make_subject(name)
        found[name] = dict(_rows(subject, WAYS if name == "lite0" else SHORT, name))
        if arguments.curve and name == "lite0":
            found["pictures"] = dict(_curve(subject))
            found["halves"] = _halves(subject)
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    arguments.write.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    arguments.write.with_suffix(".md").write_text(table(found), "utf-8")
    plot(found, arguments.write.with_suffix(".png"))
    return 0


def make_subject(name: str) -> Subject:
    model = efficientnet_lite0(224, include_top=True)
    if name == "ill":
        spoil(model)
    (classifier,) = as_classifiers({HEAD: model}, [f"class {i}" for i in range(model.output_shape[-1])])
    merged = merge([classifier], find_backbone([classifier]))
    spec = ImageInput(224, 224)
    folder = ROOT / "calibration_data"
    held_out = find_pictures(folder / "held_out", [])
    known = {picture.digest for picture in held_out}
    calibration = draw_evenly([p for p in find_pictures(folder, []) if p.digest not in known], CALIBRATION)
    sets = [read_samples(pictures, spec, folder) for pictures in (calibration, held_out)]
    images = [merged.entry.device_input(found.tensors) for found in sets]
    return Subject(model, merged, convert(merged), *images)


def spoil(model: Any) -> None:
    """The same function, ill-conditioned: channels of every linear bottleneck scaled by powers of two, 2^-6 to 2^6, and
    scaled back in the layers that read them. Bottlenecks that a residual joins are scaled alike.
    """
    powers: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(0)
    previous: np.ndarray | None = None
    blocks = sorted({int(layer.name.split("_")[0][5:]) for layer in model.layers if layer.name.startswith("block")})
    names = {layer.name for layer in model.layers}
    for block in blocks:
        if previous is not None:
            _scale_kernel(model.get_layer(f"block{block}_expand"), 1 / previous)
        norm = model.get_layer(f"block{block}_project_bn")
        if f"block{block}_add" not in names:
            powers[block] = 2.0 ** rng.integers(-POWERS, POWERS + 1, len(norm.get_weights()[0]))
            previous = powers[block]
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * previous, beta * previous, mean, variance])
    assert previous is not None
    _scale_kernel(model.get_layer("top"), 1 / previous)


def _scale_kernel(layer: Any, scale: np.ndarray) -> None:
    (kernel,) = layer.get_weights()
    layer.set_weights([kernel * scale[:, None]])


def quantized(subject: Subject, way: Way, images: np.ndarray) -> dict[str, Part]:
    """Backbone and head in int8, calibrated on ``images``."""
    model = equalized(subject.float_model, images[:64]) if way.equalize else subject.float_model
    ranges: Mapping[str, Range] = measure_ranges(model, images, [HEAD], estimate=way.ranges)
    parts = read_parts(quantize(model, pin(model, ranges, subject.merged.entry.input_range)))
    if way.rounding != "nearest":
        round_parts(read_parts(model), parts, images, bias_only=way.rounding == "bias")
    return parts


def _rows(subject: Subject, ways: tuple[Way, ...], name: str) -> Iterator[tuple[str, Any]]:
    truth = subject.logits(*read_parts(subject.float_model).values())
    original = subject.keras_model.predict(subject.held_out, verbose=0)
    apart = float(np.abs(np.exp(log_softmax(truth.astype(float))) - original).max())
    print(f"{name}: float file and Keras are {apart:.1g} apart", flush=True)
    row = _judged(truth, partial(_by_tensorflow, subject))
    print(name, "TensorFlow's converter", row, flush=True)
    yield "TensorFlow's converter", row
    for way in ways:
        row = _judged(truth, partial(_run, subject, way, subject.calibration))
        print(name, way.name, row, flush=True)
        yield way.name, row


def _judged(truth: np.ndarray, run: Callable[[], tuple[np.ndarray, float | None]]) -> dict[str, Any]:
    start = time.perf_counter()
    found, latency = run()
    seconds = time.perf_counter() - start
    agreement = float(np.mean(found.argmax(1) == truth.argmax(1)))
    return {
        "snr_db": round(snr_db(truth, found), 2),
        "agreement": round(agreement, 4),
        "seconds": round(seconds, 1),
        "backbone_ms": latency and round(latency, 2),
    }


def _run(subject: Subject, way: Way, images: np.ndarray) -> tuple[np.ndarray, float]:
    parts = quantized(subject, way, images)
    return subject.logits(parts[BACKBONE], parts[HEAD]), backbone_ms(parts[BACKBONE])[0]


def _by_tensorflow(subject: Subject) -> tuple[np.ndarray, None]:
    """The whole network up to its logits by the converter, int8 in and out."""
    model = subject.keras_model
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
    return np.stack(rows), None


def _curve(subject: Subject) -> Iterator[tuple[str, Any]]:
    """How many pictures are needed, by the project's own way."""
    truth = subject.logits(*read_parts(subject.float_model).values())
    for count in CURVE:
        yield str(count), _judged(truth, partial(_run, subject, WAYS[6], subject.calibration[:count]))


def _halves(subject: Subject) -> dict[str, float]:
    """Files from two halves of the pictures against each other, and each against float: SNR of the logits in dB."""
    truth = subject.logits(*read_parts(subject.float_model).values())
    found = [_run(subject, WAYS[6], subject.calibration[half::2])[0] for half in (0, 1)]
    pairs = {"first": (truth, found[0]), "second": (truth, found[1]), "each other": (found[0], found[1])}
    return {name: round(snr_db(*pair), 2) for name, pair in pairs.items()}


def _without_softmax(head: Part) -> Part:
    return replace(head, operators=head.operators[:-1], outputs={"scores": head.operators[-1].inputs[0]})


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """For each subject SNR of the logits and top-1 agreement of every way."""
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
