"""Compare one polyhead file with the alternatives, in one run on one machine: ``python -m benchmarks.bench``.

There are three variants, for 1, 3, 20 and 200 heads on one real backbone: one polyhead file; an int8 file of TensorFlow's
converter for each head, with an interpreter each; one file of that converter with an end-to-end signature for each head.
Every file is made and measured in processes of its own. Writes ``bench.json``, ``bench.md`` and ``bench.png``.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.present import markdown, plot
from benchmarks.summary import separate_seconds, summarise_first, summarise_steady, targets
from benchmarks.variants import PICTURES, SIDES, paths
from builder.samples.calibration import read_samples
from builder.samples.files import draw_evenly, find_pictures
from builder.support.progress import Stages
from builder.support.quiet import terminal
from edge_runtime.image_input import ImageInput

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("tensorflow", "keras", "litert-quantizer", "ai-edge-litert", "numpy")
_SEED = 0
_FILES = "files"
_WHICH = ("one", "all")


@dataclass(frozen=True)
class Settings:
    """``limit``: seconds after which a build of signatures is stopped. ``gigabytes``: address space of any build.
    ``openings``: new processes for each file and answer.
    """

    heads: tuple[int, ...]
    rounds: int
    openings: int
    limit: float
    gigabytes: float
    pictures: int
    backbone: str
    threads: tuple[int, ...]


def bench(settings: Settings, output: Path, stages: Stages) -> dict[str, Any]:
    """All measurements, as written to ``bench.json``."""
    folder = output / _FILES
    folder.mkdir(parents=True, exist_ok=True)
    with stages("pictures"):
        np.save(folder / PICTURES, prepared_pictures(settings))
    with stages("build", len(settings.heads) * 2 + 1) as advance:
        builds = build_all(settings, folder, advance)
    rows = [
        {"variant": variant, "heads": heads, "build": build, "bytes": _bytes(paths(folder, variant, heads))}
        if "seconds" in build
        else {"variant": variant, "heads": heads, "build": build}
        for (variant, heads), build in builds.items()
    ]
    there = [row for row in rows if "bytes" in row]
    with stages("steady", len(settings.heads) * len(settings.threads)) as advance:
        bare = measure_steady(there, settings, folder, advance)
    with stages("open", settings.openings * len(there) * len(_WHICH)) as advance:
        measure_first(there, bare, settings, folder, advance)
    results = {"machine": machine(), "settings": asdict(settings), "bare": bare, "rows": rows}
    return {**results, "targets": [asdict(target) for target in targets(results)]}


def prepared_pictures(settings: Settings) -> np.ndarray:
    """The pictures after the device's preprocessing, uint8 (pictures, height, width, 3)."""
    side, folder = SIDES[settings.backbone], ROOT / "calibration_data"
    chosen = draw_evenly(find_pictures(folder, ()), settings.pictures)
    return read_samples(chosen, ImageInput(side, side), folder).tensors


def build_all(settings: Settings, folder: Path, advance: Callable[[], None]) -> dict[tuple[str, int], dict[str, Any]]:
    """The time of each build, by variant and number of heads; where there is no file, ``unfinished`` says why."""

    def make(variant: str, heads: int) -> dict[str, Any]:
        subject = settings.backbone, settings.gigabytes
        limit = settings.limit if variant == "signatures" else None
        result = run_child("benchmarks.make", variant, heads, folder, *subject, limit=limit)
        advance()
        return result

    separate = make("separate", max(settings.heads))
    builds = {}
    for heads in settings.heads:
        builds["ours", heads] = make("ours", heads)
        builds["separate", heads] = separate_seconds(separate["each"], heads)
        builds["signatures", heads] = make("signatures", heads)
    return builds


