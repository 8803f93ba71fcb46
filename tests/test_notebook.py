"""The notebook runs from its first cell to its last, without downloads and on a tiny base."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from builder.commands.front import main as polyhead
from tests.tiny_models import tiny_base

NOTEBOOK = Path(__file__).parent.parent / "examples" / "two_folders.ipynb"
TINY = {
    "TRAIN": "--backbone base.keras --preprocessing tf --epochs 3 --views 1",
    "BUILD": "--fast --precision int8 --no-joint --min-agreement 0",
}


def cells() -> list[tuple[str, list[str]]]:
    """Source and tags of each cell with code."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [("".join(c["source"]), c["metadata"].get("tags", [])) for c in found if c["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> str:
    """Python, or a command a line behind ``!``; returns what the commands printed."""
    lines = source.splitlines()
    if not all(line.startswith("!") for line in lines):
        exec(compile(source, "cell", "exec"), names)  # noqa: S102 - the project's own notebook
        return ""
    printed = ""
    for line in lines:
        program, *arguments = shlex.split(line[1:].format(**names))
        assert program in ("builder", "edge-runtime", "polyhead")
        done = CliRunner().invoke(polyhead, arguments)
        assert done.exit_code == 0, (line, done.output, done.exception)
        printed += done.stdout
    return printed


@pytest.mark.slow
def test_the_notebook_runs_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_base().save("base.keras")
    names: dict[str, Any] = {}
    printed = ""
    for source, tags in cells():
        if "download" not in tags:
            printed += run_cell(source, names)
            names.update({key: value for key, value in TINY.items() if key in names})
    assert "next: edge-runtime classify both.tflite" in printed
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["colours", "shapes"]


def test_what_is_left_out_is_what_downloads() -> None:
    left_out = [source for source, tags in cells() if "download" in tags]
    assert [source.split()[0] for source in left_out] == ["!pip", "from"]
    assert all("colab" in source or "install" in source for source in left_out)


def test_no_output_is_in_the_file() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert [cell.get("outputs", []) for cell in document["cells"] if cell["cell_type"] == "code"] == [[]] * len(cells())
