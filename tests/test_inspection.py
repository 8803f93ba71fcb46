"""``builder inspect`` on models that share a backbone, and on models that do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("keras")

from builder.commands.cli import main
from builder.merging.backbone import reaches_into_base
from builder.merging.inspection import Group, inspect, to_json
from builder.merging.share import share_sentences
from builder.settings.heads import HeadConfig
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
    return inspect([HeadConfig("model", path, preprocessing=TF) for path in paths(folder, names)])


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


def test_how_pixels_enter_need_not_be_said_where_another_model_tells(folder: Path) -> None:
    """``told`` has the arithmetic inside; a and c do not say it, and only a has its base."""
    import keras

    told = tiny_classifier(tiny_base(), 3, seed=5, before=[keras.layers.Rescaling(1 / 127.5, -1)])
    told.save(folder / "told.keras")
    found = inspect([HeadConfig("model", path) for path in [folder / "told.keras", *paths(folder, "abc")]])
    assert [[c.path.stem for c in group.classifiers] for group in found] == [["told", "a", "b"], ["c"]]
    assert str(found[0].classifiers[1].source_input) == "32 x 32 as pixel * 0.00784314 - 1"
    caffe = HeadConfig("model", folder / "a.keras", preprocessing=PREPROCESSING["caffe"])
    found = inspect([HeadConfig("model", folder / "told.keras"), caffe])
    assert len(found) == 2  # what the user says is taken as it is


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
    assert "its input scaling is" in pixels["what"]


def test_a_file_that_is_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_text("nothing")
    with pytest.raises(ModelFileError, match=r"x\.keras"):
        inspect([HeadConfig("model", path, preprocessing=TF) for path in (folder / "a.keras", tmp_path / "x.keras")])


def test_each_model_may_have_pixels_of_its_own(folder: Path) -> None:
    """e doubles what it is given: with x / 255 - 0.5 outside it sees the pixels that a sees."""
    options = ["--preprocessing", "tf", "--preprocessing", "e=0.00392156862745098,-0.5"]
    assert json.loads(run_inspect(*paths(folder, "ae"), *options, "--json").stdout)["shared"] is True


@pytest.mark.parametrize(("names", "code"), [("ab", 0), ("ac", 3)])
def test_the_command_prints_and_its_exit_code_tells(folder: Path, names: str, code: int) -> None:
    arguments = [*map(str, paths(folder, names)), "--preprocessing", "tf"]
    if code:
        command = [sys.executable, "-m", "builder", "inspect", *arguments]  # with what the libraries would print
        text = subprocess.run(command, capture_output=True, text=True)
        status, stdout, stderr = text.returncode, text.stdout, text.stderr
    else:
        done = run_inspect(*arguments)
        status, stdout, stderr = done.exit_code, done.stdout, done.stderr
    assert (status, stderr) == (code, "")
    assert all(path.name in stdout for path in paths(folder, names))
    assert ("differs from" in stdout) is (code == 3)
    document = json.loads(run_inspect(*arguments, "--json").stdout)
    assert set(document) == {"shared", "backbone", "models", "first_difference"}


def multiply_adds(model: Any) -> int:
    """Of a Keras model for one picture, layer by layer from the shapes that it really has."""
    total = 0
    for layer in model.layers:
        kernels = sum(int(np.prod(weight.shape)) for weight in layer.weights if len(weight.shape) > 1)
        total += multiply_adds(layer) if hasattr(layer, "layers") else kernels * int(np.prod(layer.output.shape[1:-1]))
    return total


def test_each_head_has_its_share_of_the_work(folder: Path) -> None:
    import keras

    found = to_json(inspected(folder, "ab"))
    assert found["backbone"]["multiply_adds"] == multiply_adds(tiny_base())
    assert [model["head_multiply_adds"] for model in found["models"]] == [64 * 3, 64 * 5 + 5 * 4]
    for name, model in zip("ab", found["models"], strict=True):
        whole = multiply_adds(keras.saving.load_model(folder / f"{name}.keras"))
        assert model["share_of_work"] == model["head_multiply_adds"] / whole


def test_a_large_head_behind_the_pooling_gets_no_advice_that_cannot_be_followed(folder: Path, tmp_path: Path) -> None:
    """As Teachable Machine's: a hidden layer of a third of all parameters, which is always trained."""
    base, models = tiny_base(), []
    for seed in (1, 2):
        models.append(HeadConfig("model", tmp_path / f"{seed}.keras", preprocessing=TF))
        tiny_classifier(base, 3, seed=seed, hidden=100).save(models[-1].model)
    (group,) = inspect(models)
    assert group.difference is None
    (sentence,) = share_sentences(group.shares)  # of both, since they cost the same
    assert "each have 6,803 parameters of their own" in sentence
    assert sentence.endswith("nothing needs to be done: this is all that follows the base")


