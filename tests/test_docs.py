"""The docs are true: schemas describe the output, commands in the pages run, and every setting is described."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from builder.commands.cli import main as builder_main
from builder.commands.front import main as polyhead_main
from builder.settings.input_scaling import PREPROCESSING
from edge_runtime.bundle import append_members, read_model
from edge_runtime.cli import main as runtime_main
from tests.tiny_models import save_pictures, tiny_base, tiny_classifier, tiny_picture

ROOT = Path(__file__).parent.parent
SCHEMAS = {p.name.partition(".")[0]: json.loads(p.read_text()) for p in (ROOT / "docs/reference/schemas").glob("*.json")}


def strict(schema: Any) -> Any:
    """The same schema, which now refuses keys that it does not describe."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if isinstance(schema.get("properties"), dict) else found


def complaints(name: str, document: Any) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    from referencing import Registry, Resource

    whole = Registry().with_resources((s["$id"], Resource.from_contents(strict(s))) for s in SCHEMAS.values())
    validator = jsonschema.Draft202012Validator(strict(SCHEMAS[name]), registry=whole)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def lines(*arguments: object) -> list[Any]:
    command = [sys.executable, "-m", "edge_runtime", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def titled(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_file`` whose heads have titles."""
    metadata, model = read_model(str(tiny_file))
    heads = tuple(replace(head, title=head.head_name.title()) for head in metadata.heads)
    path = tmp_path_factory.mktemp("titled") / "titled.tflite"
    path.write_bytes(append_members(model, replace(metadata, heads=heads)))
    return path


@pytest.fixture(scope="module")
def printed(tiny: Any, joint: Any, titled: Path, tiny_pictures: list[Path]) -> list[tuple[str, Any]]:
    """Every kind of document with the name of its schema."""
    tiny_file = tiny.output
    files = (titled, tiny_file, joint.output)
    found = [("polyhead", json.loads(zipfile.ZipFile(file).read("polyhead.json"))) for file in files]
    found += [("info", line) for line in lines("info", titled, "--json")]
    found += [("build", result.report.to_json()) for result in (tiny, joint)]
    pictures = tiny_pictures[0].parent
    for file, options in ((tiny_file, ["--top-k", 2]), (joint.output, ["--joint"])):
        found += [("classify", line) for line in lines("classify", file, tiny_pictures[0], "--json", *options)]
        found += [("info", line) for line in lines("info", file, "--json")]
        camera = ("camera", file, "--json", "--source", pictures, "--consensus", "1/1", *options[2:])
        found += [("camera-event", line) for line in lines(*camera, "--threshold", 0.01)]
        found += [("camera-frame", line) for line in lines(*camera, "--lines", "frame", "--threshold", 0.01)]
    return found


def test_the_schemas_describe_all_that_is_printed(printed: list[tuple[str, Any]]) -> None:
    assert {name for name, _ in printed} == set(SCHEMAS) - {"common"}
    assert [(name, found) for name, document in printed if (found := complaints(name, document))] == []


def test_a_schema_refuses_what_is_missing_or_new(printed: list[tuple[str, Any]]) -> None:
    for name, document in dict(printed).items():
        for key in SCHEMAS[name]["required"]:
            less = copy.deepcopy(document)
            del less[key]
            assert complaints(name, less), (name, key)
        assert complaints(name, {**document, "news": 1}), name


@dataclass(frozen=True)
class Block:
    """Commands of a page; ``reason``: why they cannot run here."""

    page: Path
    reason: str
    commands: tuple[tuple[str, ...], ...]


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"(?:<!-- not run: (.+) -->\n)?```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines_of = [(reason, text.replace("\\\n", " ").splitlines()) for reason, text in found]
    return [
        Block(page, reason, tuple(tuple(shlex.split(line, comments=True)) for line in lines if line.strip()))
        for reason, lines in lines_of
    ]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
PROGRAMS: dict[str, click.Group] = {"builder": builder_main, "edge-runtime": runtime_main, "polyhead": polyhead_main}


def test_every_command_is_in_a_block_that_a_test_sees() -> None:
    """A command that is indented or in a block of another language would not be tested."""
    for page in PAGES:
        rest = re.sub(r"```sh\n.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"^(?: {4})?(?:builder|edge-runtime|polyhead) [a-z-]+ .*", rest, re.MULTILINE) == [], page


def test_every_option_in_the_docs_exists() -> None:
    """Also where a block cannot run here."""
    commands = [command for block in BLOCKS for command in block.commands if command[0] in PROGRAMS]
    assert len(commands) > 20
    for program, name, *arguments in commands:
        command = PROGRAMS[program].commands[name]
        command.make_parser(click.Context(command, help_option_names=["-h", "--help"])).parse_args(list(arguments))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages use: three classifiers, pictures, the guide's configuration, the built file."""
    folder = tmp_path_factory.mktemp("docs")
    base = tiny_base()
    tasks = {"cats": "tabby siamese", "dogs": "collie beagle pug", "birds": "owl jay"}
    for seed, (name, labels) in enumerate(tasks.items()):
        tiny_classifier(base, len(labels.split()), seed + 1).save(folder / f"{name}.keras")
        (folder / f"{name}.txt").write_text("\n".join(labels.split()) + "\n")
        save_pictures(folder / "pictures", {name: 18}, seed)
        save_pictures(folder / "labelled" / name, labels.split(), seed + 9)
    save_pictures(folder / "labelled", ["none"], 5)
    shutil.rmtree(folder / "labelled" / "birds")
    tiny_picture(1).save(folder / "photo.jpg")
    guide = (ROOT / "docs/guides/pictures.md").read_text(encoding="utf-8")
    configured = re.search(r"```toml\n(# mine.toml.*?)```", guide, re.DOTALL)[1]  # type: ignore[index]
    # By name: which one is the quickest is this machine's affair, and no page's.
    (folder / "mine.toml").write_text(f'precision = "int8"\n{configured}')
    done = CliRunner().invoke(builder_main, ["build", str(folder / "mine.toml"), "--fast"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if not b.reason}), ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(workshop, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for program, *arguments in [c for block in BLOCKS if block.page == page and not block.reason for c in block.commands]:
        done = CliRunner().invoke(PROGRAMS[program], arguments)
        assert done.exit_code == 0, (program, arguments, done.output, done.exception)


def test_preprocessing_is_what_keras_does() -> None:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    specification = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert specification is not None and specification.loader is not None
    hooks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hooks)
    modules = {n: m for n, m in vars(keras.applications).items() if hasattr(m, "preprocess_input")}
    same_as_resnet, all_modes = "resnet50", "imagenet_utils"
    assert set(modules) - {same_as_resnet, all_modes} == set(hooks.KERAS_PREPROCESSING)
    for name, (word, _) in hooks.KERAS_PREPROCESSING.items():
        keras_says = np.asarray(modules[name].preprocess_input(pixels.copy()))
        np.testing.assert_allclose(keras_says, PREPROCESSING[word].apply(pixels), atol=1e-4, err_msg=name)
