"""A little of ``tests.fuzz`` in every run, always the same inputs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("keras")

from tests.fuzz import WELL, run_cases
from tests.fuzz_readers import KINDS, make_seeds

COUNTS = {
    "models": 120,
    "labels": 400,
    "toml": 400,
    "pictures": 300,
    "members": 300,
    "flatbuffers": 200,
    "packs": 200,
    "sources": 200,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    place, has_tf_keras = tmp_path_factory.mktemp("fuzz"), importlib.util.find_spec("tf_keras") is not None
    make_seeds(place / "seeds", request.getfixturevalue("tf_keras_files") if has_tf_keras else None)
    return place


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_inputs_are_read_or_refused_in_one_line(folder: Path, kind: str) -> None:
    counts = run_cases(kind, folder, 1_000_000, COUNTS[kind])
    assert sum(counts.values()) == COUNTS[kind]
    assert {what: count for what, count in counts.items() if what not in WELL} == {}
    assert counts["refused"] > 0  # else the damage does none
