"""The loss that a file was trained with tells what its last values are, where its layers do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers, losses  # noqa: E402

from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.formats.reading import read_model  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.reading.outputs import LOGITS, UNKNOWN, Output, expected_output, settled_output  # noqa: E402
from builder.reading.trained import Trained, loss_in, trained_with  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ConfigError  # noqa: E402
from builder.support.naming import as_options  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

SIZE = 8
PIXELS = np.random.default_rng(3).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)


def saved(folder: Path, loss: Any, *, units: int = 3, suffix: str = ".keras") -> tuple[Classifier, Any]:
    """A classifier that ends in bare values and was compiled with ``loss``, as it is read, and the model itself."""
    image = keras.Input((SIZE, SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(layers.Rescaling(1 / 127.5, -1)(image)))
    model = keras.Model(image, layers.Dense(units)(pooled))
    seed_weights(model, 4)
    model.layers[-1].kernel.assign(8 * model.layers[-1].kernel)
    model.compile("adam", loss)
    path = folder / f"model{suffix}"
    model.save(path)
    labels = tuple(f"label {i}" for i in range(units))
    (classifier,) = load_classifiers([HeadConfig("head", path, labels, PREPROCESSING["raw"])])
    return classifier, model


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_labels_that_were_learnt_each_on_its_own_are_answered_each_on_its_own(tmp_path: Path, suffix: str) -> None:
    """A softmax would choose one of several labels that are true, and change the answer to every picture."""
    classifier, model = saved(tmp_path, losses.BinaryCrossentropy(from_logits=True), suffix=suffix)
    raw = np.asarray(model(PIXELS.astype(np.float32)))
    settled = classifier.settled(raw)
    assert (settled.activation, settled.applied) == ("sigmoid", "sigmoid")
    np.testing.assert_allclose(classifier.predict(PIXELS), 1 / (1 + np.exp(-raw)), atol=1e-5)


def test_a_number_that_was_learnt_is_no_yes_or_no(tmp_path: Path) -> None:
    classifier, model = saved(tmp_path, "mse", units=1)
    with pytest.raises(ConfigError, match=r'its loss mse was computed on numbers .* set activation = "sigmoid"'):
        classifier.settled(10 * np.asarray(model(PIXELS.astype(np.float32))))


ONE, EACH, NUMBER = "softmax", "sigmoid", None
LOSSES: dict[str, tuple[Any, Trained | None]] = {
    "a name": ("binary_crossentropy", Trained("binary_crossentropy", EACH)),
    "a short name": ("mae", Trained("mae", NUMBER)),
    "of Keras 3": (
        {"module": "keras.losses", "class_name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}},
        Trained("SparseCategoricalCrossentropy", ONE, from_logits=True),
    ),
    "a function": (
        {"module": "builtins", "class_name": "function", "config": "hinge", "registered_name": "function"},
        Trained("hinge", NUMBER),
    ),
    "of tf_keras": (
        {"class_name": "BinaryFocalCrossentropy", "config": {"reduction": "auto", "from_logits": False}},
        Trained("BinaryFocalCrossentropy", EACH),
    ),
    "a list": (["mse", "binary_crossentropy"], Trained("binary_crossentropy", EACH)),
    "a table": ({"a": "mse", "b": {"class_name": "Huber", "config": {}}}, Trained("Huber", NUMBER)),
    "a shorter list": (["mse"], None),
    "of another output": ({"a": "mse"}, None),
    "one of somebody's own": ("my_crossentropy", None),
    "a class of somebody's own": ({"class_name": "Mine>Loss", "config": {"from_logits": True}}, None),
    "none": (None, None),
    "nonsense": ({"class_name": ["x"], "config": 3}, None),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_way_to_write_a_loss_is_read(name: str) -> None:
    loss, expected = LOSSES[name]
    assert trained_with(loss, ["a", "b"], 1) == expected


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"compile_config": 3}', "[" * 100_000])
def test_a_training_that_cannot_be_read_says_nothing(text: str | None) -> None:
    assert loss_in(text, "compile_config") is None


@pytest.mark.parametrize("file", ["stack.h5", "stack.keras", "stack_saved"])
def test_the_loss_is_found_in_every_kind_of_file(tf_keras_files: Path, file: str) -> None:
    found = trained_with(read_model(tf_keras_files / file).loss, ["scores"], 0)
    assert found == Trained("categorical_crossentropy", ONE)


def values(*rows: list[float]) -> np.ndarray:
    return np.asarray(rows, np.float32)


WIDE, BOUNDED = values([-3, 2], [4, 1]), values([0.2, 0.3], [0.9, 0.6])
EACH_LOGIT, EACH_SCORE = Trained("x", EACH, from_logits=True), Trained("x", EACH)
ONE_LOGIT, ONE_SCORE, LEARNT = Trained("x", ONE, from_logits=True), Trained("x", ONE), Trained("x", NUMBER)


@pytest.mark.parametrize(
    ("end", "trained", "declared", "raw", "expected"),
    [
        (LOGITS, EACH_LOGIT, None, WIDE, (EACH, EACH)),
        (LOGITS, EACH_LOGIT, None, BOUNDED, (EACH, EACH)),
        (UNKNOWN, EACH_LOGIT, None, WIDE, (EACH, EACH)),
        (LOGITS, EACH_LOGIT, "softmax", WIDE, (ONE, ONE)),
        (LOGITS, EACH_LOGIT, None, WIDE[:, :1], (EACH, EACH)),
        (LOGITS, ONE_LOGIT, None, WIDE, (ONE, ONE)),
        (UNKNOWN, ONE_LOGIT, None, BOUNDED, (ONE, ONE)),
        (LOGITS, ONE_LOGIT, "sigmoid", WIDE, (EACH, EACH)),
        (LOGITS, ONE_SCORE, None, WIDE, (ONE, ONE)),
        (LOGITS, ONE_SCORE, None, BOUNDED, None),
        (UNKNOWN, ONE_SCORE, None, WIDE, None),
        (LOGITS, EACH_SCORE, None, WIDE, None),
        (LOGITS, EACH_SCORE, None, WIDE[:, :1], None),
        (LOGITS, EACH_SCORE, "sigmoid", WIDE[:, :1], (EACH, EACH)),
        (LOGITS, EACH_SCORE, "none", BOUNDED, (EACH, None)),
        (LOGITS, LEARNT, None, WIDE, None),
        (LOGITS, LEARNT, None, BOUNDED, None),
        (LOGITS, LEARNT, None, WIDE[:, :1], None),
        (UNKNOWN, LEARNT, "softmax", WIDE, (ONE, ONE)),
        ("softmax", LEARNT, None, values([0.25, 0.75]), (ONE, None)),
        ("softmax", EACH_SCORE, None, values([0.25, 0.75]), (ONE, None)),
        ("sigmoid", ONE_SCORE, None, BOUNDED, (EACH, None)),
    ],
)
def test_the_user_comes_before_the_loss_and_layers_before_both(
    end: str, trained: Trained, declared: str | None, raw: np.ndarray, expected: tuple[str, str | None] | None
) -> None:
    count = raw.shape[1]

    def settle() -> Output:
        return settled_output(
            expected_output(end, count, declared, count, "x", trained), raw, declared, count, "x", trained
        )

    if expected is None:
        with pytest.raises(ConfigError, match="set activation"):
            settle()
    else:
        assert (settle().activation, settle().applied) == expected


@pytest.mark.parametrize(
    ("end", "trained", "declared", "raw", "told"),
    [
        (LOGITS, None, None, WIDE, True),
        (LOGITS, None, "softmax", WIDE, False),
        (LOGITS, None, "sigmoid", WIDE, False),
        (LOGITS, None, None, values([0.25, 0.75], [0.5, 0.5]), False),  # probabilities
        (LOGITS, None, None, WIDE[:, :1], False),  # one question
        (LOGITS, ONE_LOGIT, None, WIDE, False),
        (LOGITS, ONE_SCORE, None, WIDE, False),
        (LOGITS, EACH_LOGIT, None, WIDE, False),
        (UNKNOWN, None, "softmax", WIDE, False),
        ("softmax", None, None, values([0.25, 0.75], [0.5, 0.5]), False),
        ("sigmoid", None, None, BOUNDED, False),
    ],
)
def test_a_softmax_that_nobody_asked_for_is_told(
    tmp_path: Path, end: str, trained: Trained | None, declared: str | None, raw: np.ndarray, told: bool
) -> None:
    """It is said once, however often the values are checked: logits do not tell whether labels exclude each other."""
    classifier, _ = saved(tmp_path, None)
    labels = tuple(map(str, range(raw.shape[1])))
    output = expected_output(end, len(labels), declared, len(labels), "x", trained)
    classifier = replace(classifier, output=output, trained=trained, declared=declared, labels=labels)
    with as_options():
        settled = classifier.settled(raw).settled(raw)
    assert [note for note in settled.notes if "a softmax is assumed" in note and "--activation head=sigmoid" in note] == [
        *settled.notes
    ]
    assert len(settled.notes) == told
