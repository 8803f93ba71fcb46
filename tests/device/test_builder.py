"""``builder`` and ``polyhead`` on a device: commands run, or name the extra that they need."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edge_runtime.bundle import read_metadata

from tests.device.conftest import FOLDER

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 10), reason="the builder is of Python 3.10 and later"),
    pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="files are changed with its schema"),
]


def run(*arguments: object, program: str = "main") -> subprocess.CompletedProcess[str]:
    code = f"from builder.__main__ import {program}; {program}()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_heads_are_listed_renamed_and_removed_and_files_exported(tmp_path: Path) -> None:
    file = Path(shutil.copyfile(FOLDER / "three.tflite", tmp_path / "main.tflite"))
    for arguments in (
        ("list", file),
        ("inspect", file),
        ("rename-head", file, "animals=beasts"),
        ("remove-head", file, "things"),
        ("export", file, "--format", "split", "--output", tmp_path / "split"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert [head.head_name for head in read_metadata(str(file)).heads] == ["beasts", "garden"]


def test_what_needs_more_says_so(tmp_path: Path) -> None:
    for program in ("main", "polyhead"):
        done = run("build", "mine.toml", program=program)
        assert done.returncode == 2
        assert "pip install 'polyhead[builder]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert run("info", FOLDER / "three.tflite", program="polyhead").returncode == 0
