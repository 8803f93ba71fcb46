"""Measure what the runtime adds to an installation, to imports, to the time of a first answer, and to memory.

    python -m benchmarks.lean build/demo.tflite calibration_data/held_out/things/vehicle/truck__1.jpg
    python -m benchmarks.lean build/demo.tflite PICTURE --rounds 40 --output build/lean.json --no-install

Every time is measured in a new process; the programs take turns. The wheel of this checkout is installed into a new
environment, from wheels only, as without a compiler. For the comparison, the bare interpreter opens the same file,
prepares the same picture with Pillow, and runs the backbone and the heads by their signatures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.summary import Target, at_most
from edge_runtime.interpreter import find_interpreter

OURS = ("polyhead", "numpy", "pillow", "click")
IMPORTS = {
    "nothing": "pass",
    "numpy and Pillow": "import numpy, PIL.Image",
    "edge_runtime": "import edge_runtime",
    "edge_runtime.cli": "import edge_runtime.cli",
}
# Bytes of all files of each distribution, by its name in lower case.
_SIZES = """
import importlib.metadata as m, json, os
def size(paths):
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
print(json.dumps({d.metadata["Name"].lower(): size(map(d.locate_file, d.files or ())) for d in m.distributions()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("picture")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {"import": imports(options.rounds)}
    document["first_answer"] = first_answers(options.file, options.picture, options.rounds)
    if not options.no_install:
        document["installed_mb"] = installed()
    document["targets"] = [asdict(target) for target in targets(document)]
    text = json.dumps(document, indent=1)
    if options.output:
        options.output.write_text(text, "utf-8")
    print(text)


def imports(rounds: int) -> dict[str, Any]:
    """Milliseconds of a process that imports and ends, the start of Python included, and the number of its modules."""
    times = in_turns({name: partial(timed, program) for name, program in IMPORTS.items()}, rounds)
    counted = {name: int(_python("-c", f"{p}; import sys; print(len(sys.modules))")) for name, p in IMPORTS.items()}
    return {name: {"ms": _middle(times[name]), "modules": counted[name]} for name in IMPORTS}


def first_answers(file: str, picture: str, rounds: int) -> dict[str, Any]:
    """Milliseconds to the first answer and resident MB, of the bare interpreter and of the runtime."""
    name = find_interpreter()[0]
    found = in_turns(
        {which: partial(_first_answer, which, file, picture, name) for which in ("bare", "polyhead")}, rounds
    )
    pairs = list(zip(found["polyhead"], found["bare"], strict=True))
    middle = {which: {key: _middle([r[key] for r in runs]) for key in runs[0]} for which, runs in found.items()}
    ratios = {f"{key}_ratio": _middle([ours[key] / bare[key] for ours, bare in pairs]) for key in ("ms", "cpu_ms")}
    return {"interpreter": name, **middle, **ratios}


def _first_answer(*arguments: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(_python("-m", "benchmarks.lean_child", *arguments))
    return found


def installed() -> dict[str, float]:
    """MB by distribution in a new environment. Fails where a package would have to be compiled."""
    with tempfile.TemporaryDirectory() as scratch:
        python = f"{scratch}/env/bin/python"
        _python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, ".")
        (wheel,) = Path(scratch).glob("*.whl")
        _python("-m", "venv", f"{scratch}/env")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", str(wheel)], check=True)
        sizes = json.loads(subprocess.run([python, "-c", _SIZES], check=True, capture_output=True, text=True).stdout)
    return {name: round(size / 1e6, 2) for name, size in sorted(sizes.items()) if name not in ("pip", "setuptools")}


def targets(document: Mapping[str, Any]) -> list[Target]:
    first = document["first_answer"]
    found = [
        at_most("import edge_runtime, ms", document["import"]["edge_runtime"]["ms"], 150),
        at_most("open to first answer, of the bare interpreter's", first["ms_ratio"], 1.2),
        at_most("resident memory above it, MB", first["polyhead"]["resident_mb"] - first["bare"]["resident_mb"], 12),
    ]
    if "installed_mb" in document:
        found.append(at_most("installed without the interpreter, MB", sum(map(document["installed_mb"].get, OURS)), 15))
    return found


def in_turns(tasks: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """The results of each task, one for each round. The first round fills the caches and does not count."""
    found: dict[str, list[Any]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            result = task()
            if number:
                found[name].append(result)
    return found


def timed(program: str) -> float:
    start = time.perf_counter()
    _python("-c", program)
    return (time.perf_counter() - start) * 1000


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


if __name__ == "__main__":
    main()
