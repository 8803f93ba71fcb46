"""Measure the cost of a build against the number of classifiers: ``python -m benchmarks.growth``.

The model files share one base: 1, 10, 20, 50 and 200 EfficientNetB0 ``.keras`` files of 17 MB, and up to 1000 small ones.
Each build runs in a process of its own and is complete: reading the files, equivalence, conversion, rounding to nearest,
verification. For comparison, a few of the files are loaded with Keras and converted with TensorFlow's converter, one by
one. Writes ``growth.json``, ``growth.md`` and ``growth.png``.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np

from benchmarks.bench import ROOT, machine, run_child
from builder.support.progress import Stages
from builder.support.quiet import terminal

LABELS = ("first", "second", "third", "fourth", "fifth")
KINDS = {"efficientnetb0": 224, "small": 32}  # height and width
CURVES = {"efficientnetb0": (1, 10, 20, 50, 200), "small": (1, 100, 1000)}
PICTURES = 40
TODAY = 3  # files that are loaded and converted one by one; each of the others would take as long
_SEED = 7
_WEIGHTS = "model.weights.h5"


def make_files(kind: str, count: int, folder: Path) -> None:
    """Write ``count`` classifiers on one frozen base with seeded weights; only the weights of the last layer differ."""
    import keras

    keras.utils.set_random_seed(_SEED)
    rng, image = np.random.default_rng(_SEED), keras.Input((KINDS[kind], KINDS[kind], 3))
    base = _base(kind)
    base.trainable = False
    scores = keras.layers.Dense(len(LABELS), activation="softmax")
    model = keras.Sequential([image, base, keras.layers.Dropout(0.2), scores])
    model.save(folder / "first.keras")
    with zipfile.ZipFile(folder / "first.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # Saving 200 models with Keras takes minutes. The files differ in one dataset, so only this one is written again.
    for i in range(count):
        data = io.BytesIO(members[_WEIGHTS])
        with h5py.File(data, "r+") as file:
            kernel = file["layers/dense/vars/0"]
            kernel[...] = rng.normal(0, 1 / np.sqrt(kernel.shape[0]), kernel.shape).astype(np.float32)
        with zipfile.ZipFile(model_path(folder, i), "w") as archive:
            for name, content in {**members, _WEIGHTS: data.getvalue()}.items():
                archive.writestr(name, content)


def build_many(kind: str, count: int, folder: Path, rounding: str = "nearest") -> dict[str, Any]:
    """Build the first ``count`` files: seconds by stage, peak memory of the builder and of its largest child, bytes."""
    start = time.perf_counter()
    from builder import BuildConfig, HeadConfig, build
    from builder.settings.input_scaling import PREPROCESSING

    pixels = PREPROCESSING["tf"] if kind == "small" else None
    heads = tuple(HeadConfig(f"head_{i:04d}", model_path(folder, i), LABELS, pixels) for i in range(count))
    output = folder / "out" / f"{count}.tflite"
    config = BuildConfig(output, folder / "pictures", heads, min_agreement=0.0, rounding=rounding)
    result = build(config)
    return {
        "seconds": time.perf_counter() - start,
        "stages": dict(result.report.seconds),
        "peak_gb": peak_gb(),
        "originals_gb": _originals_gb(),
        "bytes": result.report.file_bytes,
    }


def build_today(kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Load each of the first ``count`` files with Keras and convert it to int8 with TensorFlow, one after the other."""
    start = time.perf_counter()
    import keras
    import tensorflow as tf

    imported, each, size = time.perf_counter() - start, [], 0
    samples = _prepared(kind, folder)
    for i in range(count):
        start = time.perf_counter()
        model = keras.saving.load_model(model_path(folder, i), compile=False)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        size += len(converter.convert())
        each.append(time.perf_counter() - start)
    return {"import": imported, "each": each, "peak_gb": peak_gb(), "bytes": size / count}


def _prepared(kind: str, folder: Path) -> np.ndarray:
    """The pictures as the models take them, float32 (pictures, height, width, 3)."""
    from PIL import Image

    side = KINDS[kind]
    pictures = [Image.open(path).convert("RGB").resize((side, side)) for path in sorted(folder.glob("pictures/any/*"))]
    pixels: np.ndarray = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    return (pixels / 127.5 - 1).astype(np.float32) if kind == "small" else pixels


def _base(kind: str) -> Any:
    import keras

    if kind == "efficientnetb0":
        return keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg")
    x = image = keras.Input((KINDS[kind], KINDS[kind], 3))
    for filters in (8, 16, 32):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def model_path(folder: Path, index: int) -> Path:
    """The path of one of the files that ``make_files`` writes."""
    return folder / f"{index:04d}.keras"


