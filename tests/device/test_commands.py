"""``edge-runtime`` on a device, in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from tests.device.conftest import Expected
from tests.laws import SCORE_TOLERANCE


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edge_runtime", *map(str, arguments)], capture_output=True, text=True)


def test_info(three: Expected) -> None:
    done = run("info", three.path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert [head["head_name"] for head in document["heads"]] == list(three.scores[0])
    assert document["bytes"] == three.path.stat().st_size


def test_classify(three: Expected, interpreter: str) -> None:
    done = run("classify", three.path, three.pictures[0], "--head", "garden", "--json", "--interpreter", interpreter)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    (head,) = json.loads(line)["classifications"]
    scores = np.asarray([c["score"] for c in sorted(head["categories"], key=lambda c: c["index"])])
    assert head["head_name"] == "garden"
    if interpreter == "ai_edge_litert":  # the one that the expected answers came from
        assert np.abs(scores - three.scores[0]["garden"]).max() <= SCORE_TOLERANCE


def test_broken_picture_among_good_ones(three: Expected, tmp_path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(three.pictures[1].read_bytes()[:200])
    done = run("classify", three.path, three.pictures[0], broken, three.pictures[2], "--json")
    assert done.returncode == 2
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == [
        str(three.pictures[0]),
        str(three.pictures[2]),
    ]
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert str(broken) in error


def test_unknown_head_lists_the_heads(three: Expected) -> None:
    done = run("classify", three.path, three.pictures[0], "--head", "plants")
    assert (done.returncode, done.stdout) == (2, "")
    assert "animals, garden, things" in done.stderr


def test_benchmark(three: Expected, interpreter: str) -> None:
    done = run("benchmark", three.path, "--runs", 3, "--json", "--interpreter", interpreter)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["interpreter"], document["heads"], document["runs"]) == (interpreter, 3, 3)
    assert all(part["p5"] <= part["median"] <= part["p95"] for part in document["latency_ms"].values())
