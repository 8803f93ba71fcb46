"""Models of one backbone are found with few conversions: at most one for each group of Keras models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

from builder.merging import convert
from builder.merging.inspection import grouped
from builder.merging.kin import kin, kin_difference
from builder.merging.mixed_sources import Conversions
from builder.reading.classifier import Classifier
from builder.reading.reader import Reader
from builder.settings.input_scaling import PREPROCESSING
from tests import tflite_files
from tests.tiny_models import tiny_base, tiny_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a1, a2, a3 on one base, b1 and b2 on another; a1 and b1 also as ``.tflite`` (ta, tb)."""
    place = tmp_path_factory.mktemp("kin")
    for name, seed, heads in (("a", 0, 3), ("b", 5, 2)):
        base = tiny_base(seed)
        models = {f"{name}{i}": tiny_classifier(base, 2 + i, i) for i in range(1, heads + 1)}
        for path, model in models.items():
            model.save(place / f"{path}.keras")
        tflite_files.save(place, {f"t{name}": tflite_files.convert(models[f"{name}1"])})
    return place


def read(folder: Path, *names: str, raw: str = "") -> list[Classifier]:
    """``raw``: names of models whose pixels are not scaled."""
    reader = Reader()
    paths = [next(folder.glob(f"{name}.*")) for name in names]
    scaling = [PREPROCESSING["raw" if name in raw.split() else "tf"] for name in names]
    return [reader.read(name, path, how) for name, path, how in zip(names, paths, scaling, strict=True)]


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were converted, as they are."""
    names, real = list[str](), convert.convert_classifier

    def counted(classifier: Classifier, *args: Any) -> Any:
        names.append(classifier.name)
        return real(classifier, *args)

    monkeypatch.setattr(convert, "convert_classifier", counted)
    return names


@pytest.mark.parametrize(
    ("names", "raw", "groups", "needed"),
    [
        ("a1 a2 a3 b1", "", ["a1 a2 a3", "b1"], ""),  # no .tflite beside
        ("ta tb", "", ["ta", "tb"], ""),
        ("a1 a2 ta a3", "", ["a1 a2 ta a3"], "a1"),
        ("a3 tb a1 a2", "", ["a3 a1 a2", "tb"], "a3"),
        ("b2 a1 ta a2 b1 a3", "", ["b2 b1", "a1 ta a2 a3"], "b2 a1"),
        ("tb a1 ta b2 a2 b1", "", ["tb b2 b1", "a1 ta a2"], "a1 b2"),
        ("a1 a2 a3 ta", "ta", ["a1 a2 a3", "ta"], ""),  # another input: it cannot be the same base
        ("a1 b1 b2 ta", "b1 b2", ["a1 ta", "b1 b2"], "a1"),
    ],
)
def test_one_model_of_each_group_is_converted_and_only_beside_the_same_input(
    folder: Path, converted: list[str], names: str, raw: str, groups: list[str], needed: str
) -> None:
    found = kin(read(folder, *names.split(), raw=raw), 0.0, Conversions())
    assert [" ".join(one.name for one in group) for group in found] == groups
    assert sorted(converted) == sorted(needed.split())


def test_a_group_of_both_kinds_is_inspected_as_operators(folder: Path, converted: list[str]) -> None:
    found = grouped(read(folder, "b1", "a1", "ta", "a2"))
    assert [len(group.classifiers) for group in found] == [1, 3]
    assert all(group.shared is not None for group in found)
    assert sorted(converted) == ["a1", "a2", "b1"]  # each once, although several questions are asked of it


@pytest.mark.parametrize("raw", ["", "tb"])
def test_layers_and_operators_are_told_apart(folder: Path, raw: str) -> None:
    one, other = read(folder, "a1", "tb", raw=raw)
    for first, second in ((one, other), (other, one)):
        difference = kin_difference(first, second, Conversions())
        assert difference is not None and ("input scaling" in difference.what) == bool(raw)
        assert "Conv2D" not in difference.what or "CONV_2D" not in difference.what
