"""Wrong model files: an error of one line each, before anything is built."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError  # noqa: E402
from tests.tiny_models import difference_from_originals, tiny_base, tiny_classifier  # noqa: E402

layers = keras.layers


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.keras"
    tiny_classifier(tiny_base(), 3).save(path)
    return path


def load(path: Path, labels: Any = ("a", "b", "c"), preprocessing: str | None = "tf") -> Any:
    """Read a file and build its head, which shows the number of outputs."""
    head = HeadConfig("head", path, labels, PREPROCESSING[preprocessing] if preprocessing else None)
    classifiers = load_classifiers([head])
    merge(classifiers, find_backbone(classifiers))
    return classifiers[0]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_both_formats_of_keras_load(good: Path, tmp_path: Path, suffix: str) -> None:
    keras.models.load_model(good).save(tmp_path / f"model{suffix}")
    assert load(tmp_path / f"model{suffix}").labels == ("a", "b", "c")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_model_is_refused(good: Path, tmp_path: Path, suffix: str, share: float) -> None:
    keras.models.load_model(good).save(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match=r"broken") as error:
        load(broken)
    assert "\n" not in str(error.value)


def _archive_without(member: str) -> Any:
    def write(good: Path, path: Path) -> None:
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                if name != member:
                    new.writestr(name, old.read(name))

    return write


def _model(build: Any) -> Any:
    def write(_: Path, path: Path) -> None:
        build().save(path)

    return write


def _two_inputs() -> Any:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([a, b], layers.Dense(3)(layers.Flatten()(layers.Add()([a, b]))))


def _two_outputs() -> Any:
    a = keras.Input((8, 8, 3))
    x = layers.Flatten()(a)
    return keras.Model(a, [layers.Dense(3)(x), layers.Dense(3)(x)])


def _chain(shape: Any, *stack: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *stack])


BAD = {
    "text": (lambda _, path: path.write_text("no model"), "found something else or an incomplete one"),
    "no config": (_archive_without("config.json"), "no config.json in the archive"),
    "no weights": (_archive_without("model.weights.h5"), "no model.weights.h5 in the archive"),
    "empty archive": (lambda _, path: zipfile.ZipFile(path, "w").close(), "found an empty archive"),
    "lambda": (
        _model(lambda: _chain((8, 8, 3), layers.Lambda(lambda x: x), layers.Flatten(), layers.Dense(3))),
        r"layer 'lambda\w*' is of class Lambda: it would run code",
    ),
    "two inputs": (_model(_two_inputs), "expected a model with one input, a picture or a text; found 2 inputs"),
    "two outputs": (_model(_two_outputs), "expected one output"),
    "vector input": (_model(lambda: _chain((8,), layers.Dense(3))), r"expected input \(batch, height, width, 3\)"),
    "two channels": (_model(lambda: _chain((8, 8, 2), layers.Flatten(), layers.Dense(3))), "expected input"),
    "open size": (
        _model(lambda: _chain((None, None, 3), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D(), layers.Dense(3))),
        "it takes pictures of any size",
    ),
    "a map as output": (_model(lambda: _chain((8, 8, 3), layers.Conv2D(3, 3), layers.Conv2D(3, 3))), "not a classifier"),
    "not built": (_model(lambda: keras.Sequential([layers.Flatten(), layers.Dense(3)])), "no layer has weights"),
    "relu as output": (_model(lambda: _chain((8, 8, 3), layers.Flatten(), layers.Dense(3, "relu"))), "found relu"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_classifier_is_refused(good: Path, tmp_path: Path, case: str) -> None:
    write, words = BAD[case]
    path = tmp_path / "bad.keras"
    write(good, path)
    with pytest.raises(ModelFileError, match=words) as error:
        load(path)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.keras", "folder", "model.pb", "model"])
def test_other_kinds_of_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for other in ("model.pb", "model"):
        (tmp_path / other).write_bytes(b"something")
    with pytest.raises(ModelFileError, match=name):
        load(tmp_path / name)


def test_a_lambda_is_not_run(tmp_path: Path) -> None:
    path, canary = tmp_path / "evil.keras", tmp_path / "canary"
    code = layers.Lambda(lambda x, where=str(canary): (open(where, "w").close(), x)[1], output_shape=(8, 8, 3))  # noqa: PTH123
    _chain((8, 8, 3), code, layers.Flatten(), layers.Dense(3)).save(path)
    canary.unlink(missing_ok=True)
    with pytest.raises(ModelFileError):
        load(path)
    assert not canary.exists()


def test_pixels_are_never_guessed(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"input scaling of .* is unknown"):
        load(good, preprocessing=None)
    inside = tiny_classifier(tiny_base(), 3, before=[layers.Rescaling(1 / 127.5, -1)])
    inside.save(tmp_path / "inside.keras")
    assert load(tmp_path / "inside.keras", preprocessing=None).source_input.pixels == PREPROCESSING["tf"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb", "expected 3 labels, one for each output of good.keras, found 2"),
        ("a\nb\nc\nd", "found 4"),
        ("a\nb\na", "labels repeat: a"),
        ("", "found 0"),
    ],
)
def test_labels_must_fit_the_outputs(good: Path, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_text(text)
    for labels in (file, tuple(text.split("\n")) if text else ()):
        with pytest.raises(ConfigError, match=words):
            load(good, labels=labels)


def test_labels_are_found_beside_the_model(good: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.keras"
    model.write_bytes(good.read_bytes())
    with pytest.raises(ConfigError, match=r"m\.txt"):
        load(model, labels=None)
    (tmp_path / "m.txt").write_text("﻿eins\nzwei\n\ndrei\n", "utf-8")
    assert load(model, labels=None).labels == ("eins", "zwei", "drei")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00broken", None])
def test_labels_that_cannot_be_read_are_named(good: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"labels\.txt"):
        load(good, labels=file)


def test_code_in_a_model_runs_only_for_files_that_are_trusted(tmp_path: Path) -> None:
    """Two heads on one base with a Lambda in it are refused. With --allow-code they are read, shared and compared."""
    base = tiny_base()
    image = keras.Input((32, 32, 3))
    shifted = layers.Lambda(lambda x: x * 0.5 + 0.1, output_shape=(32, 32, 3))(image)
    own = keras.Model(image, base(shifted))
    heads = []
    for seed, labels in ((1, ("a", "b", "c")), (2, ("d", "e"))):
        x = keras.Input((32, 32, 3))
        scores = layers.Dense(len(labels), activation="softmax")
        keras.Model(x, scores(own(x))).save(tmp_path / f"m{seed}.keras")
        heads.append(HeadConfig(f"m{seed}", tmp_path / f"m{seed}.keras", labels, PREPROCESSING["unit"]))
    with pytest.raises(ModelFileError, match="allow-code if you trust the file"):
        load_classifiers(heads)
    trusted = load_classifiers(heads, allow_code=True)
    merged = merge(trusted, find_backbone(trusted))
    assert merged.seam_shapes == {"features": (64,)}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert difference_from_originals(trusted, merged, pixels) < 1e-5
