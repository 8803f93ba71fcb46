"""Give damaged inputs to every reader, in processes with limits: ``make fuzz SECONDS=600``.

``python -m tests.fuzz [--seconds 600] [--first 0] [--kinds models labels ...] [--folder DIR]`` takes models, labels,
TOML, pictures, members of files, flatbuffers with correct checksums, and packs, in turns. It counts tracebacks, crashes,
and inputs that take more than 2 GB or 10 seconds. Each of these inputs is kept, with its number, in DIR/found. A case
depends only on its kind and number: ``python -m tests.fuzz_readers KIND DIR NUMBER 1`` runs it again.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz_readers import KINDS, make_seeds

SECONDS = 10.0  # processor time for one input, so that a busy machine does not count against a reader
PATIENCE = 12  # times as long, for a process that waits and does nothing
START = 240.0  # seconds for the imports of a worker
BATCH = 200
WELL = ("read", "refused")


def run_cases(kind: str, folder: Path, first: int, count: int, *, until: float = float("inf")) -> Counter[str]:
    """Run cases of one kind in another process and count their outcomes. After a crash, go on with the next case."""
    counts: Counter[str] = Counter()
    number = first
    while number < first + count and time.monotonic() < until:
        done = _run_worker(kind, folder, number, first + count - number, until)
        counts += done[0]
        number = done[1]
    return counts


def _run_worker(kind: str, folder: Path, first: int, count: int, until: float) -> tuple[Counter[str], int]:
    """Run cases in one process. Returns their outcomes, and the number of the next case."""
    line = [sys.executable, "-m", "tests.fuzz_readers", kind, str(folder), str(first), str(count)]
    with (folder / f"{kind}.log").open("ab") as log:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log)
    counts: Counter[str] = Counter()
    said: list[str] = []
    number, limit, began, waits = first - 1, START, 0.0, 0
    with process, selectors.DefaultSelector() as waiting:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        waiting.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not waiting.select(limit):
                runs, seconds = _processor(process.pid)
                waits += not runs  # a process that waits for the processor does not count
                if waits < PATIENCE and seconds - began < limit:
                    continue
                process.kill()
                if number < first:
                    break
                _keep(kind, folder, number, "over 10 s", said)
                counts["over 10 s"] += 1
                return counts, number + 1
            data = process.stdout.read()
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for text in (one.decode("utf-8", "replace") for one in lines):
                words = text.split(" ", 2)
                if words[0] == "begin":
                    number, limit, said = int(words[1]), SECONDS, []
                    began, waits = _processor(process.pid)[1], 0
                elif words[0] == "end" and words[1] == str(number):
                    counts[words[2]] += 1
                    if words[2] not in WELL:
                        _keep(kind, folder, number, words[2], said)
                else:
                    said.append(text)
            if time.monotonic() > until:
                process.kill()
                return counts, number + 1
        code = process.wait()
    if code:
        if number < first:
            sys.exit(f"{kind}: the worker does not start (exit {code}); see {folder / kind}.log")
        what = f"crash ({code})"
        _keep(kind, folder, number, what, said)
        counts[what] += 1
    return counts, number + 1


def _processor(pid: int) -> tuple[bool, float]:
    """Whether a process is ready to run, and its processor seconds so far. Where the system does not tell, they are
    infinite, so that wall time decides.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return False, float("inf")
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _keep(kind: str, folder: Path, number: int, what: str, said: list[str]) -> None:
    """Keep an input. It is made again from its number, because the reader's copy may be gone."""
    import random

    place = folder / "found" / f"{kind}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    KINDS[kind].damage(folder / "seeds", place, random.Random(f"{kind} {number}"))
    (place / "WHAT").write_text("\n".join([what, *said]) + "\n")
    print(f"{kind} {number}: {what}{': ' + said[-1][:160] if said else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    seeds = options.folder / "seeds"
    if not seeds.exists():
        draft = options.folder / f"seeds.{os.getpid()}"
        make_seeds(draft)
        draft.rename(seeds)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in options.kinds}
    end, first = time.monotonic() + options.seconds, options.first
    while time.monotonic() < end:
        for kind in options.kinds:
            counts[kind] += run_cases(kind, options.folder, first, BATCH, until=end)
        first += BATCH
    wrong = 0
    for kind, found in counts.items():
        outcomes = ", ".join(f"{count:,} {what}" for what, count in sorted(found.items()))
        print(f"{kind:12} {found.total():7,} inputs: {outcomes}")
        wrong += sum(count for what, count in found.items() if what not in WELL)
    everything = sum(found.total() for found in counts.values())
    print(f"{everything:,} inputs, {wrong} of them neither read nor refused in one line")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
