"""Values do not change behind a caller's back: every dataclass is frozen but those with state."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What is filled step by step, or counts while others look on.
WITH_STATE = {
    "builder/growing/change.py": {"Change"},
    "builder/merging/operators.py": {"_PartBuilder"},
    "builder/quantizing/equalize.py": {"_Group"},
    "builder/reading/originals/original.py": {"_Asked"},
    "builder/reading/originals/processes.py": {"Job"},
    "builder/reading/tflite/classifier.py": {"TfliteAnswers"},
    "builder/scoring/compare.py": {"HeadChanges"},
    "builder/tflite/flatbuffer.py": {"Part"},
    "builder/tflite/writer.py": {"Writer"},
    "edge_runtime/camera/capture.py": {"Counts"},
}


def changeable(source: str) -> set[str]:
    """The names of the dataclasses whose attributes can be given other values."""
    found = set()
    for item in (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.ClassDef)):
        for decorator in item.decorator_list:
            written = ast.unparse(decorator)
            if written.partition("(")[0] == "dataclass" and "frozen=True" not in written:
                found.add(item.name)
    return found


def test_every_dataclass_is_frozen_but_those_with_state() -> None:
    sources = [path for package in ("builder", "edge_runtime") for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): changeable(path.read_text("utf-8")) for path in sources}
    assert {name: classes for name, classes in found.items() if classes} == WITH_STATE
