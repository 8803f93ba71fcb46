"""Teachable Machine's and Frigate's downloads, and everything else that people take for a model file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.reading.formats import Origin, read_model  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

LABELS = "0 Cat\n1 Big dog\n2 Nothing\n"
TEACHABLE = Origin(("Cat", "Big dog", "Nothing"), PREPROCESSING["tf"], "crop")


@pytest.fixture
def download(tf_keras_files: Path, tmp_path: Path) -> Path:
    """An unpacked "Keras" download of Teachable Machine."""
    folder = tmp_path / "converted_keras"
    folder.mkdir()
    shutil.copy(tf_keras_files / "stack.h5", folder / "keras_model.h5")
    (folder / "labels.txt").write_text(LABELS)
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


def test_teachable_machine_is_known_packed_unpacked_and_bare(download: Path) -> None:
    for path in (download, download / "keras_model.h5", zipped(download)):
        model = read_model(path)
        assert model.origin == TEACHABLE
        assert model.kind.startswith("Teachable Machine")
        assert model.path == path or model.path == download / "keras_model.h5"


def test_its_saved_model_download_too(tf_keras_files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "converted_savedmodel"
    shutil.copytree(tf_keras_files / "stack_saved", folder / "model.savedmodel")
    (folder / "labels.txt").write_text(LABELS)
    expected = read_model(tf_keras_files / "stack.h5")
    for path in (folder, folder / "model.savedmodel", zipped(folder)):
        model = read_model(path)
        assert model.origin == TEACHABLE
        for place, values in expected.weights.items():
            assert all(map(np.array_equal, values, model.weights[place]))


def test_a_zip_answers_as_the_file_in_it(download: Path, tf_keras_files: Path) -> None:
    saved = np.load(tf_keras_files / "stack.npz")
    answers = np.asarray(read_model(zipped(download)).live()(saved["pictures"], training=False))
    assert np.max(np.abs(answers - saved["answers"])) < 1e-5


@pytest.mark.parametrize("labels", ["Cat\nDog\nNothing\n", "1 Cat\n2 Dog\n3 Nothing\n", None])
def test_labels_of_another_form_say_nothing(download: Path, labels: str | None) -> None:
    (download / "labels.txt").unlink()
    if labels is not None:
        (download / "labels.txt").write_text(labels)
    assert read_model(download).origin == Origin()


def test_another_model_beside_numbered_labels_is_not_teachable_machines(download: Path, tf_keras_files: Path) -> None:
    shutil.copy(tf_keras_files / "flat.h5", download / "keras_model.h5")
    assert read_model(download).origin == Origin()


def frigate(base: Any, **changes: Any) -> Any:
    layers = keras.layers
    end = layers.Dense(2, activation=changes.get("activation", "softmax"))
    return keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(8, "relu"), layers.Dropout(0.3), end])


def test_frigates_layout(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("known\nunknown\n")
    (tmp_path / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")  # beside a Keras model, that is what is read
    frigate(tiny_base(size=16, pooling=False)).save(tmp_path / "model.keras")
    for path in (tmp_path, tmp_path / "model.keras"):
        assert read_model(path).origin == Origin(("known", "unknown"), PREPROCESSING["unit"], "stretch")


def test_what_is_not_as_frigate_makes_it_is_not_told_frigates_pixels(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("known\nunknown\n")
    base = tiny_base(size=16, pooling=False)
    scaled = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), base])
    for model in (frigate(scaled), frigate(base, activation="sigmoid"), tiny_classifier(tiny_base(size=16), 2)):
        model.save(tmp_path / "model.keras")
        assert read_model(tmp_path / "model.keras").origin == Origin()


OTHERS = {
    "tflite": (b"\x1c\0\0\0TFL3rest of it", "found a TensorFlow Lite model"),
    "pickle": (b"\x80\x04\x95rest of it", "a pickle, which is a program and is never loaded"),
    "json": (b'{"class_name": "Sequential"}', "an architecture without weights"),
    "text": (b"no model", "expected a Keras model: .keras, .h5"),
    "nothing": (b"", "the file is empty"),
    "empty zip": (b"PK\x05\x06" + b"\0" * 18, "empty archive"),
}

FOLDERS = {
    "tflite": (("model_unquant.tflite", "labels.txt"), "unpack it, and name one .tflite file in it"),
    "tfjs": (("model.json", "weights.bin", "metadata.json"), "TensorFlow.js; in Teachable Machine choose"),
    "torch": (("archive/data.pkl", "archive/data/0"), "a PyTorch file"),
    "two models": (("a.h5", "b/c.keras"), "2 models in it .a.h5, b/c.keras.; name one of them"),
    "pictures": (("cat.jpg", "dog.jpg"), "found none in it"),
    "no graph": (("variables/variables.index", "keras_metadata.pb"), "no saved_model.pb"),
    "unpacked": (("config.json", "metadata.json", "model.weights.h5"), "unpacked .keras archive; name the archive"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, case: str) -> None:
    data, words = OTHERS[case]
    (tmp_path / "model.keras").write_bytes(data)
    with pytest.raises(ModelFileError, match=words) as error:
        read_model(tmp_path / "model.keras")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", FOLDERS)
def test_other_folders_are_named_for_what_they_are(tmp_path: Path, case: str) -> None:
    names, words = FOLDERS[case]
    folder = tmp_path / "download"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(ModelFileError, match=words):
        read_model(folder)
    if case != "unpacked":  # which in a zip is a .keras archive, if a broken one
        with pytest.raises(ModelFileError, match=words):
            read_model(zipped(folder))


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        read_model(tmp_path / "gone.keras")
    with pytest.raises(ModelFileError, match="found none in it"):
        read_model(tmp_path)
