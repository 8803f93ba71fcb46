"""Measure one picture from a cold start: ``python -m benchmarks.cold_start build/demo.tflite PICTURE``.

It is compared with a script that does the same with the bare interpreter: it reads the labels from the file, prepares the
picture and prints the best labels of each head. The programs take turns, each in a new process. Imports are measured too.
Processor time is given beside wall time, because other work on the machine lengthens wall time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import click
import numpy as np

BARE = """
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

path, picture = sys.argv[1:]
interpreter = Interpreter(path)
runner = interpreter.get_signature_runner("serving_default")
_, height, width, _ = runner.get_input_details()["image"]["shape"]
with Image.open(picture) as image:
    pixels = np.asarray(image.convert("RGB").resize((int(width), int(height)), Image.Resampling.BILINEAR))
scores = runner(image=pixels[None])
print(picture)
with zipfile.ZipFile(path) as members:
    for name, found in scores.items():
        if name != "joint":
            labels = members.read(f"labels/{name}.txt").decode().splitlines()
            details = runner.get_output_details()[name]["quantization"]
            best = found[0].argsort()[::-1][:5]
            said = ", ".join(f"{labels[i]} {(int(found[0][i]) - details[1]) * details[0]:.2f}" for i in best)
            print(f"  {name}: {said}")
"""
_IMPORTS = {"import numpy": "import numpy", "import edge_runtime": "import numpy, edge_runtime"}
_ENGINE = "from edge_runtime import MultiHeadClassifier"


def commands(file: str, picture: str) -> dict[str, list[str]]:
    """The commands that are compared, by name."""
    python = sys.executable
    found = {name: [python, "-c", code] for name, code in _IMPORTS.items()}
    return {
        **found,
        _ENGINE: [python, "-c", f"import numpy; {_ENGINE}"],
        "bare script": [python, "-c", BARE, file, picture],
        "edge-runtime classify": [python, "-m", "edge_runtime", "classify", file, picture],
    }


def once(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Milliseconds of a new process: wall time and processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def measure(file: str, picture: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of ``rounds`` rounds. A round before them compiles every module, as an installation does."""
    todo = commands(file, picture)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):
            for name, command in todo.items():
                found = once(command, environment)
                if number:
                    times[name].append(found)
    return {
        name: dict(zip(("ms", "cpu_ms"), np.median(found, axis=0).tolist(), strict=True)) for name, found in times.items()
    }


def lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The table, ready for the docs."""
    rows = [f"| {name} | {row['ms']:.0f} | {row['cpu_ms']:.0f} |" for name, row in found.items()]
    ratios = [found["edge-runtime classify"][key] / found["bare script"][key] for key in ("ms", "cpu_ms")]
    return ["| | ms | processor, ms |", "| --- | ---: | ---: |", *rows, f"| ratio | {ratios[0]:.2f} | {ratios[1]:.2f} |"]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("picture", type=click.Path(exists=True, dir_okay=False))
@click.option("--rounds", type=click.IntRange(1), default=21)
@click.option("--json", "as_json", is_flag=True)
def main(file: str, picture: str, rounds: int, as_json: bool) -> None:
    """Measure one picture from a cold start."""
    found = measure(file, picture, rounds)
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
