"""All errors in the files of a configuration are reported together, before TensorFlow is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from builder.commands.cli import main
from builder.reading import loading
from builder.reading.early import _labels
from builder.reading.peek import peek
from builder.settings.heads import HeadConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import ConfigError, ModelFileError, SamplesError
from edge_runtime.errors import said
from tests.tiny_models import save_pictures, tiny_base, tiny_classifier


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of 3 and 2 labels on one base, their labels, a folder of pictures and an empty one."""
    folder = tmp_path_factory.mktemp("early")
    base = tiny_base()
    for name, count in (("cats", 3), ("dogs", 2)):
        tiny_classifier(base, count, count).save(folder / f"{name}.keras")
        (folder / f"{name}.txt").write_text("".join(f"{name} {i}\n" for i in range(count)))
    save_pictures(folder / "pictures", {"cats": 3})
    (folder / "empty").mkdir()
    return folder


def said_early(arguments: list[str], folder: Path) -> list[str]:
    """What ``builder`` says before it ends with exit code 2, without TensorFlow."""
    program = (
        "import sys\nfrom builder.commands.cli import main\n"
        "try:\n    main()\nfinally:\n    sys.stdout.write(' '.join({'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *arguments]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()


def test_all_that_is_wrong_is_told_at_once_and_by_its_keys(files: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(
        f'output = "out.tflite"\ncalibration_data = "nowhere"\nverification_data = "{files}/empty"\n'
        f'[heads.cats]\nmodel = "{files}/cats.keras"\nlabels = ["one", "two"]\n'
        f'[heads.dogs]\nmodel = "{files}/wolves.keras"\nlabels = "wolves.txt"\npreprocessing = "tf"\n'
    )
    found = said_early(["build", str(config)], tmp_path)
    assert [line.split(": ")[1] for line in found] == [
        "heads.cats.preprocessing",
        "heads.cats.labels",
        "heads.dogs.model",
        "heads.dogs.labels",
        "calibration_data",
        "verification_data",
    ]
    assert all("--" not in line for line in found)
    assert not any("Errno" in line for line in found)


def test_a_command_is_told_the_same_by_its_options(files: Path) -> None:
    heads = ["--head", "cats=cats.keras", "--head", "dogs=wolves.keras", "--labels", "cats=dogs.txt"]
    found = said_early(["build", *heads, "--output", "o.tflite", "--calibration-data", "empty"], files)
    assert [line.split(": ")[1] for line in found] == [
        "--preprocessing cats",
        "--labels cats",
        "dogs=wolves.keras",
        "--calibration-data",
    ]


def test_mistakes_about_a_new_head_are_found_early(files: Path, tiny_file: Path) -> None:
    options = ["--calibration-data", "nowhere", "--labels", "cats.txt", "--output", "o.tflite"]
    found = said_early(["add-head", str(tiny_file), "dogs=dogs.keras", *options], files)
    assert [line.split(": ")[1] for line in found] == ["--labels dogs", "--calibration-data"]
    assert "expected 2 labels" in found[0]


@pytest.mark.parametrize("text", ["heads = [", "\x00", "output = 'a'\noutput = 'b'", "﻿output="])
def test_toml_that_cannot_be_read_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    (line,) = said_early(["build", "bad.toml"], tmp_path)
    assert line.startswith("error: bad.toml: not a TOML file: ")


# What the look says is what the reader says; where it cannot know, it is silent


def forms(base: Callable[..., Any]) -> dict[str, tuple[Any, int | None, bool]]:
    """Models with the number of outputs that a quick look finds, and whether their input scaling is missing."""
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    plain = tiny_classifier(base(), 4)
    nested = keras.Sequential([keras.Input((32, 32, 3)), base(), keras.Sequential([layers.Dense(5), layers.Softmax()])])
    behind = keras.Model(image, layers.Activation("softmax")(layers.Dense(6)(base()(image))))
    rescaled = tiny_classifier(base(), 4, before=[layers.Rescaling(1 / 127.5, -1)])
    divided = keras.Model(image, layers.Dense(3)(base()(image / 127.5 - 1)))
    moved = keras.Model(image, layers.Dense(3, activation="softmax")(base()(layers.RandomFlip()(image))))
    reshaped = keras.Model(image, layers.Reshape((2, 2))(layers.Dense(4)(base()(image))))
    return {
        "plain": (plain, 4, True),
        "nested": (nested, 5, True),
        "an activation behind": (behind, 6, True),
        "a Rescaling inside": (rescaled, 4, False),
        "operations inside": (divided, 3, False),
        "augmentation inside": (moved, 3, True),
        "a Reshape behind": (reshaped, None, True),
    }


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_look_says_what_the_whole_reading_says(suffix: str, tmp_path: Path) -> None:
    from builder.reading.reader import Reader

    for name, (model, outputs, silent) in forms(tiny_base).items():
        path = tmp_path / f"model{suffix}"
        model.save(path)
        found = peek(path)
        assert found is not None
        assert (found.outputs, found.is_silent) == (outputs, silent), name
        if suffix == ".h5" and name == "operations inside":
            continue  # not read
        classifier = Reader().read("a", path, None)
        assert found.outputs in (None, classifier.end[1]), name
        assert not silent or classifier.source_input.unsaid, name


def test_a_look_at_anything_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    for content in (b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"TFL3", json.dumps({"class_name": "x"}).encode()):
        path.write_bytes(content)
        assert peek(path) is None


def test_a_download_says_how_its_pixels_enter(files: Path, tmp_path: Path) -> None:
    """Of a model with a download's labels beside it, the reader decides."""
    copy = tmp_path / "dogs.keras"
    copy.write_bytes((files / "dogs.keras").read_bytes())
    assert peek(copy).is_silent  # type: ignore[union-attr]
    (tmp_path / "labels.txt").write_text("0 a\n1 b\n")
    assert not peek(copy).is_silent  # type: ignore[union-attr]


def _archive(path: Path, definition: str, version: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", definition)
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))


def _hdf5(path: Path, definition: str, version: str | bytes) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": definition, "keras_version": version})


def _hdf5_of_bytes(path: Path, definition: str, version: str) -> None:
    _hdf5(path, definition, np.bytes_(version))  # as Keras 2 before h5py 3


@pytest.mark.parametrize("write", [_archive, _hdf5, _hdf5_of_bytes])
@pytest.mark.parametrize(
    ("version", "more", "framework"),
    [
        ("3.8.0", {"module": "keras"}, "keras"),
        ("2.15.0", {"module": "keras"}, "tf_keras"),
        ("2.15.0", {}, "tf_keras"),
        ("", {"module": "keras"}, "keras"),
        ("", {}, "tf_keras"),
        ("9" * 5000, {"module": "keras"}, "keras"),  # too long for an integer
    ],
)
def test_the_framework_of_an_original_is_started_before_the_file_is_read(
    write: Any, version: str, more: Any, framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(loading, "start_framework", started.append)
    write(tmp_path / "model", json.dumps({"class_name": "Sequential", "config": {"layers": []}, **more}), version)
    loading.start_original(tmp_path / "model")
    assert started == [framework]


def test_no_framework_is_started_for_what_a_quick_look_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "start_framework", pytest.fail)
    (tmp_path / "model.tflite").write_bytes(b"\0\0\0\0TFL3")
    for name in ("model.tflite", "nothing", "."):
        loading.start_original(tmp_path / name)


IMPORTED = """
import importlib, sys
from builder.support.lean_keras import spare_keras
spare_keras()
importlib.import_module(sys.argv[1])
print(sorted({"matplotlib", "sklearn"} & set(sys.modules)))
import sklearn
"""


@pytest.mark.parametrize("framework", ["keras", "tf_keras"])
def test_keras_is_imported_without_the_libraries_of_its_plots_and_wrappers(framework: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, framework],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# One kind of mistake keeps its class


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"calibration_data": "nowhere"}, SamplesError),
        ({"model": "nothing.keras"}, ModelFileError),
        ({"calibration_data": "nowhere", "model": "nothing.keras"}, ConfigError),
    ],
)
def test_a_mistake_of_one_kind_keeps_its_class(change: dict[str, str], kind: type[Exception], files: Path) -> None:
    from builder.reading.early import check_early
    from builder.settings.config import BuildConfig

    said = {"calibration_data": "pictures", "model": "dogs.keras", **change}
    head = {"model": files / said["model"], "preprocessing": "tf", "labels": ["a", "b"]}
    document = {"output": files / "o", "calibration_data": files / said["calibration_data"], "heads": {"dogs": head}}
    with pytest.raises(kind) as caught:
        check_early(BuildConfig.from_document(document))
    assert type(caught.value) is kind


# Errors of the system


def test_an_error_of_the_system_names_the_file_and_not_its_number(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "none").open()
    assert said(missing.value) == f"{tmp_path}/none: No such file or directory"
    assert said(OSError("plain")) == "plain"


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "none.tflite", "--data", "nowhere"],
        ["train-head", "nowhere", "--output", "o.keras"],
        ["inspect", "none.keras"],
        ["build", "none.toml"],
        ["init", "nowhere"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_says_errno(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert "Errno" not in done.output
    assert "none" in done.output or "nowhere" in done.output


def test_labels_that_are_no_file_are_said_to_be_what_they_are(files: Path) -> None:
    os.mkfifo(files / "pipe.txt")
    for name, what in (("pipe.txt", "found a pipe"), ("/dev/zero", "found a device"), ("none.txt", "no such file")):
        head = HeadConfig("cats", files / "cats.keras", files / name, PREPROCESSING["tf"])
        with pytest.raises(ConfigError, match=f"{what}.*one label a line"):
            _labels(head)
