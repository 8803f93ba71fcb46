"""Runs on Ray: no row is lost or written twice, whichever process is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the extra `cluster`; make test has an environment with it")
ray = pytest.importorskip("ray", reason="needs the extra `cluster`; make test has an environment with it")
import psutil  # noqa: E402 - Ray needs it too
import pyarrow.parquet  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from builder.scoring.output import part  # noqa: E402
from builder.scoring.rows import Scorer, Wanted  # noqa: E402
from builder.scoring.run import score  # noqa: E402
from builder.scoring.samples import planned  # noqa: E402
from builder.support.errors import ConfigError, SamplesError  # noqa: E402
from tests.cluster.material import FOLDER, pictures  # noqa: E402

THREE = FOLDER / "three.tflite"
WANTED = Wanted(("animals", "things"), features=True)
COUNT, BLOCK = 90, 3


def at_last(start: Callable[[], Any]) -> Any:
    """What ``start`` gives: where the machine is busy, Ray may give up before its processes have started."""
    for _ in range(2):
        try:
            return start()
        except Exception:  # noqa: BLE001 - Ray raises no class of its own
            continue
    return start()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a processor each."""
    head = {"num_cpus": 1, "include_dashboard": False}
    found = at_last(lambda: Cluster(initialize_head=True, head_node_args=head))
    found.second = at_last(lambda: found.add_node(num_cpus=1))
    ray.init(address=found.address, logging_level="ERROR", log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("archive")
    pictures(folder, COUNT)
    return str(folder)


@pytest.fixture(scope="module")
def expected(data: str) -> list[dict]:
    """What one process says."""
    return Scorer(str(THREE), WANTED).table(list(planned(data, texts=False))).to_pylist()


def rows(output: Path) -> list[dict]:
    files = sorted(output.glob("part-*.parquet"))
    return [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


@pytest.mark.slow
def test_workers_and_a_node_die_and_every_row_is_there_once(
    cluster, data: str, expected: list[dict], tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill(done: int, total: int, now: int) -> None:
        if not killed:
            workers = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(p.info["cmdline"] or ())
            ]
            workers[0].kill()
            killed.append("worker")
        elif len(killed) == 1 and done > total // 2:
            cluster.remove_node(cluster.second)
            killed.append("node")

    done = score(THREE, data, tmp_path / "out", WANTED, block=BLOCK, jobs=2, advance=kill)
    assert killed == ["worker", "node"]
    assert rows(tmp_path / "out") == expected
    assert (done.samples, done.before, done.failed) == (COUNT, 0, 0)


def test_what_is_written_is_not_computed_again(cluster, data: str, expected: list[dict], tmp_path: Path) -> None:
    output = tmp_path / "out"
    score(THREE, data, output, WANTED, block=BLOCK)
    for block in (0, 7, 29):
        part(output, block).unlink()
    kept = {file.name: file.stat().st_mtime_ns for file in output.glob("part-*")}
    (output / ".edge-runtime-0123").write_text("of a worker that died")
    done = score(THREE, data, output, WANTED, block=BLOCK, resume=True)
    assert (done.samples, done.before) == (COUNT, COUNT - 3 * BLOCK)
    assert rows(output) == expected
    assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept
    assert not list(output.glob(".edge*"))


def test_a_result_is_of_one_request(cluster, data: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(SamplesError, match="expected pictures, found none"):
        (tmp_path / "empty").mkdir()
        score(THREE, str(tmp_path / "empty"), output, WANTED)
    score(THREE, data, output, WANTED, block=30)
    before = {file.name: file.read_bytes() for file in output.glob("part-*")}
    with pytest.raises(ConfigError, match="holds an earlier result; add --resume"):
        score(THREE, data, output, WANTED, block=30)
    with pytest.raises(ConfigError, match="was begun with heads"):
        score(THREE, data, output, Wanted(("animals",), features=True), block=30, resume=True)
    with pytest.raises(ConfigError, match="was begun with file 'sha256:"):
        score(FOLDER / "twenty.tflite", data, output, WANTED, block=30, resume=True)
    assert {file.name: file.read_bytes() for file in output.glob("part-*")} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    with pytest.raises(ConfigError, match=r"found letter.txt in it"):
        score(THREE, data, tmp_path / "full", WANTED)


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_stopped(data: str, expected: list[dict], tmp_path: Path) -> None:
    """The command, on a Ray of its own."""
    output = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from builder.scoring.rows import Wanted; "
        "from builder.scoring.run import score; "
        f"score(Path({str(THREE)!r}), {data!r}, Path({str(output)!r}), Wanted(('animals', 'things'), features=True), "
        f"block={BLOCK}, jobs=1, resume=sys.argv[1:] == ['again'], advance=lambda *counts: print(*counts, flush=True))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line[0].isdigit() and int(line.split()[0]) >= COUNT // 3:
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    there = len(list(output.glob("part-*")))
    assert COUNT // 3 // BLOCK <= there < COUNT // BLOCK
    subprocess.run([sys.executable, "-c", code, "again"], check=True, stdout=subprocess.DEVNULL)
    assert rows(output) == expected


@pytest.mark.slow
def test_the_command_writes_its_own_lines_and_none_of_ray(data: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builder", "score", str(THREE), "--data", data, "--output", str(tmp_path / "out")]
    done = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True)
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'out'}: {COUNT} rows; ")
    progress = re.compile(rf"[\d,]+ of {COUNT}, [\d.,]+ a second, .* left")  # once a minute
    assert [line for line in done.stderr.splitlines() if not progress.fullmatch(line)] == []
