"""``builder`` and ``polyhead`` with the libraries of the runtime only: other commands name the extra that they need."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.commands.cli import COMMANDS
from builder.commands.cli import main as builder_main
from builder.commands.front import main as polyhead_main
from builder.support.extras import EXTRAS
from edge_runtime.bundle import read_metadata
from edge_runtime.cli import main as runtime_main

ROOT = Path(__file__).parent.parent
RUNTIME = ("flatbuffers", "ai_edge_litert")  # which the runtime's own interpreter brings along
PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

MISSING, PROGRAM = sys.argv[1].split(","), sys.argv[2]
del sys.argv[1:3]

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from builder import __main__
(__main__.main if PROGRAM == "builder" else __main__.polyhead)()
"""


def run(*arguments: object, program: str = "builder") -> subprocess.CompletedProcess[str]:
    """As on a device: none of the libraries of any extra is there."""
    missing = ",".join(library for libraries in EXTRAS.values() for library in libraries if library not in RUNTIME)
    command = [sys.executable, "-c", PROGRAM, missing, program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def file(joint: object, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(joint.output, tmp_path / "main.tflite"))  # type: ignore[attr-defined]


def test_what_needs_no_more_than_the_runtime_runs(file: Path, tmp_path: Path) -> None:
    commands = [
        ("list", file),
        ("list", file, "--json"),
        ("inspect", file),
        ("rename-head", file, "animals=beasts"),
        ("remove-head", file, "garden"),
        ("export", file, "--format", "split", "--output", tmp_path / "split"),
        ("export", file, "--format", "task", "--output", tmp_path / "task.tflite"),
    ]
    done = [run(*command) for command in commands]
    assert [d.returncode for d in done] == [0] * len(commands), [d.stderr for d in done]
    assert "animals" in done[0].stdout
    assert [head.head_name for head in read_metadata(str(file)).heads] == ["beasts", "things"]
    assert "the joint list is dropped" in done[4].stderr
    assert not any("INFO" in d.stderr for d in done)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["build", "mine.toml", "--fast"], "builder"),
        (["add-head", "FILE", "cats=cats.keras"], "builder"),
        (["remove-head", "FILE", "garden", "--calibration-data", "."], "builder"),
        (["inspect", "FILE", "FILE"], "builder"),
        (["evaluate", "FILE", "--data", "."], "builder"),
        (["score", "FILE", "--data", ".", "--output", "o"], "cluster"),
        (["sign", "FILE", "--key", "FILE"], "sign"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_the_rest_says_what_to_install(arguments: list[str], extra: str, file: Path) -> None:
    file.chmod(0o600)  # a private key is the owner's alone
    before = file.read_bytes()
    done = run(*(str(file) if argument == "FILE" else argument for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"pip install 'polyhead[{extra}]" in done.stderr
    assert file.read_bytes() == before


def test_help_names_every_command(file: Path) -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()] == sorted(COMMANDS)
    assert "(needs the extra builder)" in done.stdout


def test_the_extras_are_those_of_the_package() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    names = {"litert_quantizer": "litert-quantizer", "ai_edge_litert": "ai-edge-litert", "sklearn": "scikit-learn"}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, libraries in EXTRAS.items():
        for library in libraries:
            assert any(line.startswith(names.get(library, library)) for line in listed[extra]), (extra, library)


def test_a_mistake_of_ours_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("builder.nowhere") is None
    import builder.commands.cli as cli

    group = type(cli.main)(commands=type(cli.main.commands)({"lost": ("builder.nowhere:lost",)}))
    assert isinstance(CliRunner().invoke(group, ["lost"]).exception, ModuleNotFoundError)


# polyhead


def test_polyhead_has_the_commands_of_both() -> None:
    both = sorted([*builder_main.commands, *runtime_main.commands])
    assert sorted(polyhead_main.commands) == both
    assert len(set(both)) == len(both)


def test_polyhead_does_what_either_does(file: Path, tiny_pictures: list[Path], tmp_path: Path) -> None:
    for arguments, program in ((["list", file], builder_main), (["classify", file, tiny_pictures[0]], runtime_main)):
        expected, found = (CliRunner().invoke(p, list(map(str, arguments))) for p in (program, polyhead_main))
        assert expected.exit_code == found.exit_code == 0, found.output
        assert expected.output == found.output
    missing = CliRunner().invoke(polyhead_main, ["classify", str(file), str(tmp_path / "none.jpg")])
    assert missing.exit_code == 2
    assert len(missing.stderr.splitlines()) == 1


def test_polyhead_runs_on_a_device(file: Path, tiny_pictures: list[Path]) -> None:
    done = run("classify", file, tiny_pictures[0], "--json", program="polyhead")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["classifications"]
    assert run("info", file, program="polyhead").returncode == 0


# What the interpreter says of itself


def test_only_notices_are_held_back(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom edge_runtime.interpreter import without_notices\n"
        "with without_notices():\n    os.write(2, b'INFO: Created a delegate.\\nERROR: no\\n')\n    {end}\n"
        "with without_notices():\n    os.write(2, b'INFO: a second run\\n')\n"
    )

    def said(end: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program.format(end=end)], capture_output=True, text=True, check=False, cwd=ROOT
        ).stderr

    assert said("pass") == "ERROR: no\nINFO: a second run\n"
    assert "Fatal Python error" in said("os.abort()")
