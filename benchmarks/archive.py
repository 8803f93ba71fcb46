"""Measure ``builder score`` and ``evaluate`` on many samples: rows after a kill, memory, and speed beside a bare loop.

    .venv-cluster/bin/python -m benchmarks.archive million --file build/device-files/text.tflite
    .venv-cluster/bin/python -m benchmarks.archive memory --file build/device-files/joint.tflite
    .venv-cluster/bin/python -m benchmarks.archive speed --file build/demo.tflite --data calibration_data
    .venv-cluster/bin/python -m benchmarks.archive cost --file build/demo.tflite --data calibration_data

``million`` scores texts with a tiny file. All processes are killed at random moments (seeded), and ``--resume`` continues
the run until it ends; then the rows are counted. ``memory`` records the resident memory of the driver and of the workers
on 10,000 and on 100,000 small pictures: the median of the last tenth of the run. ``speed`` compares a bare loop over
``MultiHeadClassifier``, one worker, and two workers, in turns, without the time that Ray needs to start. ``cost``
compares the processor time of a bare loop and of a worker. Other work on the machine is in the figures: see ``load``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
from PIL import Image

from edge_runtime import MultiHeadClassifier
from edge_runtime.folders import pictures_in

psutil = importlib.import_module("psutil")  # which Ray brings along, once it is imported
assert ray.__version__

SCORE = (sys.executable, "-m", "builder", "score")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("million", "memory", "speed", "cost"))
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("calibration_data"))
    parser.add_argument("--folder", type=Path, default=Path("build/bench/archive"), help="For intermediate files.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    found = {"million": million, "memory": memory, "speed": speed, "cost": cost}[asked.what](asked)
    document = {
        "what": asked.what,
        "file": str(asked.file),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        **found,
    }
    (asked.folder.parent / f"archive-{asked.what}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))


def million(asked: argparse.Namespace) -> dict[str, Any]:
    table, output = asked.folder / "rows.parquet", asked.folder / "rows"
    if not table.exists():
        texts = [f"w{i % 7} w{i % 11} w{i % 13} {i}" for i in range(asked.rows)]
        pyarrow.parquet.write_table(pa.table({"text": texts}), table)
    command = [*SCORE, str(asked.file), "--data", str(table), "--column", "text", "--output", str(output), "--jobs", "2"]
    draw, kills, start = random.Random(asked.seed), [], time.perf_counter()
    for _ in range(2):
        running = subprocess.Popen([*command, *_resume(output)], start_new_session=True, stdout=subprocess.DEVNULL)
        while running.poll() is None and not list(output.glob("part-*")):
            time.sleep(0.5)
        time.sleep(draw.uniform(5, 40))
        for child in psutil.Process(running.pid).children(recursive=True):
            child.kill()
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        kills.append(len(list(output.glob("part-*"))))
    subprocess.run([*command, "--resume"], check=True)
    sources = pa.concat_tables(
        [pyarrow.parquet.read_table(p, columns=["source", "error"]) for p in output.glob("part-*")]
    )
    distinct = len(sources.column("source").unique())
    wanted = {f"{table}#{i}" for i in range(asked.rows)}
    missing = len(wanted.difference(sources.column("source").to_pylist()))
    errors = len(sources) - sources.column("error").null_count
    return {
        "rows": len(sources), "missing": missing, "twice": len(sources) - distinct, "errors": errors,
        "blocks_when_killed": kills, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def _resume(output: Path) -> list[str]:
    return ["--resume"] if (output / "score.json").exists() else []


def memory(asked: argparse.Namespace) -> dict[str, Any]:
    places = {}
    for count in (asked.pictures // 10, asked.pictures):
        places[count] = asked.folder / f"pictures-{count}"
        small_pictures(places[count], asked.file, count)
    found: dict[str, Any] = {}
    for count, place in places.items():
        output = asked.folder / f"scores-{count}-{time.time_ns()}"
        run = [*SCORE, str(asked.file), "--data", str(place), "--output", str(output), "--jobs", "2"]
        found[f"score, {count:,}"] = watched(run)
    for count, place in places.items():
        run = [
            sys.executable,
            "-m",
            "builder",
            "evaluate",
            str(asked.file),
            "--data",
            str(place),
            "--jobs",
            "2",
            "--report",
        ]
        found[f"evaluate, {count:,}"] = watched([*run, str(asked.folder / "report")])
    return {"MB": found}


def small_pictures(folder: Path, file: Path, count: int) -> None:
    """Write pictures of noise, 24 x 24, a thousand in each folder ``<head>/<label>/N``."""
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    with MultiHeadClassifier(file) as opened:
        places = [f"{head.head_name}/{label}" for head in opened.heads for label in head.labels]
    for start in range(0, count, 1000):
        place = folder / places[start // 1000 % len(places)] / f"{start // 1000:03d}"
        place.mkdir(parents=True)
        for i, pixels in enumerate(rng.integers(0, 256, (min(1000, count - start), 24, 24, 3), np.uint8)):
            Image.fromarray(pixels).save(place / f"{i:03d}.png", compress_level=0)


def watched(command: list[str]) -> dict[str, float]:
    """Resident MB of the process and of its largest worker: the median over the last tenth of their work."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    driver, rows = psutil.Process(running.pid), list[tuple[float, float]]()
    start = time.perf_counter()
    while running.poll() is None:
        try:
            workers = [p.memory_info().rss for p in driver.children(recursive=True) if _is_worker(p)]
            rows.append((driver.memory_info().rss / 1e6, max(workers, default=0) / 1e6))
        except psutil.Error:
            pass
        time.sleep(0.25)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {running.returncode}")
    working = [row for row in rows if row[1]]  # workers end before the page is made
    late = working[-max(len(working) // 10, 8) :]
    named = zip(("driver", "worker"), zip(*late, strict=True), strict=True)
    return {**{name: round(statistics.median(v), 1) for name, v in named}, "seconds": round(time.perf_counter() - start)}


def _is_worker(process: Any) -> bool:
    words = " ".join(process.cmdline())
    return ("ray::" in words and "Worker" in words) or "spawn_main" in words


def speed(asked: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second. The programs take turns, so that the load affects all of them."""
    paths = pictures_in(str(asked.data))
    ways: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare(asked.file, paths),
        "one worker": lambda: scored(asked, len(paths), 1),
        "two workers": lambda: scored(asked, len(paths), 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            rates[name].append(round(way(), 1))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "pictures": len(paths), "a second": rates,
        "one worker / bare loop": round(middle["one worker"] / middle["bare loop"], 3),
        "two workers / one": round(middle["two workers"] / middle["one worker"], 3),
    }  # fmt: skip


def cost(asked: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a processor for a picture, block by block in turns: other work on the machine is not in them."""
    from builder.scoring.output import write_part
    from builder.scoring.rows import Scorer, wanted_of
    from builder.scoring.samples import planned

    samples = list(planned(str(asked.data), texts=False))
    scorer = Scorer(str(asked.file), wanted_of(asked.file, (), joint=False, features=False))
    spent = {"bare loop": 0.0, "worker": 0.0}
    with MultiHeadClassifier(asked.file, num_threads=1) as opened:
        opened.classify(samples[0].source)
        scorer.table(samples[:1])
        for start in range(0, len(samples), 32):
            block = samples[start : start + 32]
            begin = time.process_time()
            for sample in block:
                opened.scores(opened.features(sample.source))
            middle = time.process_time()
            write_part(asked.folder, start, scorer.table(block))
            spent["bare loop"] += middle - begin
            spent["worker"] += time.process_time() - middle
    found = {name: round(1000 * seconds / len(samples), 2) for name, seconds in spent.items()}
    ratio = round(spent["bare loop"] / spent["worker"], 3)
    return {"pictures": len(samples), "processor ms a picture": found, "worker / bare loop": ratio}


def bare(file: Path, paths: list[str]) -> float:
    with MultiHeadClassifier(file, num_threads=1) as opened:
        opened.classify(paths[0])
        start = time.perf_counter()
        for path in paths:
            opened.scores(opened.features(path))
        return len(paths) / (time.perf_counter() - start)


def scored(asked: argparse.Namespace, count: int, jobs: int) -> float:
    """Pictures a second from the first finished block to the last one."""
    from builder.scoring.rows import wanted_of
    from builder.scoring.run import score

    output = asked.folder / f"speed-{time.time_ns()}"
    moments = list(_moments(score, asked, output, wanted_of(asked.file, (), joint=False, features=False), jobs))
    (first, before), (last, after) = moments[jobs - 1], moments[-1]
    return (after - before) / (last - first)


def _moments(score: Any, asked: argparse.Namespace, output: Path, wanted: Any, jobs: int) -> Iterator[tuple[float, int]]:
    seen: list[tuple[float, int]] = []
    score(
        asked.file, str(asked.data), output, wanted, jobs=jobs, block=64,
        advance=lambda done, total, now: seen.append((time.perf_counter(), done)),
    )  # fmt: skip
    yield from seen


if __name__ == "__main__":
    main()
