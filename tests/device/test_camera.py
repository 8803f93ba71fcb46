"""``edge-runtime camera`` on a device without OpenCV and without a web server: a folder still works."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.conftest import FOLDER, Expected
from tests.device.test_commands import run
from tests.laws import SCORE_TOLERANCE


def test_every_picture_once_and_as_classify_answers(three: Expected, interpreter: str) -> None:
    folder = three.pictures[0].parent
    done = run(
        "camera", three.path, "--source", folder, "--json", "--lines", "frame", "--top-k", 1, "--interpreter", interpreter
    )
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert [frame["source"] for frame in frames] == sorted(map(str, three.pictures))
    sources = [frame["source"] for frame in frames]
    classified = run("classify", three.path, *sources, "--json", "--top-k", 1, "--interpreter", interpreter)
    for frame, line in zip(frames, classified.stdout.splitlines()):
        for found, expected in zip(frame["classifications"], json.loads(line)["classifications"]):
            assert abs(found["categories"][0]["score"] - expected["categories"][0]["score"]) <= SCORE_TOLERANCE


def test_the_joint_list_is_the_one_that_classify_gives(three: Expected, interpreter: str) -> None:
    model, folder = FOLDER / "joint.tflite", three.pictures[0].parent
    chosen = ("--joint", "--json", "--top-k", 3, "--interpreter", interpreter)
    done = run("camera", model, "--source", folder, "--lines", "frame", *chosen)
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    classified = run("classify", model, *(frame["source"] for frame in frames), *chosen)
    for frame, line in zip(frames, classified.stdout.splitlines()):
        found, expected = frame["joint"], json.loads(line)["joint"]
        assert (found["known"], found["best"], found["heads"]) == (expected["known"], expected["best"], expected["heads"])
        assert found["categories"] == expected["categories"]
        assert "joint" in frame["answers"]


@pytest.mark.parametrize("chosen", [["--joint"], ["--head", "joint:every=2"]])
def test_a_file_without_a_joint_list_says_so(three: Expected, chosen: list[str]) -> None:
    done = run("camera", three.path, "--source", three.pictures[0].parent, *chosen)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no joint head" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "options", "word"),
    [
        ("cv2", ["--source", "/dev/video0"], "polyhead[camera]"),
        ("picamera2", ["--source", "picamera2"], "python3-picamera2"),
        ("cheroot", ["--source", ".", "--serve", "0"], "polyhead[web]"),
    ],
)
def test_what_is_missing_is_named(three: Expected, module: str, options: list[str], word: str) -> None:
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed here")
    done = run("camera", three.path, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr.splitlines()[-1]


def test_profile(three: Expected, interpreter: str) -> None:
    done = run("benchmark", three.path, "--profile", "--runs", 2, "--json", "--interpreter", interpreter)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["heads"] == 3
    parts = [*document["prepare"].values(), *document["steps"].values()]
    assert all(0 < part["p5"] <= part["median"] <= part["p95"] for part in parts)
    assert "backbone" in document["steps"]


def test_the_example(three: Expected) -> None:
    program = [sys.executable, "examples/camera.py", str(three.path), str(three.pictures[0].parent), "garden:every=2"]
    here = str(Path(__file__).parents[2])  # a script sees its own folder first, not this one
    done = subprocess.run(program, capture_output=True, text=True, cwd=here, env={**os.environ, "PYTHONPATH": here})
    assert done.returncode == 0, done.stderr
    assert f"captured={len(three.pictures)}" in done.stdout