def peak_gb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _originals_gb() -> float:
    """Peak memory of the largest process that ran originals."""
    from builder.reading.originals.processes import end_all

    end_all()
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def measure(kinds: Mapping[str, tuple[int, ...]], output: Path, stages: Stages) -> dict[str, Any]:
    """All measurements, as written to ``growth.json``."""
    results: dict[str, Any] = {"machine": machine(), "kinds": {}}
    for kind, counts in kinds.items():
        folder = output / kind
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "pictures" / "any").mkdir(parents=True)
        for i, path in enumerate(sorted((ROOT / "calibration_data").glob("*/*/*.jpg"))[:: 604 // PICTURES][:PICTURES]):
            shutil.copyfile(path, folder / "pictures" / "any" / f"{i:03d}.jpg")
        with stages(f"{kind}: files"):
            run_child("benchmarks.growth", "files", kind, max(counts), folder)
        with stages(f"{kind}: builds", len(counts) + 1) as advance:
            rows = []
            for count in counts:
                rows.append({"files": count, **run_child("benchmarks.growth", "build", kind, count, folder)})
                advance()
            learnt = run_child("benchmarks.growth", "learnt", kind, max(counts), folder)
            today = run_child("benchmarks.growth", "today", kind, TODAY, folder)
            advance()
        results["kinds"][kind] = {"rows": rows, "learnt": learnt, "today": today}
        shutil.rmtree(folder)
    return results


def markdown(results: Mapping[str, Any]) -> str:
    """The curve as tables, ready for the docs."""
    told = results["machine"]
    versions = ", ".join(f"{name} {told[name]}" for name in ("tensorflow", "keras", "litert-quantizer"))
    text = [f"{told['processor']}, {told['cores']} cores; {versions}; load average at the start {told['load_average']}."]
    for kind, found in results["kinds"].items():
        each = float(np.median(found["today"]["each"]))
        text += [
            "",
            f"**{kind}**. One by one with Keras and TensorFlow's converter: {each:.1f} s and "
            f"{found['today']['bytes']:,.0f} bytes each (median of {TODAY}).",
            "",
            "| files | seconds | for each further file | peak memory | file | one by one (extrapolated) |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        before = None
        for row in found["rows"]:
            more = _further(before, row)
            text.append(
                f"| {row['files']} | {row['seconds']:.1f} | {'' if more is None else f'{more * 1000:.0f} ms'} | "
                f"{row['peak_gb']:.2f} GB | {row['bytes']:,} bytes | {each * row['files']:,.0f} s |"
            )
            before = row
        learnt = found["learnt"]
        count, own, others = found["rows"][-1]["files"], learnt["peak_gb"], learnt["originals_gb"]
        text += [
            "",
            f"With learnt rounding, the default, {count} files took {learnt['seconds']:.1f} s; the builder used at most "
            f"{own:.2f} GB, a process that runs originals {others:.2f} GB.",
        ]
    return "\n".join(text) + "\n"


def _further(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> float | None:
    """Seconds for each file more than in the row before."""
    return None if before is None else (row["seconds"] - before["seconds"]) / (row["files"] - before["files"])


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Plot seconds against the number of files, by stage, and the time of converting one by one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results["kinds"]), figsize=(11, 4.2), layout="constrained", squeeze=False)
    for axis, (kind, found) in zip(axes.flat, results["kinds"].items(), strict=True):
        files = [row["files"] for row in found["rows"]]
        names = list(found["rows"][-1]["stages"])
        floor = np.array([row["seconds"] - sum(row["stages"].values()) for row in found["rows"]])
        layers = [floor, *(np.array([row["stages"].get(name, 0.0) for row in found["rows"]]) for name in names)]
        axis.stackplot(files, layers, labels=["start", *names], colors=pyplot.get_cmap("tab20").colors)
        each = float(np.median(found["today"]["each"]))
        axis.plot(files, [each * n for n in files], color="black", linestyle="--", label="one by one (extrapolated)")
        axis.set(title=kind, xlabel="files", ylabel="seconds", ylim=(0, 1.4 * found["rows"][-1]["seconds"]))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside right center", reverse=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


CHILDREN: dict[str, Callable[[str, int, Path], Any]] = {
    "files": make_files,
    "build": build_many,
    "learnt": partial(build_many, rounding="learnt"),
    "today": build_today,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--quick", is_flag=True, help="A few small files: for a first look.")
def main(output: Path, quick: bool) -> None:
    """Measure how time and memory of a build grow with the number of classifiers."""
    kinds = {"small": (1, 5)} if quick else CURVES
    with terminal() as stream:
        results = measure(kinds, output, Stages(stream))
    text = markdown(results)
    (output / "growth.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (output / "growth.md").write_text(text, "utf-8")
    plot(results, output / "growth.png")
    click.echo(text)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        print(json.dumps(CHILDREN[sys.argv[1]](sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()
