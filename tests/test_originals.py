"""Originals run by their own framework in a separate process, which is reused; its crash is an error of one line."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from builder.reading.formats import read_model  # noqa: E402
from builder.reading.originals import original as originals  # noqa: E402
from builder.reading.originals.original import KerasOriginal, Shown  # noqa: E402
from builder.reading.originals.processes import process_of  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

PIXELS = np.random.default_rng(5).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
SHOWN = Shown(PIXELS, PREPROCESSING["tf"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "model.keras"
    tiny_classifier(tiny_base(size=16), 3).save(path)
    return path


def ask(path: Path, shown: Shown = SHOWN, **options: Any) -> np.ndarray:
    return np.asarray(read_model(path).original.ask(shown, max_memory=1.0, **options)())


def _process() -> Any:
    child = process_of("keras")._child
    return None if child is None else child.process


def test_an_original_answers_as_keras_does_here(model: Path) -> None:
    expected = keras.saving.load_model(model)(PIXELS / np.float32(127.5) - 1, training=False)
    np.testing.assert_allclose(ask(model), expected, atol=1e-6)


def test_one_process_serves_many_files(model: Path, tmp_path: Path) -> None:
    ask(model)
    first = _process()
    tiny_classifier(tiny_base(size=16), 4, seed=2).save(tmp_path / "other.h5")
    assert ask(tmp_path / "other.h5").shape == (5, 4)
    assert _process() is first


@pytest.mark.parametrize("name", ["flat", "nested", "stack", "mixed", "shared", "settings", "ops", "composite"])
@pytest.mark.parametrize("kind", [".h5", ".keras", "_saved"])
def test_files_of_keras_2_are_run_by_it(tf_keras_files: Path, name: str, kind: str) -> None:
    """In float32, also those that were trained in half precision."""
    path = tf_keras_files / f"{name}{kind}"
    if not path.exists():
        pytest.skip("tf_keras has no such file of it")
    saved = np.load(tf_keras_files / f"{name}.npz")
    given = read_model(path).original
    assert isinstance(given, KerasOriginal)
    assert given.framework == "tf_keras"
    answers = given.ask(Shown(saved["pictures"]), max_memory=1.0)
    np.testing.assert_allclose(answers(), saved["answers"], atol=2e-2 if name == "mixed" else 1e-5)
    assert answers.note is None


def test_what_its_framework_refuses_is_run_as_it_was_read(tf_keras_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = np.load(tf_keras_files / "flat.npz")
    monkeypatch.setattr(originals, "_is_installed", lambda framework: False)
    answers = read_model(tf_keras_files / "flat.h5").original.ask(Shown(saved["pictures"]), max_memory=1.0)
    np.testing.assert_allclose(answers(), saved["answers"], atol=1e-5)
    assert answers.note is not None
    assert "tf_keras" in answers.note


def test_texts_come_as_they_are(tmp_path: Path) -> None:
    words = layers.TextVectorization(output_sequence_length=4, vocabulary=["", "[UNK]", "a", "b"])
    text = keras.Input((), dtype="string")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(4, 3)(words(text)))
    whole = keras.Model(text, layers.Dense(2, activation="softmax")(x))
    whole.save(tmp_path / "text.keras")
    texts = [b"a b", b"", b"b b b\0", "ä a".encode()]
    import tensorflow as tf

    np.testing.assert_allclose(ask(tmp_path / "text.keras", Shown(texts)), whole(tf.constant(texts)), atol=1e-6)


def test_a_broken_model_is_one_line_that_names_its_file(model: Path, tmp_path: Path) -> None:
    broken = KerasOriginal(model, "keras", lambda folder: model.with_suffix(".txt"))
    with pytest.raises(ModelFileError, match="Keras 3 cannot load it") as error:
        broken.ask(SHOWN, max_memory=1.0)()
    assert str(error.value).startswith(f"{model}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    with pytest.raises(ModelFileError, match="Keras 3 cannot run it"):
        ask(model, Shown(PIXELS[:, :8, :8, :1]))
    assert ask(model).shape == (5, 3)


def test_the_death_of_the_process_is_one_line_and_the_next_file_gets_another(model: Path) -> None:
    process_of("keras").end()
    asked, other = (read_model(model).original.ask(SHOWN, max_memory=1.0) for _ in range(2))
    running = _process()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    with pytest.raises(ModelFileError, match="Keras 3 could not run it: its process was ended by SIGKILL") as error:
        asked()
    assert "\n" not in str(error.value)
    assert other().shape == (5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ended", "left alone"])
def test_no_temporary_file_outlives_the_process(
    how: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds also if the parent process has died, so that no request comes any more."""
    process_of("keras").end()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ask(model)
    running, (shared,) = _process(), tmp_path.iterdir()
    (folder,) = shared.iterdir()
    assert running is not None and running.stdin is not None
    assert f"TMPDIR={folder}\0" in Path(f"/proc/{running.pid}/environ").read_text()
    (folder / "generated.py").touch()  # as TensorFlow does
    if how == "left alone":
        running.stdin.close()
        running.wait(60)
        assert list(shared.iterdir()) == []
    process_of("keras").end()
    assert list(tmp_path.iterdir()) == []


def test_what_takes_too_long_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process_of("keras").end()
    monkeypatch.setattr(originals, "_SECONDS", 0.0)
    monkeypatch.setattr(originals, "_SECONDS_A_SAMPLE", 0.0)
    with pytest.raises(ModelFileError, match="not finished after 0 seconds"):
        ask(model)


@pytest.mark.slow
def test_a_model_that_wants_too_much_memory_is_refused(model: Path, tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3))
    large = layers.UpSampling2D(512)(image)
    keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(large))).save(tmp_path / "large.keras")
    with pytest.raises(ModelFileError, match="Keras 3 c") as error:
        ask(tmp_path / "large.keras", Shown(np.repeat(PIXELS, 6, axis=0)))
    assert "large.keras" in str(error.value)
    assert ask(model).shape == (5, 3)


@pytest.mark.slow
def test_nothing_is_left_behind(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ask(model)
    read_model(model).original.ask(SHOWN, max_memory=1.0).abandon()
    assert not list(tmp_path.iterdir())
    assert _process() is None  # what nobody waits for is not run to its end
    assert process_of("keras").jobs == 0
