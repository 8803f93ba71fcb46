"""The Dockerfiles name what exists: files that are copied, extras, programs and their options. No image is built here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from builder.commands.cli import main as builder_main
from edge_runtime.cli import main as runtime_main

tomllib = pytest.importorskip("tomllib")
ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROGRAMS: dict[str, click.Group] = {"builder": builder_main, "edge-runtime": runtime_main}
WHEEL = f"dist/{PROJECT['name']}-*.whl"  # what `make wheel` writes
ARGUMENTS = {"${MODEL}"}  # what the comment in front passes with --build-arg
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.Dockerfile"))}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments, without comments and with continued lines joined."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in code.splitlines()) if word]


def of(text: str, word: str) -> list[str]:
    return [rest for found, rest in instructions(text) if found == word]


def check_copies(text: str) -> None:
    for arguments in of(text, "COPY"):
        *sources, _ = [part for part in arguments.split() if not part.startswith("--")]
        for source in sources:
            assert source in {WHEEL, *ARGUMENTS} or list(ROOT.glob(source)), f"COPY {source}: no such file"
    declared = {"${" + name.partition("=")[0] + "}" for name in of(text, "ARG")}
    comment = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for argument in re.findall(r"\$\{\w+\}", "".join(of(text, "COPY"))):
        assert argument in declared and f"--build-arg {argument[2:-1]}=" in comment, f"{argument}: not declared"


def check_extras(text: str) -> None:
    extras = re.findall(r"\.whl\)\[([\w,-]+)\]", "\n".join(of(text, "RUN")))
    assert extras, "the wheel is installed without extras"
    for extra in ",".join(extras).split(","):
        assert extra in PROJECT["optional-dependencies"], f"[{extra}]: no such extra"


def check_start(text: str) -> None:
    (entry,) = of(text, "ENTRYPOINT")
    program, *arguments = json.loads(entry)
    assert program in PROJECT["scripts"], f"{program}: no such program"
    if arguments:
        command = PROGRAMS[program].commands[arguments[0]]
        command.make_parser(click.Context(command)).parse_args(arguments[1:])


def check_python(text: str) -> None:
    (base,) = of(text, "FROM")
    minor = re.fullmatch(r"python:3\.(\d+)-slim", base)
    assert minor and 10 <= int(minor[1]) <= 13, f"FROM {base}: the builder runs on Python 3.10 to 3.13"


def check_user(text: str) -> None:
    """A server does not run as root, and the folder for its token is that user's before it becomes a volume."""
    if "edge-runtime" in "\n".join(of(text, "ENTRYPOINT")):
        (user,) = of(text, "USER")
        assert re.search(rf"useradd\b.*\b{user}\b", "\n".join(of(text, "RUN"))), f"USER {user}: nobody made it"
        for volume in of(text, "VOLUME"):
            assert re.search(rf"install -d -o {user} [^&]*{volume}\b", "\n".join(of(text, "RUN"))), f"{volume}: root's"


def check_model(text: str) -> None:
    """The model keeps the name of its file, which is its name in answers if it has no other."""
    for model, place in re.findall(r"^(\$\{MODEL\}) (\S+)$", "\n".join(of(text, "COPY")), re.MULTILINE):
        (entry,) = of(text, "ENTRYPOINT")
        assert place.endswith("/"), f"COPY {model} {place}: under another name"
        assert f"ln -s {place}* {json.loads(entry)[2]}" in of(text, "RUN"), "the program opens another file"


CHECKS: list[Callable[[str], None]] = [check_copies, check_extras, check_start, check_python, check_user, check_model]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_dockerfile_names_what_exists(name: str, check: Callable[[str], None]) -> None:
    check(TEXTS[name])


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_copies, "dist/", "wheels/"),
        (check_copies, "--build-arg MODEL", "--build-arg FILE"),
        (check_copies, "ARG MODEL", "ARG FILE"),
        (check_extras, "[web]", "[server]"),
        (check_extras, "[web]", ""),
        (check_start, '"edge-runtime", "serve"', '"edge-runtimes", "serve"'),
        (check_start, "--token-file", "--token"),
        (check_python, "3.13", "3.9"),
        (check_user, "USER polyhead", "USER nobody"),
        (check_user, "-o polyhead", "-o root"),
        (check_model, "/models/\n", "/models/model.tflite\n"),
        (check_model, "ln -s /models/*", "ln -s /model/*"),
        (check_model, '"serve", "/model.tflite"', '"serve", "/other.tflite"'),
    ],
)
def test_a_changed_dockerfile_is_found_out(check: Callable[[str], None], old: str, new: str) -> None:
    text = TEXTS["serve.Dockerfile"]
    assert old in text
    with pytest.raises((AssertionError, click.UsageError)):
        check(text.replace(old, new))
