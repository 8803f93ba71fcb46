"""What the docs say is so: schemas describe what is printed, commands in the pages run, settings have their words."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

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
def printed(tiny_file: Path, joint: Any, tiny_pictures: list[Path]) -> list[tuple[str, Any]]:
    """Every kind of document with the name of its schema."""
    found = [("polyhead", json.loads(zipfile.ZipFile(file).read("polyhead.json"))) for file in (tiny_file, joint.output)]
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
