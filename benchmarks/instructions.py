"""Count the instructions of each part of a frame. Other work on the machine does not change this count.

    python -m benchmarks.instructions build/demo.tflite calibration_data/held_out/things/vehicle/truck__1.jpg

Valgrind counts them (``apt install valgrind``) for the processor that it emulates: x86-64 with AVX2 and nothing newer, or
ARMv8.0. A process opens the file, runs every part once, and forks two children for each part. One child runs the part
once, the other ``1 + REPEATS`` times; the difference belongs to the part. From opening to the first answer is counted in
the same way, and for the bare interpreter too (``benchmarks.lean_child``).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.lean_child import bare, polyhead
from edge_runtime import MultiHeadClassifier
from edge_runtime.benchmark import Part
from edge_runtime.inputs import picture_input
from edge_runtime.profiling import prepare_parts, scene, step_parts

REPEATS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("picture")
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)  # this is the process under valgrind
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.counted:
        run_counted(options.file, options.picture)
        return
    text = json.dumps(measure(options.file, options.picture), indent=1)
    if options.output:
        options.output.write_text(text, "utf-8")
    print(text)


def measure(file: str, picture: str) -> dict[str, Any]:
    """Millions of instructions by the name of the part."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed; it counts the instructions: apt install valgrind")
    with tempfile.TemporaryDirectory() as scratch:
        tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        program = [sys.executable, "-m", "benchmarks.instructions", file, picture, "--counted"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [*tool, f"--log-file={scratch}/%p", *program], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        document = json.loads(done.stdout)
        counts = {path.name: _count(path) for path in Path(scratch).iterdir()}
    parts = {n: (counts[many] - counts[one]) / REPEATS / 1e6 for n, (one, many) in document["pids"].items()}
    return {"interpreter": document["interpreter"], "millions": {name: round(value, 3) for name, value in parts.items()}}


def run_counted(file: str, picture: str) -> None:
    """Prints the process ids of the two children of each part."""
    with MultiHeadClassifier(file, num_threads=1) as classifier:
        name = classifier.interpreter_name
        parts: dict[str, Part] = {
            **prepare_parts(picture_input(classifier.metadata.input)),
            **step_parts(classifier),
            **_heads(classifier),
        }
        parts["open to first answer, bare interpreter"] = bare(file, picture, name)
        parts["open to first answer"] = polyhead(file, picture, name)
        for part in parts.values():
            part()
        gc.disable()
        pids = {name: (str(_forked(part, 1)), str(_forked(part, 1 + REPEATS))) for name, part in parts.items()}
        print(json.dumps({"interpreter": name, "pids": pids}))


def _heads(classifier: MultiHeadClassifier) -> dict[str, Part]:
    spec = picture_input(classifier.metadata.input)
    features = classifier.features(scene((spec.width, spec.height)))
    return {f"head {name}": partial(classifier.head_scores, features, name) for name in classifier.head_names}


def _forked(part: Part, times: int) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for _ in range(times):
            part()
        os._exit(0)
    os.waitpid(child, 0)
    return child


def _count(log: Path) -> int:
    found = re.search(r"I\s+refs:\s+([\d,]+)", log.read_text("utf-8", "replace"))
    if found is None:
        raise RuntimeError(f"valgrind wrote no count: {log.read_text('utf-8', 'replace')[-300:]}")
    return int(found[1].replace(",", ""))


if __name__ == "__main__":
    main()
