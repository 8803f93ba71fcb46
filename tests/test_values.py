"""Values do not change behind a caller's back: every dataclass is frozen but those with state."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHANGEABLE = re.compile(r"@dataclass(?:\((?![^)]*frozen=True)[^)]*\))?\n\s*class (\w+)")
# What is filled step by step, or counts while others look on.
WITH_STATE = {
    "builder/growing/change.py": {"Change"},
    "builder/merging/operators.py": {"_PartBuilder"},
    "builder/quantizing/channels.py": {"Group"},
    "builder/reading/originals/original.py": {"_Asked"},
    "builder/reading/originals/processes.py": {"Job"},
    "builder/reading/tflite/classifier.py": {"TfliteAnswers"},
    "builder/scoring/compare.py": {"HeadChanges"},
    "builder/tflite/flatbuffer.py": {"Part"},
    "builder/tflite/writer.py": {"Writer"},
    "edge_runtime/camera/capture.py": {"Counts"},
}


def test_every_dataclass_is_frozen_but_those_with_state() -> None:
    sources = [path for package in ("builder", "edge_runtime") for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): set(CHANGEABLE.findall(path.read_text("utf-8"))) for path in sources}
    assert {name: classes for name, classes in found.items() if classes} == WITH_STATE
