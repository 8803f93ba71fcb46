"""Is this tree slower than the last that was measured? ``python -m benchmarks.compare``; ``make bench-compare``.

Both trees do the same work in turns, each in a process of its own: a tiny build with learnt rounding, opening the file,
the backbone, one head, all heads. Processor time is compared, because other programs disturb it little, and only within a
round. The times of this tree go into ``build/bench/history.json`` under its commit. The exit code is 3 where a part is
slower: its median ratio is above ``LIMIT``, and it is slower in three of four rounds.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HISTORY = ROOT / "build" / "bench" / "history.json"
LIMIT = 1.15
Figures = dict[str, float]  # seconds of processor time, by the part

# Runs in either tree, so it uses only what both have: the public interface and the tiny models of the tests.
_CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
from builder import build
from edge_runtime import MultiHeadClassifier
from tests.tiny_models import tiny_config

def best(run, times):
    run()
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)

config = tiny_config(Path(sys.argv[1]), {f"head_{i:02d}": 3 for i in range(8)}, min_agreement=0.01)
start = time.process_time()
path = build(config).output
figures = {"build": time.process_time() - start}
figures["open"] = best(lambda: MultiHeadClassifier(path).close(), 20)
with MultiHeadClassifier(path, num_threads=1) as classifier:
    image = np.zeros(classifier.metadata.input.shape, np.uint8)
    features = classifier.features_of(image)
    figures["backbone"] = best(lambda: classifier.features_of(image), 200)
    figures["one head"] = best(lambda: classifier.classify_features(features, heads=[3]), 200)
    figures["all heads"] = best(lambda: [list(c.categories) for c in classifier.classify_features(features)], 200)
print(json.dumps(figures))
"""


@click.command(help=__doc__)
@click.option("--against", help="A commit; without it the last in the history, else the one before this.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--history", type=click.Path(path_type=Path), default=HISTORY, show_default=True)
def main(against: str | None, rounds: int, history: Path) -> None:
    own = _git("rev-parse", "HEAD").decode().strip()
    known = read(history)
    other = _git("rev-parse", against or last(known, own) or "HEAD~1").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _check_out(other, tree)
        turns = [(measured(ROOT), measured(tree)) for _ in range(rounds)]
    write(history, {**known, own: median([mine for mine, _ in turns])})
    for name, ratio in median_ratios(turns).items():
        click.echo(f"{name}: {ratio:.2f} of {other[:10]}")
    slow = slower(turns)
    if slow:
        click.echo(f"slower than {other[:10]}: {', '.join(slow)}", err=True)
        sys.exit(3)


def measured(tree: Path) -> Figures:
    """The times of the program in the folder ``tree``. Raises ``CalledProcessError`` where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-c", _CHILD, folder]
        result = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(result.stdout.splitlines()[-1])
    return figures


def median(figures: Sequence[Figures]) -> Figures:
    return {name: float(np.median([f[name] for f in figures])) for name in figures[0]}


def median_ratios(turns: Sequence[tuple[Figures, Figures]]) -> Figures:
    """This tree's time divided by the other's, for each part that both have."""
    return {name: float(np.median(ratios)) for name, ratios in _ratios(turns).items()}


def slower(turns: Sequence[tuple[Figures, Figures]]) -> list[str]:
    """Parts in which this tree, the first of each pair, is slower: by more than ``LIMIT``, in three of four rounds."""
    found = _ratios(turns)
    return [name for name, r in found.items() if np.median(r) > LIMIT and np.mean(np.asarray(r) > 1) >= 0.75]


def last(known: Mapping[str, Figures], own: str) -> str | None:
    """The commit, other than ``own``, that was measured last."""
    others = [commit for commit in known if commit != own]
    return others[-1] if others else None


def read(history: Path) -> dict[str, Figures]:
    """Figures by commit, in the order of measuring; empty where the file does not exist."""
    found: dict[str, Figures] = json.loads(history.read_text("utf-8")) if history.exists() else {}
    return found


def write(history: Path, known: Mapping[str, Figures]) -> None:
    history.parent.mkdir(parents=True, exist_ok=True)
    history.write_text(json.dumps(known, indent=2) + "\n", "utf-8")


def _ratios(turns: Sequence[tuple[Figures, Figures]]) -> dict[str, list[float]]:
    return {name: [a[name] / b[name] for a, b in turns] for name in turns[0][0] if name in turns[0][1]}


def _check_out(commit: str, tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
        archive.extractall(tree, filter="data")


def _git(*arguments: str) -> bytes:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if result.returncode:
        raise click.UsageError(result.stderr.decode(errors="replace").strip().splitlines()[0])
    return result.stdout


if __name__ == "__main__":
    main()
