"""Two classifiers as liner.ai exports them become one file."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from click.testing import CliRunner, Result  # noqa: E402

from builder.commands.cli import main  # noqa: E402
from builder.reading.formats import Origin, read_model  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.settings.heads import HeadConfig, ResizeConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ConfigError  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LABELS = {
    "colours": ("blue", "green", "red", "white", "yellow"),
    "patterns": ("checks", "columns", "dots", "rows", "slopes"),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``examples/liner_like.py`` writes, in a process of its own; the names in ``classes.json`` turned round."""
    if importlib.util.find_spec("tf_keras") is None:  # never imported here: it and Keras 3 share TensorFlow's state
        pytest.skip("tf_keras is not installed")
    folder = tmp_path_factory.mktemp("liner")
    command = [sys.executable, "examples/liner_like.py", "--tiny", "--count", "10", "--output", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in LABELS:
        path = folder / name / "classes.json"
        path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    return folder


def run(exports: Path, output: Path, *options: str) -> Result:
    heads = [part for name in LABELS for part in ("--head", f"{name}={exports / name}")]
    data = ("--calibration-data", str(exports / "pictures"), "--output", str(output))
    return CliRunner().invoke(main, ["build", *heads, *data, "--precision", "float", "--rounding", "nearest", *options])


def test_the_folder_tells_labels_pixels_and_resizing(exports: Path) -> None:
    import h5py

    for name, labels in LABELS.items():
        model = read_model(exports / name)
        assert model.kind.startswith("liner.ai, Keras 2")
        assert model.origin == Origin(
            labels, PREPROCESSING["raw"], ResizeConfig("bicubic", True, "stretch"), labels_file="classes.json"
        )
        with h5py.File(exports / name / "model_keras.h5") as file:  # as the real ones have it; nothing of it is taken
            assert any("Adam" in str(key) or "adam" in str(key) for key in file["optimizer_weights"])


def test_two_folders_become_one_file_with_one_list(exports: Path, tmp_path: Path) -> None:
    done = run(exports, tmp_path / "one.tflite", "--size", "32", "--joint", "--no-joint-everyday")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "one.report" / "report.json").read_text())
    assert report["precision"] == "float"
    agreement = {name: head["agreement"] for name, head in report["verification"]["heads"].items()}
    assert list(agreement) == list(LABELS)
    assert min(agreement.values()) >= 0.97
    # What both trained on, the last layers of the base, is said with figures.
    said = (
        r"colours and patterns each have [\d,]+ parameters of their own beside [\d,]+ shared ones, about [\d.]+ kB in "
        r"int8, \d+% of the multiply-adds .*trainable = False"
    )
    assert any(re.match(said, note) for note in report["warnings"])
    assert any(note.startswith("the first layer that differs is block_se_") for note in report["warnings"])
    assert {head["parameters"] for head in report["heads"].values()} == {1605}
    assert all(0.05 < head["share_of_work"] < 0.5 and head["bytes"] > 1605 for head in report["heads"].values())
    with MultiHeadClassifier(tmp_path / "one.tflite") as classifier:
        assert {head.head_name: head.labels for head in classifier.heads} == LABELS
        found = {path: classifier.classify(path, joint=True) for path in sorted(exports.glob("pictures/*/*/*0.png"))}
    assert len(found) == 10  # one of each label
    right = dict.fromkeys(LABELS, 0)
    for path, result in found.items():
        name, label = path.parent.parent.name, path.parent.name
        right[name] += result.classifications[list(LABELS).index(name)].categories[0].category_name == label
        assert result.joint is not None
        assert {c.category_name for c in result.joint.categories} == {*LABELS["colours"], *LABELS["patterns"]}
    assert min(right.values()) >= 4  # of 5; labels in the order of the JSON would leave 1


def test_the_size_that_no_layer_tells_is_asked_for_in_one_line(exports: Path, tmp_path: Path) -> None:
    done = run(exports, tmp_path / "one.tflite")
    assert done.exit_code == 2
    (line,) = [line for line in done.output.splitlines() if "error" in line]
    assert str(exports / "colours" / "model_keras.h5") in line
    assert "pictures of any size" in line
    assert line.endswith("add --size PIXELS")
    assert list(tmp_path.iterdir()) == []


NOT_THE_CLASSES: dict[str, Any] = {
    "an index is missing": {"blue": 0, "green": 1, "red": 2, "white": 3, "yellow": 5},
    "an index stands twice": {"blue": 0, "green": 1, "red": 2, "white": 3, "yellow": 3},
    "from one": {"blue": 1, "green": 2, "red": 3, "white": 4, "yellow": 5},
    "below zero": {"blue": -1, "green": 0, "red": 1, "white": 2, "yellow": 3},
    "indices in words": {"blue": "0", "green": "1", "red": "2", "white": "3", "yellow": "4"},
    "truth for a number": {"blue": False, "green": True, "red": 2, "white": 3, "yellow": 4},
    "an empty name": {"": 0, "green": 1, "red": 2, "white": 3, "yellow": 4},
    "no names": {},
}


@pytest.mark.parametrize("case", NOT_THE_CLASSES)
def test_classes_that_are_not_those_of_the_outputs_are_one_line(exports: Path, tmp_path: Path, case: str) -> None:
    shutil.copy(exports / "colours" / "model_keras.h5", tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(NOT_THE_CLASSES[case]))
    with pytest.raises(ConfigError) as raised:
        load_classifiers([HeadConfig("a", tmp_path, size=(32, 32))])
    assert str(raised.value).startswith("heads.a.labels: ")
    assert "\n" not in str(raised.value)
    own = HeadConfig("a", tmp_path, LABELS["colours"], size=(32, 32))  # who says them needs none
    assert load_classifiers([own])[0].labels == LABELS["colours"]


def test_classes_beside_another_model_are_its_labels_and_nothing_else(tmp_path: Path) -> None:
    tiny_classifier(tiny_base(), 3).save(tmp_path / "model.keras")
    (tmp_path / "classes.json").write_text('{"c": 2, "a": 0, "b": 1}')
    model = read_model(tmp_path)
    assert not model.kind.startswith("liner.ai")
    assert model.origin == Origin(("a", "b", "c"), labels_file="classes.json")
