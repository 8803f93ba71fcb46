"""Measure the accuracy of int8 on ImageNet pictures, by several methods.

    python -m benchmarks.imagenet --pictures DIR

``--network`` is EfficientNet-Lite0, Lite1 or Lite2 with the weights of their packages, MobileNetV2 1.0 or EfficientNet-B0
that others trained further and published in a package, or a Keras file. Where a network has other classes than the 1000,
a linear layer on its base learns Lite0's answers.

``DIR`` holds ``NNNN_name.jpg``, where NNNN is the class in the usual order. A hundred pictures, drawn evenly, are for
calibration. The others are held out, also where something else calibrates. Accuracies on pictures of the training set are
too high, so only the difference from float counts. Writes a table (.md), figures (.json) and a plot (.png) that also
shows published losses.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax

from benchmarks.imagenet_networks import network
from benchmarks.networks import ROOT, Subject
from benchmarks.quantization import CONVERTER, DEFAULT, Way, by_tensorflow, quantized
from builder.reporting.plots import BLUE, GREY, RED
from builder.support.interval import wilson_interval
from builder.tflite.flatbuffer import read_parts

CROP = 0.875  # of the short side, bicubic: as EfficientNet's own evaluation
CALIBRATION = 100
COUNTS = (10, 50, 100)
_NAME = re.compile(r"(\d{4})_.*\.jpe?g", re.IGNORECASE)
WAYS = (
    Way("litert-quantizer, min/max", algorithm="litert_minmax"),
    Way("litert-quantizer, OCTAV", algorithm="litert_octav"),
    replace(DEFAULT, name="polyhead, int8"),
    Way("polyhead, int8, --fast", equalize=True, ranges="mse"),
    Way("polyhead, dynamic", equalize=True, precision="dynamic"),
    replace(DEFAULT, name="polyhead, int16", precision="int16"),
    replace(DEFAULT, name="polyhead, weights", precision="weights"),
    Way("polyhead, float16", equalize=True, precision="float16"),
)
FEWER = (WAYS[0], WAYS[2])  # also calibrated on fewer pictures, and on other pictures


@dataclass(frozen=True)
class Anchor:
    """Top-1 in percent, float and int8, as published on all 50,000 validation pictures."""

    name: str
    floating: float
    int8: float
    source: str


ANCHORS = (
    Anchor("Google, Lite0", 75.1, 74.4, "github.com/tensorflow/tpu, models/official/efficientnet/lite/README.md"),
    Anchor("AIMET, Lite0 (TensorFlow)", 74.93, 74.99, "github.com/quic/aimet-model-zoo, README.md of AIMET 1.13"),
    Anchor("AIMET, Lite0 (PyTorch)", 75.42, 74.49, "github.com/quic/aimet-model-zoo, README.md of AIMET 1.13"),
)


@dataclass(frozen=True)
class Labelled:
    """``pixels``: uint8 (pictures, side, side, 3); ``classes``: int (pictures,)."""

    pixels: np.ndarray
    classes: np.ndarray


def picture_paths(folder: Path) -> list[Path]:
    """All pictures of ``folder``, in the order of their classes. Ends the program where there are too few."""
    paths = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    if len(paths) < 2 * CALIBRATION:
        sys.exit(f"{folder}: expected {2 * CALIBRATION} pictures NNNN_name.jpg or more, found {len(paths)}")
    return paths


def read_pictures(paths: Sequence[Path], side: int) -> Labelled:
    """The centre crop of each picture, as in EfficientNet's own evaluation."""
    classes = [int(path.name[:4]) for path in paths]
    return Labelled(np.stack([_cropped(path, side) for path in paths]), np.array(classes))


def _cropped(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as image:
        width, height = image.size
        edge = CROP * min(width, height)
        box = ((width - edge) / 2, (height - edge) / 2, (width + edge) / 2, (height + edge) / 2)
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, box))


