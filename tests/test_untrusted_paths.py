"""Untrusted names, labels and paths: an error of one line, no waiting, and no control characters on a terminal."""

from __future__ import annotations

import ast
import json
import os
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.commands.cli import main as builder_main
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.cli import main as edge_runtime_main
from edge_runtime.escape import printable
from edge_runtime.files import read_file
from tests.tiny_models import save_pictures

OBEYED = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode
TURNING = {chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)}
HOSTILE = ["\x1b]0;x\x07", "a\n  dogs: pug 1.00", "\u202etxt.exe", "\x9b31m", "nul\0", "half\udcff"]


def obeyed(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in OBEYED or c in TURNING]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_what_is_printed_is_never_obeyed(text: str) -> None:
    assert obeyed(printable(text)) == []
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("text", ["Größe", "日本語", "עברית", "क्षि", "👨‍👩‍👧", "a\u200db", "\\u0041"])
def test_every_script_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.fixture
def hostile_file(tiny_file: Path, tmp_path: Path) -> Path:
    """A finished file with other labels."""
    metadata = read_metadata(str(tiny_file))
    labels = [label for label in HOSTILE if "\udcff" not in label]
    heads = tuple(replace(head, labels=tuple(labels[: len(head.labels)])) for head in metadata.heads)
    path = tmp_path / "hostile.tflite"
    path.write_bytes(append_members(tiny_file.read_bytes()[: metadata.model_bytes], replace(metadata, heads=heads)))
    return path


@pytest.mark.parametrize(
    ("main", "command"),
    [
        (edge_runtime_main, ["info"]),
        (edge_runtime_main, ["info", "--json"]),
        (edge_runtime_main, ["classify", "PICTURE"]),
        (edge_runtime_main, ["classify", "PICTURE", "--json"]),
        (builder_main, ["list"]),
        (builder_main, ["list", "--json"]),
    ],
)
def test_labels_from_a_file_move_nothing(hostile_file: Path, tmp_path: Path, main: Any, command: Sequence[str]) -> None:
    (picture,) = save_pictures(tmp_path / "pictures", {"a": 1})
    arguments = [command[0], str(hostile_file), *(str(picture) if a == "PICTURE" else a for a in command[1:])]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if obeyed(line)] == []
    assert "\n  dogs: pug" not in done.output
    assert "\\u001b" in done.output


@pytest.fixture
def places(tmp_path: Path, tiny_file: Path) -> dict[str, Path]:
    """Names that are no files, with every suffix that a command checks, and names that are."""
    found = {"FILE": Path(shutil.copyfile(tiny_file, tmp_path / "good.tflite"))}
    for suffix in (".tflite", ".jpg", ".txt", ".toml", ".keras", ".csv", ".json"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    save_pictures(tmp_path / "pictures", {"a": 8})
    return found


COMMANDS: list[tuple[Any, list[str]]] = [
    (edge_runtime_main, ["info", "BAD.tflite"]),
    (edge_runtime_main, ["classify", "BAD.tflite", "x.jpg"]),
    (edge_runtime_main, ["classify", "FILE", "BAD.jpg"]),
    (edge_runtime_main, ["classify", "FILE", "x.jpg", "--head-pack", "BAD.tflite"]),
    (edge_runtime_main, ["benchmark", "BAD.tflite", "--runs", "1"]),
    (builder_main, ["build", "BAD.toml"]),
    (builder_main, ["inspect", "BAD.keras"]),
    (builder_main, ["list", "BAD.tflite"]),
    (builder_main, ["rename-head", "BAD.tflite", "a=b"]),
    (builder_main, ["remove-head", "BAD.tflite", "a"]),
    (builder_main, ["rename-head", "FILE", "garden=yard", "--output", "BAD.tflite"]),
    (builder_main, ["export", "BAD.tflite", "--format", "task", "--output", "new.tflite"]),
    (builder_main, ["export", "FILE", "--format", "task", "--output", "BAD.tflite"]),
    (builder_main, ["evaluate", "BAD.tflite", "--data", "pictures"]),
    (builder_main, [
        "build", "--head", "a=BAD.keras", "--labels", "a=BAD.txt", "--calibration-data", "pictures",
        "--output", "o.tflite",
    ]),
    (builder_main, [
        "build", "--head", "a=BAD.keras", "--calibration-data", "pictures", "--output", "BAD.tflite",
    ]),
    (builder_main, ["train-head", "BAD.csv", "--output", "o.keras", "--backbone", "x.keras"]),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "zero"])
