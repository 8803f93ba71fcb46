"""A separate process tries a file first; everything that was opened is closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime import BundleError, MultiHeadClassifier, isolate
from edge_runtime.camera.command import camera
from edge_runtime.camera.loop import Model
from tests.laws import one_line
from tests.test_camera_loop import options
from tests.test_runtime_cli import run


def test_isolated_it_answers_as_ever(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    plain, isolated = (run("classify", tiny_file, tiny_pictures[0], *more).stdout for more in ((), ("--isolate",)))
    assert plain == isolated


def dying(folder: Path) -> Path:
    """A folder with an interpreter that ends the process, as an unforeseen file might."""
    (folder / "ai_edge_litert").mkdir()
    (folder / "ai_edge_litert" / "__init__.py").touch()
    program = "import os, sys\nsys.stderr.write('Check failed: x\\n')\nsys.stderr.flush()\nos.abort()\n"
    (folder / "ai_edge_litert" / "interpreter.py").write_text(program)
    return folder


def test_a_file_that_crashes_a_child_crashes_nobody_else(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{dying(tmp_path)}:{Path.cwd()}"
    monkeypatch.setattr(isolate, "_environment", lambda: {"PYTHONPATH": place})
    with pytest.raises(BundleError, match=r"crashes on it \(signal 6\): Check failed: x") as caught:
        MultiHeadClassifier(tiny_file, interpreter="ai_edge_litert", isolate=True)
    assert one_line(str(caught.value), tiny_file)


def test_a_crash_of_this_process_leaves_a_word(tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{dying(tmp_path)}:{Path.cwd()}"}
    command = [sys.executable, "-m", "edge_runtime", "classify", tiny_file, tiny_pictures[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -6
    assert "Fatal Python error: Aborted" in done.stderr


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the files that a child process would try, instead of trying them."""
    asked: list[str] = []
    monkeypatch.setattr(isolate, "try_in_child", lambda path, interpreter, packs: asked.append(path))
    return asked


def test_a_file_is_tried_where_that_is_asked_for(tiny_file: Path, tried: list[str]) -> None:
    MultiHeadClassifier(tiny_file).close()
    assert tried == []
    MultiHeadClassifier(tiny_file, isolate=True).close()
    assert tried == [str(tiny_file)]


@pytest.mark.parametrize("reload", [False, True])
def test_the_camera_tries_its_first_file_and_every_later_one(tiny_file: Path, tried: list[str], reload: bool) -> None:
    by_default = {option.name: option.default for option in camera.params}
    assert by_default["isolate"] is True
    with Model(options(tiny_file, reload=reload, isolate=True)) as model:
        assert len(tried) == 1
        model.replace(model.open(isolate=True))
    assert len(tried) == 2


@pytest.mark.parametrize("word", ["crash", "refusal", "silence"])
def test_what_the_child_says_is_one_line(tiny_file: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    def ended(*_: object, **more: Any) -> SimpleNamespace:
        if word == "silence":
            raise isolate.subprocess.TimeoutExpired("x", more["timeout"])
        stderr = {"crash": b"INFO: a\nlast \xff word\n", "refusal": f"x\n{tiny_file}: no\n".encode()}[word]
        return SimpleNamespace(returncode={"crash": -11, "refusal": 1}[word], stderr=stderr)

    monkeypatch.setattr(isolate.subprocess, "run", ended)
    words = {"crash": r"signal 11\): last . word", "refusal": ": no$", "silence": "no answer in 120 s"}[word]
    with pytest.raises(BundleError, match=words) as caught:
        MultiHeadClassifier(tiny_file, isolate=True)
    assert one_line(str(caught.value), tiny_file)


def test_closing_closes_the_file_and_every_pack(joint: Any, tmp_path: Path) -> None:
    from builder.exporting.export import export_split

    export_split(joint.output, tmp_path / "apart")
    classifier = MultiHeadClassifier(next((tmp_path / "apart").glob("*.tflite")))
    models = {classifier._model} | classifier._heads.models
    assert len(models) == 1 + len(classifier.head_names)
    assert not any(model.closed for model in models)
    classifier.close()
    assert all(model.closed for model in models)