def figures(truth: np.ndarray, found: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """The figures of one method. ``truth``, ``found``: logits (pictures, 1000) in float and from the file.

    ``ties``: pictures with several top labels; ``drift``: mean change of the probability of float's top label.
    """
    first, best = truth.argmax(1), found.max(1, keepdims=True)
    top = np.argsort(-found, axis=1, kind="stable")[:, :5]
    rows = np.arange(len(truth))
    drift = np.abs(softmax(truth, axis=1)[rows, first] - softmax(found, axis=1)[rows, first])
    counts = {
        "top1": int((top[:, 0] == classes).sum()),
        "top5": int((top == classes[:, None]).any(1).sum()),
        "agreement": int((top[:, 0] == first).sum()),
    }
    shares = {name: [count / len(truth), *wilson_interval(count, len(truth))] for name, count in counts.items()}
    more = {"drift": float(drift.mean()), "ties": int(((found == best).sum(1) > 1).sum()), "pictures": len(truth)}
    rounded = {name: [round(value, 4) for value in values] for name, values in shares.items()}
    return {**rounded, **more, "drift": round(more["drift"], 5)}


def measure(subject: Subject, pictures: Labelled, *, brief: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of each method. ``brief``: calibrate on the hundred pictures only."""
    enter, chosen = subject.merged.source_input.device_input, np.zeros(len(pictures.classes), bool)
    chosen[np.linspace(0, len(chosen) - 1, CALIBRATION).round().astype(int)] = True
    others, classes = subject.calibration, pictures.classes[~chosen]
    subject = replace(subject, calibration=enter(pictures.pixels[chosen]), held_out=enter(pictures.pixels[~chosen]))
    (head,) = subject.heads
    truth = subject.logits(read_parts(subject.float_model))[head]
    judge = partial(figures, truth, classes=classes)
    yield "float", judge(truth)
    if subject.whole is not None:
        yield CONVERTER, judge(by_tensorflow(subject)[head])
    for way in WAYS:
        yield way.name, judge(subject.logits(quantized(subject, way, subject.calibration)[1])[head])
    if brief:
        return
    sets = {f"{count} of them": subject.calibration[:: CALIBRATION // count] for count in COUNTS[:-1]}
    for named, images in {**sets, "the demo's pictures": others}.items():
        for way in FEWER:
            yield f"{way.name}, {named}", judge(subject.logits(quantized(subject, way, images)[1])[head])


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures with their 95 % intervals."""
    lines = [
        "| way | top-1 | top-5 | agreement with float | drift | ties |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        cells = [f"{row[key][0]:.4f} ({row[key][1]:.3f} to {row[key][2]:.3f})" for key in ("top1", "top5", "agreement")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['drift']:.4f} | {row['ties']} |")
    return "\n".join(lines) + "\n"


def plot(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Plot the points of top-1 lost against float: as measured here, and as published for other pictures."""
    from matplotlib import pyplot as plt

    ways = [name for name in rows if name != "float"]
    floating = rows["float"]["top1"][0]
    here = [100 * (floating - rows[name]["top1"][0]) for name in ways]
    there = [anchor.floating - anchor.int8 for anchor in ANCHORS]
    names = [*ways, *(f"published: {anchor.name}" for anchor in ANCHORS)]
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.34 * len(names)))
    colours = [BLUE if name.startswith("polyhead") else GREY for name in ways] + [RED] * len(there)
    axes.barh(range(len(names)), [*here, *there], color=colours)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"points of top-1 lost against float ({rows['float']['pictures']} pictures here, 50,000 published)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="NNNN_name.jpg")
    parser.add_argument("--network", default="lite0", help="lite0, lite1, lite2, mobilenet, b0, or a Keras file")
    parser.add_argument("--brief", action="store_true", help="calibrate on the hundred pictures only")
    parser.add_argument("--write", type=Path, default=ROOT / "build" / "imagenet", help="name of the files, no suffix")
    options = parser.parse_args()
    paths = picture_paths(options.pictures)
    subject = network(options.network, paths)
    side = subject.pixels.shape[1]
    rows: dict[str, dict[str, Any]] = {}
    options.write.parent.mkdir(parents=True, exist_ok=True)
    for name, found in measure(subject, read_pictures(paths, side), brief=options.brief):
        rows[name] = found
        print(name, found, flush=True)
        options.write.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    options.write.with_suffix(".md").write_text(table(rows), "utf-8")
    plot(rows, options.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