@pytest.mark.parametrize(("main", "command"), COMMANDS)
def test_what_is_no_file_is_refused_at_once(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Any, command: list[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    arguments = [str(places["FILE"]) if a == "FILE" else a.replace("BAD", kind) for a in command]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert len([line for line in done.output.splitlines() if "rror: " in line]) == 1, done.output
    assert "Errno" not in done.output
    assert sorted(tmp_path.iterdir()) == before


def test_no_line_has_the_number_of_an_error_of_the_system() -> None:
    """Who handles one takes its words by ``said`` or ``reason``; its own text begins with ``[Errno 22]``."""
    bare = []
    root = Path(__file__).parent.parent
    for path in (*root.glob("builder/**/*.py"), *root.glob("edge_runtime/**/*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        kinds = {"OSError"}.union(
            *({ast.unparse(t) for t in one.targets} for one in tree.body
              if isinstance(one, ast.Assign) and "OSError" in ast.unparse(one.value))
        )  # fmt: skip
        for handler in ast.walk(tree):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
                continue
            if not kinds & {ast.unparse(part) for part in ast.walk(handler.type) if isinstance(part, ast.Name)}:
                continue
            words = [
                part.value if isinstance(part, ast.FormattedValue) else part.args[0]
                for part in ast.walk(handler)
                if isinstance(part, ast.FormattedValue)
                or (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "str")
            ]
            bare += [f"{path}:{w.lineno}" for w in words if isinstance(w, ast.Name) and w.id == handler.name]
    assert bare == []


def test_labels_are_read_to_a_limit(tmp_path: Path) -> None:
    from builder.reading.formats.labels import labels_of_text, read_label_file
    from builder.support.errors import ConfigError

    for name in ("pipe.txt", "zero.txt"):
        (tmp_path / name).symlink_to("/dev/zero") if name == "zero.txt" else os.mkfifo(tmp_path / name)
        with pytest.raises(ConfigError, match=r"labels cannot be read \(expected a file, found a (pipe|device); give"):
            read_label_file(tmp_path / name)
    (tmp_path / "long.txt").write_bytes(b"a" * 101)
    with pytest.raises(OSError, match="expected at most 100 bytes, found more"):
        read_file(tmp_path / "long.txt", 100)
    assert labels_of_text("1" * 5000 + " a\n") == ("1" * 5000 + " a",)


def test_a_configuration_with_very_many_words_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'output = "o.tflite"\ncalibration_data = "p"\n[heads.a]\nmodel = "a.keras"\n[text]\nvocabulary = "v.txt"\n'
        "ngrams = 300000000\n"
    )
    done = CliRunner().invoke(builder_main, ["build", str(tmp_path / "c.toml")])
    assert done.exit_code == 2
    assert "ngrams" in done.output


def test_a_name_that_is_no_utf8_works_or_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.tflite"))
    shutil.copyfile(tiny_file, odd)
    (picture,) = save_pictures(Path(os.fsdecode(os.fsencode(tmp_path) + b"/p\xff")), {"a": 1})
    for command in (
        ["info", odd],
        ["info", odd, "--json"],
        ["classify", odd, picture],
        ["classify", odd, picture, "--json"],
    ):
        done = CliRunner().invoke(edge_runtime_main, list(map(str, command)))
        assert (done.exit_code, obeyed(done.output.replace("\n", ""))) == (0, []), done.output
    done = CliRunner().invoke(builder_main, ["rename-head", str(tiny_file), "garden=yard", "--output", str(odd)])
    assert done.exit_code == 2
    assert "expected a name in UTF-8 to write" in done.output
