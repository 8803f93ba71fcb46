"""Check which kinds of file of which architectures are read, and compare the results with the originals: ``make compat``.

For every architecture of ``keras.applications`` and ``tf_keras.applications``, with seeded weights, another process saves
two classifiers of 5 and 3 labels on one base as every kind of file, with their answers to 32 pictures. Here the files
are read, and the classifiers are split, matched and converted. Their answers are compared with the originals'::

    python -m benchmarks.compat                 # all of it: some minutes for each architecture
    python -m benchmarks.compat --read-only     # only read, and rebuild as a Keras 3 model

The table is ``compat.md`` and ``compat.json`` in the output folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.compat_files import ARCHITECTURES, HEADS, WRITERS, size_of

PICTURES = 32
CALIBRATION = Path(__file__).parent.parent / "calibration_data"


@dataclass(frozen=True)
class Row:
    """One kind of file of one architecture.

    ``difference``: the largest of any probability of both classifiers. ``read_ms``: time to read the quicker of two
    files.
    """

    architecture: str
    framework: str
    kind: str
    size: int  # pixels a side
    read_ms: float
    difference: float | None
    shared: bool | None = None  # whether the builder built one file of both; None: not tried
    error: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/compat"))
    parser.add_argument("--only", nargs="*", choices=tuple(ARCHITECTURES), default=tuple(ARCHITECTURES))
    parser.add_argument("--read-only", action="store_true", help="read and rebuild only; do not split and convert")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for architecture in options.only:
        for framework in WRITERS:
            folder = options.output / f"{architecture}-{framework}"
            rows += measure(architecture, framework, folder, read_only=options.read_only)
            shutil.rmtree(folder, ignore_errors=True)
            write_table(rows, options.output)
    print((options.output / "compat.md").read_text("utf-8"))
    return int(any(row.error for row in rows))


def measure(architecture: str, framework: str, folder: Path, *, read_only: bool) -> list[Row]:
    """A row for each kind of file of one architecture."""
    size = size_of(architecture)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pictures.npy", load_pictures(size))
    command = [sys.executable, "-m", "benchmarks.compat_files", architecture, framework, str(folder)]
    written = subprocess.run(command, capture_output=True, text=True, check=False)
    if written.returncode:
        reason = written.stderr.strip().splitlines()[-1][:200]
        return [Row(architecture, framework, "all", size, 0, None, error=f"not written: {reason}")]
    return [_row(architecture, framework, kind, size, folder, read_only) for kind in WRITERS[framework]]


def _row(architecture: str, framework: str, kind: str, size: int, folder: Path, read_only: bool) -> Row:
    from builder.support.errors import BuilderError

    try:
        difference, taken = read_difference(folder, kind)
        shared = None
        if not read_only:
            difference = max(difference, build_difference(architecture, folder, kind))
            shared = True
    except BuilderError as error:
        return Row(architecture, framework, kind, size, 0, None, False, str(error)[:300])
    return Row(architecture, framework, kind, size, round(taken * 1000, 1), difference, shared)


def read_difference(folder: Path, kind: str) -> tuple[float, float]:
    """The largest difference between the original and a model rebuilt by Keras 3; and the seconds to read one file."""
    from builder.reading.formats import read_model
    from builder.reading.formats.rebuild import rebuild

    inputs, worst, taken = np.load(folder / "inputs.npy"), 0.0, []
    for name in HEADS:
        path = folder / f"{name}{kind}"
        start = time.perf_counter()
        stored = read_model(path)
        taken.append(time.perf_counter() - start)
        model = rebuild(stored.definition, stored.weights, path)
        answers = np.asarray(model(inputs, training=False))
        worst = max(worst, float(np.max(np.abs(answers - np.load(folder / f"{name}.npy")))))
    return worst, min(taken)


def build_difference(architecture: str, folder: Path, kind: str) -> float:
    """The largest difference between the originals and the merged float model from which the builder made the file."""
    import keras

    from builder import BuildConfig, HeadConfig, build
    from builder.settings.input_scaling import parse_preprocessing

    preprocessing = parse_preprocessing(ARCHITECTURES[architecture].preprocessing, architecture)
    heads = tuple(
        HeadConfig(name, folder / f"{name}{kind}", tuple(f"{name} {i}" for i in range(labels)), preprocessing)
        for name, labels in HEADS.items()
    )
    merged = folder / "merged.keras"
    build(
        BuildConfig(
            output=folder / "all.tflite",
            calibration_data=CALIBRATION,
            heads=heads,
            min_agreement=0.0,
            keras_output=merged,
            rounding="nearest",
        )
    )
    answers = keras.saving.load_model(merged).predict(np.load(folder / "pictures.npy"), batch_size=PICTURES, verbose=0)
    return max(float(np.max(np.abs(answers[name] - np.load(folder / f"{name}.npy")))) for name in HEADS)


def load_pictures(size: int) -> np.ndarray:
    """Pixels 0..255, float32 (pictures, size, size, 3), of pictures drawn evenly from the calibration data."""
    files = sorted(CALIBRATION.rglob("*.jpg"))
    chosen = files[:: max(1, len(files) // PICTURES)][:PICTURES]
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((size, size)), np.float32) for file in chosen])


def write_table(rows: Sequence[Row], output: Path) -> None:
    """Write ``compat.json`` and ``compat.md``."""
    (output / "compat.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    lines = [
        "| architecture | input | saved by | file | read, ms | largest difference of a probability | built |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        difference = row.error or f"{row.difference:.1e}"
        built = {True: "yes", False: "no", None: "not tried"}[row.shared]
        cells = (row.architecture, row.size, row.framework, row.kind, f"{row.read_ms:.0f}", difference, built)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    (output / "compat.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
