"""What is installed: one version, the same wheel from the same sources, types that a checker sees, pinned packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import edge_runtime
from builder.commands.cli import main as builder_main
from builder.commands.front import main as polyhead_main
from edge_runtime.cli import main as runtime_main

ROOT = Path(__file__).parent.parent
USER = """
from pathlib import Path

from builder import BuildConfig, BuildResult, build
from edge_runtime import Category, ClassificationResult, MultiHeadClassifier

def make(config: Path) -> Path:
    result: BuildResult = build(BuildConfig.from_toml(config))
    return result.output

def ask(file: Path, picture: Path) -> list[str]:
    with MultiHeadClassifier(file, num_threads=2) as classifier:
        result: ClassificationResult = classifier.classify(picture, top_k=1)
    best: list[Category] = [head.categories[0] for head in result.classifications]
    return [category.category_name for category in best]
"""


def build_wheel(folder: Path, when: float) -> Path:
    """From a copy of the sources whose files are of the time ``when``."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for package in ("builder", "edge_runtime"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in source.rglob("*"):
        os.utime(path, (when, when))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True, env=environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_is_the_same_whenever_it_is_built(tmp_path: Path) -> None:
    first, second = (build_wheel(tmp_path / name, when) for name, when in (("a", 1.5e9), ("b", 1.7e9)))
    assert first.name == second.name == f"polyhead-{edge_runtime.__version__}-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()
    names = set(zipfile.ZipFile(first).namelist())
    assert {"builder/py.typed", "edge_runtime/py.typed"} <= names
    assert {
        str(p.relative_to(ROOT)) for name in ("builder", "edge_runtime") for p in (ROOT / name).rglob("*.html")
    } <= names
    modules = {str(p.relative_to(ROOT)) for name in ("builder", "edge_runtime") for p in (ROOT / name).rglob("*.py")}
    assert modules <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_version_is_in_one_place() -> None:
    assert re.search(r'^version\s*=\s*"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE) is None
    done = CliRunner().invoke(builder_main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"builder of polyhead {edge_runtime.__version__}\n")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("", None),
        ("reveal: int = MultiHeadClassifier('f').head_names\n", "Incompatible types in assignment"),
        ("build(1)\n", 'incompatible type "int"; expected "BuildConfig"'),
        ("from builder import Nothing\n", "has no attribute"),
    ],
)
def test_a_users_script_is_checked_against_the_types(tmp_path: Path, change: str, error: str | None) -> None:
    (tmp_path / "user.py").write_text(USER + change)
    for package in ("builder", "edge_runtime"):  # as an installed package lies: types are seen through py.typed alone
        (tmp_path / "site" / package).parent.mkdir(exist_ok=True)
        (tmp_path / "site" / package).symlink_to(ROOT / package)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent", "user.py"]
    cache = ROOT / ".mypy_cache" / "user"
    environment = {**os.environ, "MYPYPATH": str(tmp_path / "site"), "PYTHONPATH": ""}
    done = subprocess.run(
        [*mypy, "--config-file=", f"--cache-dir={cache}"], capture_output=True, text=True, cwd=tmp_path, env=environment,
        check=False,
    )  # fmt: skip
    if error is None:
        assert done.returncode == 0, done.stdout
    else:
        assert error in done.stdout


def test_every_dependency_is_pinned_with_hashes() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *(line for name in ("builder", "demo", "dev", "docs", "web") for line in extras[name]),
    ]
    wanted = {normal(re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0]) for line in named} - {"tflite-runtime"}
    lock = (ROOT / "requirements" / "ci.txt").read_text()
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+(.*?)(?=^\S)", lock + "\nend", re.MULTILINE | re.DOTALL)
    assert wanted <= {normal(name) for name, _ in pins}, "run `make lock`"
    assert [name for name, rest in pins if "--hash=sha256:" not in rest] == []
    assert "://" not in lock  # no address of an index: the installer's own is asked


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {edge_runtime.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("main", [builder_main, polyhead_main, runtime_main], ids=["builder", "polyhead", "edge-runtime"])
def test_the_list_of_commands_says_what_each_does_within_80_columns(main: click.Group) -> None:
    """The first sentence of a command's help is short: click cuts a longer one and ends it with dots."""
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    lines = shown.partition("Commands:\n")[2].strip("\n").split("\n")
    assert len(lines) == len(main.list_commands(click.Context(main))) > 10
    assert [line for line in lines if not line.endswith(".")] == []
    assert [line for line in lines if line.endswith("...") or len(line) > 80] == []
