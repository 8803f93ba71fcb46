"""Measure each variant in a process of its own, so that it does not use the memory and caches of another.

    python -m benchmarks.measure first VARIANT HEADS FOLDER one|all      time and memory up to the first answer
    python -m benchmarks.measure steady VARIANTS HEADS FOLDER ROUNDS THREADS SEED   prepared pictures, in turns

Each prints one line of JSON. Memory is read from ``/proc/self/status`` (Linux).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.variants import INTERPRETER, PICTURES, open_variant, paths
from edge_runtime.interpreter import find_interpreter

SLOW_MS = 100.0  # a slower task runs in one of SLOW_EVERY rounds only
SLOW_EVERY = 10
_FIRST_THREADS = 1


def first_answer(variant: str, heads: int, folder: Path, which: str) -> dict[str, float]:
    """Open the variant and classify one picture: milliseconds, and growth of resident memory in KiB.

    Where files are separate and one head is asked, only the file of this head is opened.
    """
    image = np.load(folder / PICTURES)[:1]
    files = paths(folder, variant, heads)[: 1 if which == "one" else None]
    find_interpreter(INTERPRETER)  # imports are not measured
    before = memory_kib()
    start = time.perf_counter()
    opened = open_variant(variant, files, num_threads=_FIRST_THREADS)
    ready = time.perf_counter()
    answer = opened.one if which == "one" else opened.all
    answer(image)
    end = time.perf_counter()
    after = memory_kib()
    return {
        "open_ms": (ready - start) * 1000,
        "first_answer_ms": (end - start) * 1000,
        "resident_kib": after["VmRSS"] - before["VmRSS"],
        "peak_kib": after["VmHWM"] - before["VmRSS"],
    }


def memory_kib() -> dict[str, int]:
    """VmRSS, the memory that is resident now, and VmHWM, its peak."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}


def steady(variants: list[str], heads: int, folder: Path, rounds: int, num_threads: int, seed: int) -> dict[str, Any]:
    """Milliseconds of each task in the rounds in which it ran: ``{task: [[round, ms], ...]}``.

    ``bare`` is among the tasks. The order is drawn for each round.
    """
    pictures = np.load(folder / PICTURES)[:, None]
    tasks: dict[str, Callable[[np.ndarray], object]] = {}
    for variant in ("bare", *variants):
        opened = open_variant(variant, paths(folder, variant, heads), num_threads=num_threads)
        if variant == "bare":
            tasks["bare"] = opened.one
        else:
            tasks |= {f"{variant}.one": opened.one, f"{variant}.all": opened.all}
    return take_turns(tasks, pictures, rounds, random.Random(seed))


def take_turns(
    tasks: dict[str, Callable[[np.ndarray], object]], pictures: np.ndarray, rounds: int, order: random.Random
) -> dict[str, list[tuple[int, float]]]:
    """Each call that is timed follows a call of the same task that is not, so that caches are filled as with a camera.

    A slow task fills the caches by itself, so it needs no such call.
    """
    for run in tasks.values():
        run(pictures[0])  # allocates tensors and packs weights
    slow = {name for name, run in tasks.items() if timed(run, pictures[0]) > SLOW_MS}
    times: dict[str, list[tuple[int, float]]] = {name: [] for name in tasks}
    for number in range(rounds):
        picture = pictures[number % len(pictures)]
        names = [name for name in tasks if name not in slow or number % SLOW_EVERY == 0]
        for name in order.sample(names, len(names)):
            if name not in slow:
                tasks[name](picture)
            times[name].append((number, timed(tasks[name], picture)))
    return times


def timed(run: Callable[[np.ndarray], object], picture: np.ndarray) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    run(picture)
    return (time.perf_counter() - start) * 1000


def main(arguments: list[str]) -> None:
    if arguments[0] == "first":
        _, variant, heads, folder, which = arguments
        print(json.dumps(first_answer(variant, int(heads), Path(folder), which)))
    else:
        _, variants, heads, folder, rounds, threads, seed = arguments
        numbers = int(heads), Path(folder), int(rounds), int(threads), int(seed)
        print(json.dumps(steady([v for v in variants.split(",") if v], *numbers)))


if __name__ == "__main__":
    main(sys.argv[1:])
