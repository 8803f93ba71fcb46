"""Teachable Machine's and Frigate's downloads, and everything else that people take for a model file."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.reading.formats import Origin, read_model  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.reading.picture_input import PictureSourceInput  # noqa: E402
from builder.reading.resizing import common_resize, resize_notes  # noqa: E402
from builder.settings.heads import HeadConfig, ResizeConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError  # noqa: E402
from builder.support.naming import as_options  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

LABELS = "0 Cat\n1 Big dog\n2 Nothing\n"
NAMES, LANCZOS = ("Cat", "Big dog", "Nothing"), ResizeConfig("lanczos", True, "crop")
TEACHABLE = Origin(NAMES, PREPROCESSING["tf"], LANCZOS, labels_file="labels.txt")


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


def test_teachable_machine_is_known_with_its_labels_under_another_name(download: Path) -> None:
    (download / "labels.txt").rename(download / "labelmap.txt")
    for path in (download, download / "keras_model.h5", zipped(download)):
        assert read_model(path).origin == replace(TEACHABLE, labels_file="labelmap.txt")


def test_teachable_machine_is_known_as_a_saved_model(tf_keras_files: Path, tmp_path: Path) -> None:
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


# How a person or a program may write the three names, and get them.
SPELLINGS: dict[str, bytes] = {
    "without numbers": "\n".join(NAMES).encode(),
    "from one": b"1 Cat\n2 Big dog\n3 Nothing\n",
    "dots": b"0. Cat\n1. Big dog\n2. Nothing\n",
    "tabs": b"0\tCat\n1\tBig dog\n2\tNothing",
    "Windows": LABELS.replace("\n", "\r\n").encode("utf-8-sig"),
    "an old Mac": LABELS.replace("\n", "\r").encode(),
    "UTF-16": LABELS.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + LABELS.encode("utf-16-be"),
    "another order, empty lines": b"\n 2 Nothing\n\n0 Cat  \n1 Big dog\n\n",
    "digits of another script": "\u0660 Cat\n\u0661 Big dog\n\u0662 Nothing\n".encode(),
}
# The same three in encodings without a byte order mark, or with other characters that a name may have.
NAMED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "Korean, cp949": ("0 고양이\n1 큰 개\n2 없음\n".encode("cp949"), ("고양이", "큰 개", "없음")),
    "Latin-1": ("0 Limón\n1 Piña\n2 Maíz\n".encode("latin-1"), ("Limón", "Piña", "Maíz")),
    "a line separator in a name": ("0 Cat\u2028a\n1 Dog\n2 None\n".encode(), ("Cat\u2028a", "Dog", "None")),
    "emoji": ("0 👍🏽\n1 👎\n2 🤷‍♀️\n".encode(), ("👍🏽", "👎", "🤷‍♀️")),
    "commas": (b'0 rock, stone\n1 a; b\n2 "c"\n', ("rock, stone", "a; b", '"c"')),
}
TROUBLE: dict[str, tuple[bytes, str]] = {
    "a gap": (b"0 Cat\n2 Big dog\n3 Nothing\n", "expected numbers 0 to 2, each once, found 0, 2, 3"),
    "a number twice": (b"0 Cat\n1 Big dog\n1 Nothing\n", "each once, found 0, 1, 1"),
    "a name is missing": (b"0 Cat\n1 \n2 Nothing\n", "number 1 has no name"),
    "5,000 digits": (b"9" * 5000 + b" x\n", ""),  # a name like any other
    "no text": (bytes(range(128, 256)), "can't decode"),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_labels_are_read_from_their_place_however_they_are_written(download: Path, case: str) -> None:
    (download / "labels.txt").write_bytes(SPELLINGS[case])
    for path in (download, download / "keras_model.h5", zipped(download)):
        assert read_model(path).origin == TEACHABLE


@pytest.mark.parametrize("case", NAMED)
def test_names_in_any_script_and_code(download: Path, case: str) -> None:
    data, names = NAMED[case]
    (download / "labels.txt").write_bytes(data)
    assert read_model(download).origin.labels == names


@pytest.mark.parametrize("case", TROUBLE)
def test_labels_that_no_one_can_read_are_trouble_for_who_needs_them(download: Path, case: str) -> None:
    data, words = TROUBLE[case]
    (download / "labels.txt").write_bytes(data)
    assert words in read_model(download).origin.trouble
    if words:
        with pytest.raises(ConfigError, match=r"^heads\.a\.labels: the labels beside"):
            load_classifiers([HeadConfig("a", download)])
    own = HeadConfig("a", download, NAMES)  # who says them needs none
    assert load_classifiers([own])[0].labels == NAMES


def test_labels_beside_several_models_are_told_and_too_many_refused(download: Path) -> None:
    model = download / "keras_model.h5"
    head = HeadConfig("a", model)
    assert load_classifiers([head])[0].notes == ()
    shutil.copy(model, download / "other.h5")
    (note,) = load_classifiers([head])[0].notes
    assert (
        note
        == "its labels are from labels.txt, which lies beside other.h5 too; if they are not its own, set heads.a.labels"
    )
    assert load_classifiers([HeadConfig("a", model, NAMES)])[0].notes == ()
    (download / "labels.txt").write_text(LABELS + "3 More\n")
    own = download / "keras_model.txt"  # a file with the model's name is its own
    own.write_text("x\ny\nz\n")
    (classifier,) = load_classifiers([head])
    assert (classifier.labels, classifier.notes) == (("x", "y", "z"), ())
    own.rename(own.with_suffix(".json"))  # no labels
    words = "heads.a.labels: keras_model.h5: expected 3 labels, .*; found 4 in labels.txt beside it; if that is another's"
    with pytest.raises(ConfigError, match=words):
        load_classifiers([head])


def test_the_model_itself_says_whose_it_is(download: Path) -> None:
    (download / "labels.txt").unlink()
    (download / "keras_model.h5").rename(download / "keras_Model.h5")
    (download / "._keras_Model.h5").write_bytes(b"\0\5\x16\7 of another system")
    for path in (download, download / "keras_Model.h5"):
        model = read_model(path)
        assert (model.origin, model.kind[:17]) == (Origin(None, PREPROCESSING["tf"], LANCZOS), "Teachable Machine")


def test_sources_that_were_resized_otherwise_are_an_error_that_says_what_to_write() -> None:
    def source(resize: ResizeConfig) -> PictureSourceInput:
        return PictureSourceInput((8, 8), PREPROCESSING["raw"], PREPROCESSING["raw"], resize)

    silent, taught, stretched = (source(r) for r in (ResizeConfig(), LANCZOS, ResizeConfig(fit="stretch")))
    plain = ResizeConfig()
    assert common_resize(plain, {"a": silent, "b": silent}) == ResizeConfig("bilinear", True, "stretch")
    assert common_resize(plain, {"a": silent, "b": taught}) == LANCZOS
    assert common_resize(ResizeConfig("area"), {"a": silent, "b": taught}) == ResizeConfig("area", True, "crop")
    (note,) = resize_notes(plain, {"a": silent, "b": taught})
    assert "pictures of a were resized; they are resized like those of b, lanczos,crop" in note
    assert resize_notes(plain, {"a": silent}) == resize_notes(plain, {"b": taught}) == ()
    with pytest.raises(ConfigError, match=r'resized by lanczos,crop, b by bilinear,stretch.*resize = "lanczos,crop" or'):
        common_resize(plain, {"a": taught, "b": stretched})
    with as_options(), pytest.raises(ConfigError, match="choose one: --resize lanczos,crop or --resize bilinear,stretch"):
        common_resize(plain, {"a": taught, "b": stretched})
    assert common_resize(ResizeConfig("area", True, "pad"), {"a": taught, "b": stretched}).fit == "pad"


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
        assert read_model(path).origin == Origin(
            ("known", "unknown"), PREPROCESSING["unit"], ResizeConfig(fit="stretch"), labels_file="labelmap.txt"
        )


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