def measure_steady(
    rows: list[dict[str, Any]], settings: Settings, folder: Path, advance: Callable[[], None]
) -> dict[str, Any]:
    """Add ``steady`` to each row. Returns the bare backbone's times, by number of heads and threads."""
    bare: dict[str, Any] = {}
    for heads in settings.heads:
        here = [row for row in rows if row["heads"] == heads]
        for threads in settings.threads:
            variants = ",".join(row["variant"] for row in here)
            # The targets are for one thread. Figures of more threads are reported beside it and may be less precise.
            rounds = settings.rounds if threads == 1 else max(2, settings.rounds // 5)
            child = ("steady", variants, heads, folder, rounds, threads, _SEED)
            found = summarise_steady(run_child("benchmarks.measure", *child))
            for row in here:
                tasks = {which: found[f"{row['variant']}.{which}"] for which in _WHICH}
                row.setdefault("steady", {})[str(threads)] = tasks
            bare.setdefault(str(heads), {})[str(threads)] = found["bare"]["ms"]
            advance()
    return bare


def measure_first(
    rows: list[dict[str, Any]], bare: dict[str, Any], settings: Settings, folder: Path, advance: Callable[[], None]
) -> None:
    """Add ``first`` to each row. The files take turns, each time in a new process."""
    runs: dict[tuple[int, str], list[Any]] = {(i, which): [] for i in range(len(rows)) for which in _WHICH}
    for _ in range(settings.openings):
        for (i, which), found in runs.items():
            child = ("first", rows[i]["variant"], rows[i]["heads"], folder, which)
            found.append(run_child("benchmarks.measure", *child))
            advance()
    for (i, which), found in runs.items():
        bare_ms = bare[str(rows[i]["heads"])]["1"]["median"]
        rows[i].setdefault("first", {})[which] = summarise_first(found, bare_ms)


def run_child(module: str, *arguments: object, limit: float | None = None) -> dict[str, Any]:
    """The JSON on the last line of a new process. With a ``limit`` in seconds, a failure is a result too."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"unfinished": f"not finished after {limit:.0f} s"}
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    if limit is None:
        raise click.ClickException(f"{module} {' '.join(map(str, arguments))} failed: {reason}")
    return {"unfinished": f"failed: {reason[:160]}"}


def machine() -> dict[str, Any]:
    """The machine and the versions that the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[0], 2),  # of the last minute, because other work changes the figures
        "python": platform.python_version(),
        **packages,
    }


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _numbers(_: object, __: object, text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise click.BadParameter(f"expected numbers such as 1,3,20; found {text!r}") from error
    if not 1 <= found[0] <= found[-1] <= 999:
        raise click.BadParameter(f"expected numbers from 1 to 999; found {text!r}")
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--heads", default="1,3,20,200", callback=_numbers, help="Numbers of heads to compare.")
@click.option("--rounds", type=click.IntRange(2), default=200, help="Rounds of each variant.")
@click.option("--openings", type=click.IntRange(1), default=9, help="New processes for each opening.")
@click.option("--limit", type=float, default=300, help="Seconds after which a build of signatures is stopped.")
@click.option("--gigabytes", type=float, default=16, help="Address space at which a build fails.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--backbone", type=click.Choice(list(SIDES)), default="efficientnet_lite0")
@click.option("--keep", is_flag=True, help="Keep the files that were compared: 0.8 GB with 200 heads.")
@click.option("--quick", is_flag=True, help="1 and 3 heads, few rounds: under 2 minutes, for a first look.")
def main(
    heads: tuple[int, ...],
    rounds: int,
    openings: int,
    limit: float,
    gigabytes: float,
    output: Path,
    backbone: str,
    keep: bool,
    quick: bool,
) -> None:
    """Compare one polyhead file with its alternatives: bytes, memory, time to open, to answer and to build."""
    if quick:
        heads, rounds, openings = (1, 3), min(rounds, 40), min(openings, 2)
    settings = Settings(heads, rounds, openings, limit, gigabytes, 30, backbone, (1, 2))
    with terminal() as stream:
        results = bench(settings, output, Stages(stream))
    if not keep:
        shutil.rmtree(output / _FILES)
    text = markdown(results)
    (output / "bench.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (output / "bench.md").write_text(text, "utf-8")
    plot(results, output / "bench.png")
    click.echo(text)


if __name__ == "__main__":
    main()
