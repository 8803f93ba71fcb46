"""Measure the cost of adding a head to a finished file: ``python -m benchmarks.add_head``.

A file of 200 EfficientNetB0 heads is built. Two processes then take turns: one imports TensorFlow and loads one more
model with Keras, which nobody can avoid; the other adds that model to the file (40 pictures, 8 of them held out).
Removing and renaming a head, making a head pack, and an answer from a pack and from the file are measured too. Writes
``add_head.json`` and ``add_head.md``.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.bench import ROOT, machine, run_child
from benchmarks.growth import KINDS, LABELS, PICTURES, build_many, make_files, model_path, peak_gb
from builder.support.lean_keras import spare_keras
from builder.support.progress import Stages
from builder.support.quiet import terminal

ROUNDS = 5
ANSWERS = 200


def load(kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Import TensorFlow and load model number ``count``, which cannot be avoided."""
    start = time.perf_counter()
    import keras

    imported = time.perf_counter()
    keras.saving.load_model(model_path(folder, count), compile=False)
    return {"import": imported - start, "load": time.perf_counter() - imported}


def add(kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Add model number ``count`` to the file of ``count`` heads, as the command does."""
    start = time.perf_counter()
    spare_keras()
    from builder.growing import grow

    change = grow.add_head(_config(kind, count, folder, "added.tflite"))
    return {
        "seconds": time.perf_counter() - start,
        "stages": change.seconds,
        "peak_gb": peak_gb(),
        "grown_by": change.file_bytes - _file(folder, count).stat().st_size,
    }


def change(kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Rename a head and remove one, without TensorFlow; seconds of each."""
    start = time.perf_counter()
    from builder.growing.change import InPlace, remove_head, rename_head

    imported, place = time.perf_counter(), InPlace(_file(folder, count), folder / "out" / "changed.tflite")
    rename_head(place, "head_0003", "another")
    renamed = time.perf_counter()
    remove_head(place, "head_0003")
    seconds = {"import": imported - start, "rename": renamed - imported, "remove": time.perf_counter() - renamed}
    return {**seconds, "tensorflow": "tensorflow" in sys.modules}


def pack(kind: str, count: int, folder: Path) -> dict[str, Any]:
    """Bytes of the pack of model number ``count``; median microseconds of an answer from it and from the file."""
    from builder.growing import grow
    from edge_runtime import MultiHeadClassifier

    built = grow.build_head(_config(kind, count, folder, "more.head.tflite"))
    times: dict[str, list[float]] = {"more": [], "head_0003": []}
    with MultiHeadClassifier(_file(folder, count), head_packs=[built.output]) as classifier:
        features = classifier.features(np.zeros((KINDS[kind], KINDS[kind], 3), np.uint8))
        for _ in range(ANSWERS):
            for name, found in times.items():
                start = time.perf_counter()
                classifier.head_scores(features, name)
                found.append((time.perf_counter() - start) * 1e6)
    return {"bytes": built.file_bytes, **{name: float(np.median(found)) for name, found in times.items()}}


def _file(folder: Path, count: int) -> Path:
    return folder / "out" / f"{count}.tflite"


def _config(kind: str, count: int, folder: Path, output: str) -> Any:
    from builder.settings.growing import GrowConfig
    from builder.settings.heads import HeadConfig
    from builder.settings.input_scaling import PREPROCESSING

    pixels = PREPROCESSING["tf"] if kind == "small" else None
    head = HeadConfig("more", model_path(folder, count), LABELS, pixels)
    out, pictures = folder / "out" / output, folder / "pictures"
    return GrowConfig(_file(folder, count), out, calibration_data=pictures, head=head, min_agreement=0.0)


def measure(kind: str, heads: int, output: Path, stages: Stages) -> dict[str, Any]:
    """All measurements, as written to ``add_head.json``."""
    folder = output / f"add_head_{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures" / "any").mkdir(parents=True)
    for i, path in enumerate(sorted((ROOT / "calibration_data").glob("*/*/*.jpg"))[:: 604 // PICTURES][:PICTURES]):
        shutil.copyfile(path, folder / "pictures" / "any" / f"{i:03d}.jpg")
    with stages("files"):
        run_child("benchmarks.add_head", "files", kind, heads + 1, folder)
    with stages("build"):
        run_child("benchmarks.add_head", "build", kind, heads, folder)
    rounds: dict[str, list[Any]] = {"load": [], "add": [], "change": []}
    with stages("rounds", ROUNDS * len(rounds)) as advance:
        for _ in range(ROUNDS):
            for name, found in rounds.items():
                found.append(run_child("benchmarks.add_head", name, kind, heads, folder))
                advance()
    packed = run_child("benchmarks.add_head", "pack", kind, heads, folder)
    shutil.rmtree(folder)
    return {"machine": machine(), "kind": kind, "heads": heads, "rounds": rounds, "pack": packed}


def markdown(results: Mapping[str, Any]) -> str:
    """The medians, ready for the docs."""
    rounds, packed, load_average = results["rounds"], results["pack"], results["machine"]["load_average"]

    def median(name: str, *keys: str) -> float:
        return float(np.median([sum(row[key] for key in keys) for row in rounds[name]]))

    spread = sorted(row["seconds"] for row in rounds["add"])
    stages = rounds["add"][0]["stages"]
    parts = {stage: float(np.median([row["stages"][stage] for row in rounds["add"]])) for stage in stages}
    beyond = median("add", "seconds") - median("load", "import", "load")
    lines = [
        f"{results['heads']} {results['kind']} heads, medians of {ROUNDS} rounds; load average {load_average}.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| import TensorFlow, load the model with Keras | {median('load', 'import', 'load'):.2f} s |",
        f"| add the head, in all | {median('add', 'seconds'):.2f} s ({spread[0]:.2f} to {spread[-1]:.2f}) |",
        f"| of that beyond import and loading | {beyond:.2f} s |",
        f"| by stage: {', '.join(f'{stage} {value:.2f}' for stage, value in parts.items())} | |",
        f"| peak memory | {max(row['peak_gb'] for row in rounds['add']):.2f} GB |",
        f"| the file grows by | {rounds['add'][0]['grown_by']:,} bytes |",
        f"| rename, without TensorFlow | {median('change', 'rename'):.2f} s |",
        f"| remove | {median('change', 'remove'):.2f} s |",
        f"| head pack | {packed['bytes']:,} bytes |",
        f"| an answer from the pack, from the file | {packed['more']:.0f}, {packed['head_0003']:.0f} us |",
    ]
    return "\n".join(lines) + "\n"


CHILDREN: dict[str, Callable[[str, int, Path], Any]] = {
    "files": make_files,
    "build": build_many,
    "load": load,
    "add": add,
    "change": change,
    "pack": pack,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--quick", is_flag=True, help="A few small files: for a first look.")
def main(output: Path, quick: bool) -> None:
    """Measure the cost of one more head in a finished file."""
    with terminal() as stream:
        results = measure(*(("small", 5) if quick else ("efficientnetb0", 200)), output, Stages(stream))
    text = markdown(results)
    (output / "add_head.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (output / "add_head.md").write_text(text, "utf-8")
    click.echo(text)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        print(json.dumps(CHILDREN[sys.argv[1]](sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()
