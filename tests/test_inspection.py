"""``builder inspect``: what it says of models that share, and of models that do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")

from builder.merging.inspection import Group, inspect, to_json
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import ModelFileError
from tests.tiny_models import FEATURES, tiny_base, tiny_classifier

TF = PREPROCESSING["tf"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a and b share a base, c and d another; e has a's base behind other pixels."""
    import keras

    folder, first, second = tmp_path_factory.mktemp("models"), tiny_base(), tiny_base(seed=1)
    for name, model in {
        "a": tiny_classifier(first, 3),
        "b": tiny_classifier(first, 4, seed=2, hidden=5),
        "c": tiny_classifier(second, 3),
        "d": tiny_classifier(second, 2, seed=4),
        "e": tiny_classifier(first, 3, before=[keras.layers.Rescaling(2.0)]),
    }.items():
        model.save(folder / f"{name}.keras")
    return folder


def inspected(folder: Path, names: str) -> tuple[Group, ...]:
    return inspect([(path, TF) for path in paths(folder, names)])


def paths(folder: Path, names: str) -> list[Path]:
    return [folder / f"{name}.keras" for name in names]


def test_models_that_share_are_one_group(folder: Path) -> None:
    document = to_json(inspected(folder, "ab"))
    assert document["shared"] is True
    assert document["first_difference"] is None
    assert document["backbone"]["digest"].startswith("sha256:")
    assert document["backbone"]["parameters"] == tiny_base().count_params()
    assert document["backbone"]["features"] == [FEATURES]
    assert [model["head_parameters"] for model in document["models"]] == [64 * 3 + 3, 64 * 5 + 5 + 5 * 4 + 4]
    assert document["models"][1]["head_layers"] == ["hidden", "scores"]


@pytest.mark.parametrize(("names", "groups"), [("acbd", [0, 1, 0, 1]), ("cab", [0, 1, 1]), ("a", [0])])
def test_groups_are_those_that_share(folder: Path, names: str, groups: list[int]) -> None:
    found = inspected(folder, names)
    where = {str(c.path): number for number, group in enumerate(found) for c in group.classifiers}
    assert [where[str(path)] for path in paths(folder, names)] == groups
    assert to_json(found)["shared"] is (len(set(groups)) == 1)


def test_the_first_difference_is_named(folder: Path) -> None:
    difference = to_json(inspected(folder, "ac"))["first_difference"]
    assert difference["model"].endswith("c.keras")
    assert difference["layer"].endswith("tiny_base_stem")
    assert "kernel differs by up to" in difference["what"]
    pixels = to_json(inspected(folder, "ae"))["first_difference"]
    assert "its pixels enter as" in pixels["what"]


def test_a_file_that_is_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_text("nothing")
    with pytest.raises(ModelFileError, match=r"x\.keras"):
        inspect([(folder / "a.keras", TF), (tmp_path / "x.keras", TF)])


def test_each_model_may_have_pixels_of_its_own(folder: Path) -> None:
    """e doubles what it is given: with x / 255 - 0.5 outside it sees the pixels that a sees."""
    options = ["--preprocessing", "tf", "--preprocessing", "e=0.00392156862745098,-0.5"]
    command = [sys.executable, "-m", "builder", "inspect", *map(str, paths(folder, "ae")), *options, "--json"]
    assert json.loads(subprocess.run(command, capture_output=True, text=True).stdout)["shared"] is True


@pytest.mark.parametrize(("names", "code"), [("ab", 0), ("ac", 3)])
def test_the_command_prints_and_its_exit_code_tells(folder: Path, names: str, code: int) -> None:
    command = [sys.executable, "-m", "builder", "inspect", *map(str, paths(folder, names)), "--preprocessing", "tf"]
    text = subprocess.run(command, capture_output=True, text=True)
    assert (text.returncode, text.stderr) == (code, "")
    assert all(path.name in text.stdout for path in paths(folder, names))
    assert ("differs from" in text.stdout) is (code == 3)
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True).stdout)
    assert set(document) == {"shared", "backbone", "models", "first_difference"}