def run_inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def words_of(done: Result) -> str:
    """What was printed, as one line; the tree's branches left out."""
    return " ".join(done.output.replace("│", " ").split())


def test_how_pictures_are_resized_is_shown_and_said_for_each(folder: Path) -> None:
    pair = (*paths(folder, "ab"), "--preprocessing", "tf")
    silent = words_of(run_inspect(*pair))
    assert silent.count("resizing unknown, assumed bilinear, antialiased, stretch") == 2
    said = run_inspect(*pair, "--resize", "b=lanczos,crop")
    assert said.exit_code == 0, said.output
    assert "349 parameters of its own; pictures: lanczos, antialiased, crop" in words_of(said)
    assert "it is unknown how the pictures of" in words_of(said)  # of a: it would be taken as b's
    both = run_inspect(*pair, "--resize", "b=lanczos,crop", "--resize", "bilinear,no-antialias")
    assert "choose one: --resize bilinear,no-antialias,stretch or --resize lanczos,crop" in words_of(both)
    document = json.loads(run_inspect(*pair, "--resize", "b=lanczos,crop", "--json").output)
    assert [model["resize"]["method"] for model in document["models"]] == [None, "lanczos"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resize", "x=crop"), "--resize x: no such name; there are: a, b"),
        (("--resize", "b=shrink"), "--resize b: expected a table"),
        (("--size", "b=64"), "takes only 32 x 32"),
        (("--size", "b=0"), "--size b: expected a number of pixels"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, options: tuple[str, str], words: str) -> None:
    done = run_inspect(*paths(folder, "ab"), "--preprocessing", "tf", *options)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert words in line


def test_models_that_are_called_alike_go_by_their_folders(folder: Path, tmp_path: Path) -> None:
    models = []
    for name in "ab":
        models.append(tmp_path / name / "keras_model.keras")
        models[-1].parent.mkdir()
        models[-1].write_bytes((folder / f"{name}.keras").read_bytes())
    options = ("--preprocessing", "a=tf", "--preprocessing", "b=tf")
    assert json.loads(run_inspect(*models, *options, "--json").output)["shared"] is True
    said = run_inspect(*models, *options).output
    assert all(f"\n  {name}/keras_model.keras has " in said for name in "ab")


@pytest.mark.parametrize("place", ["model.h5", "model.keras", "folder/keras_model.h5"])
def test_a_pointer_of_git_lfs_says_how_to_get_the_model(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2091132\n")
    (path.parent / "labels.txt").write_text("0 a\n1 b\n")
    done = run_inspect(tmp_path / place.split("/")[0])
    assert done.exit_code == 2
    assert "git lfs pull" in done.output
    assert len(done.output.splitlines()) == 1


def test_a_head_behind_the_pooling_is_no_trained_base() -> None:
    """However large it is; a convolution of its own is one."""
    dense, convolution = (SimpleNamespace(kind=kind, weights=(1,)) for kind in ("Dense", "SeparableConv2D"))
    assert not reaches_into_base([dense, dense])  # type: ignore[list-item]
    assert reaches_into_base([dense, convolution])  # type: ignore[list-item]


def test_a_scaling_that_is_done_twice_is_told_before_a_build(tmp_path: Path) -> None:
    import keras

    model = tmp_path / "own.keras"
    tiny_classifier(tiny_base(), 3, before=[keras.layers.Rescaling(1 / 127.5, offset=-1)]).save(model)
    assert "twice" not in words_of(run_inspect(model))
    twice = words_of(run_inspect(model, "--preprocessing", "tf"))
    assert "own.keras: preprocessing is done twice" in twice
    assert twice.count("set --preprocessing own=raw") == 1


def test_a_model_that_shares_with_no_other_is_not_said_to(folder: Path) -> None:
    shown = words_of(run_inspect(*paths(folder, "ac"), "--preprocessing", "tf"))
    assert "2 groups that share no backbone" in shown
    assert "shared ones" not in shown
    assert "beside" in words_of(run_inspect(*paths(folder, "a"), "--preprocessing", "tf"))
