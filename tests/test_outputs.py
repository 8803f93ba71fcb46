"""Probabilities or logits: decided by the graph and the values together, whatever the last layer is called."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers, ops  # noqa: E402

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.kinds import difference_in_kind  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.reading.outputs import LOGITS, UNKNOWN, Output, expected_output, settled_output  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import BuilderError, ConfigError, ModelFileError  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

SIZE = 8
PIXELS = np.random.default_rng(3).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)
NAMES = itertools.count()


def dense(x: Any, units: int, activation: str | None = None, seed: int = 1) -> Any:
    layer = layers.Dense(units, activation=activation, name=f"dense_{next(NAMES)}")
    found = layer(x)
    seed_weights(layer, seed)
    layer.kernel.assign(4 * layer.kernel)
    return found


def top_of_mobilenet(x: Any) -> Any:
    x = layers.Conv2D(3, 1)(layers.Reshape((1, 1, 6))(x))
    return layers.Reshape((3,))(layers.Activation("softmax")(x))


def views(x: Any) -> Any:
    """The mean of the answers to two views of one picture."""
    return ops.mean(ops.stack([dense(x, 3, "softmax"), dense(ops.flip(x, 1), 3, "softmax")], axis=1), axis=1)


# What stands at the end: (activation that the scores have, what is applied to raw values).
ENDS: dict[str, tuple[Any, str, str | None]] = {
    "softmax": (lambda x: dense(x, 3, "softmax"), "softmax", None),
    "a softmax layer": (lambda x: layers.Softmax()(dense(x, 3)), "softmax", None),
    "reshaped": (top_of_mobilenet, "softmax", None),
    "mean of two softmaxes": (
        lambda x: layers.Average()([dense(x, 3, "softmax"), dense(x, 3, "softmax", 2)]), "softmax", None
    ),
    "two sigmoids": (
        lambda x: layers.Concatenate()([dense(x, 1, "sigmoid"), dense(x, 1, "sigmoid", 2)]), "sigmoid", None
    ),
    "both answers of a sigmoid": (
        lambda x: (lambda p: layers.Concatenate()([1.0 - p, p]))(dense(x, 1, "sigmoid")), "softmax", None
    ),
    "ops.sigmoid": (lambda x: ops.sigmoid(dense(x, 3)), "sigmoid", None),
    "ops.softmax": (lambda x: ops.softmax(dense(x, 3)), "softmax", None),
    "one mean of logits": (lambda x: layers.Average()([dense(x, 1), dense(x, 1, None, 2)]), "sigmoid", "sigmoid"),
    "temperature": (lambda x: ops.softmax(dense(x, 3) / 2.5), "softmax", None),
    "averaged views": (views, "softmax", None),
    "logits": (lambda x: dense(x, 3), "softmax", "softmax"),
    "logits behind a sigmoid layer": (lambda x: dense(dense(x, 5, "sigmoid"), 3), "softmax", "softmax"),
    "logits with a temperature": (lambda x: dense(x, 3) * 0.5, "softmax", "softmax"),
    "one logit": (lambda x: dense(x, 1), "sigmoid", "sigmoid"),
    "one sigmoid": (lambda x: dense(x, 1, "sigmoid"), "sigmoid", None),
    "one sigmoid layer": (lambda x: layers.Activation("sigmoid")(dense(x, 1)), "sigmoid", None),
    "one mean of sigmoids": (
        lambda x: layers.Average()([dense(x, 1, "sigmoid"), dense(x, 1, "sigmoid", 2)]), "sigmoid", None
    ),
}  # fmt: skip


def load(folder: Path, end: Any, labels: int | None = None, activation: str | None = None) -> tuple[Classifier, Any]:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, end(x))
    seed_weights(model.get_layer("conv"), 7)
    path = folder / "model.keras"
    model.save(path)
    names = tuple(map(str, range(labels or model.output_shape[-1])))
    return load_classifiers([HeadConfig("head", path, names, PREPROCESSING["raw"], activation)])[0], model


def two_sided(scores: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - scores, scores], axis=1)


def as_probabilities(raw: np.ndarray, applied: str | None) -> np.ndarray:
    return raw if applied is None else np.asarray(getattr(keras.activations, applied)(raw))


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_what_it_does(tmp_path: Path, name: str) -> None:
    """And the merged head says what the original says, and no softmax more; of one output with two labels as well."""
    end, activation, applied = ENDS[name]
    ways = [None, 2] if name.startswith("one ") else [None]
    for labels in ways:
        classifier, model = load(tmp_path, end, labels)
        raw = np.asarray(model(PIXELS.astype(np.float32)))
        settled = classifier.settled(raw)
        assert (settled.activation, settled.output.applied) == ("softmax" if labels else activation, applied)
        expected = as_probabilities(raw, applied)
        expected = expected if labels is None else two_sided(expected)
        assert expected.std(0).mean() > 0.01
        np.testing.assert_allclose(classifier.predict(PIXELS), expected, atol=1e-5)
        merged = merge((settled,), find_backbone((settled,)))
        found = merged.head_scores("head", merged.features(PIXELS))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert difference_in_kind(expected, found) is None


@pytest.mark.parametrize("end", ["softmax", "sigmoid", "hard_sigmoid", LOGITS, UNKNOWN, "relu"])
def test_a_graph_is_clear_where_it_makes_the_probabilities_itself(end: str) -> None:
    """The values are then not needed before the merge."""
    assert Output(end, "softmax").is_clear is (end in ("softmax", "sigmoid", "hard_sigmoid"))


@pytest.mark.parametrize("name", ["one logit", "one sigmoid", "one sigmoid layer"])
def test_one_question_with_two_labels_has_logits_for_the_joint_list(tmp_path: Path, name: str) -> None:
    classifier, _ = load(tmp_path, ENDS[name][0], 2)
    last = classifier.graph.nodes[classifier.graph.output.node]
    assert (last.kind, last.config["units"], last.config["activation"]) == ("Dense", 2, "softmax")


REFUSED: dict[str, tuple[Any, int | None, str | None, type[BuilderError], str]] = {
    "a softmax over one output": (lambda x: dense(x, 1, "softmax"), None, None, ModelFileError, "answers 1.0 whatever"),
    "a softmax over one logit": (lambda x: dense(x, 1), None, "softmax", ConfigError, "over one output is always 1"),
    "another activation": (lambda x: dense(x, 3, "sigmoid"), None, "softmax", ConfigError, "in a sigmoid of its own"),
    "percent": (lambda x: dense(x, 3, "softmax") * 100.0, None, None, ModelFileError, "do not give probabilities: they"),
    "two softmaxes": (
        lambda x: layers.Concatenate()([dense(x, 2, "softmax"), dense(x, 2, "softmax", 2)]),
        None, None, ConfigError, 'do not add up to 1 .* activation = "none"',
    ),
    "a softmax over another axis": (
        lambda x: layers.GlobalAveragePooling1D()(layers.Softmax(axis=1)(layers.Reshape((2, 3))(dense(x, 6)))),
        None, None, ConfigError, "do not add up to 1 .*: its axis is not .*; put a softmax over axis -1 last, or save",
    ),
    "relu": (lambda x: dense(x, 3, "relu"), None, None, ModelFileError, "found relu; not a classifier"),
    "a product": (
        lambda x: ops.maximum(dense(x, 3), dense(x, 3, None, 2)), None, None, ConfigError, 'set activation = "sigmoid"'
    ),
    "too many labels": (lambda x: dense(x, 1), 3, None, ConfigError, "expected 1 label, .* two for a yes/no question"),
    "two labels of three": (lambda x: dense(x, 3), 2, None, ConfigError, "expected 3 labels, .*; found 2"),
    "no numbers": (lambda x: dense(x, 3) / 0.0, None, None, ModelFileError, "NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_one_line_that_says_what_to_do(tmp_path: Path, name: str) -> None:
    end, labels, activation, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as raised:
        classifier, model = load(tmp_path, end, labels, activation)
        classifier.settled(np.asarray(model(PIXELS.astype(np.float32))))
    assert "\n" not in str(raised.value)
    assert "model.keras" in str(raised.value)


ALONG = "computes over (axis .*|all axes), along the batch: .*; give it an axis of the sample, .* save the model again"
WITH_THE_BATCH = {
    "softmax layer": lambda x: layers.Softmax(axis=0)(dense(x, 3)),
    "softmax layer over both": lambda x: layers.Softmax(axis=(0, 1))(dense(x, 3)),
    "softmax": lambda x: ops.softmax(dense(x, 3), axis=0),
    "softmax counted from the end": lambda x: ops.softmax(dense(x, 3), axis=-2),
    "softmax over all": lambda x: ops.softmax(dense(x, 3), axis=None),
    "softmax of what was turned": lambda x: ops.transpose(ops.softmax(ops.transpose(dense(x, 3)), axis=-1)),
    "softmax inside": lambda x: dense(layers.Softmax(axis=0)(dense(x, 3)), 3, "softmax"),
    "mean": lambda x: layers.Softmax()(x - ops.mean(x, axis=0, keepdims=True)),
    "largest": lambda x: layers.Softmax()(x / ops.max(x)),
    "order": lambda x: layers.Softmax()(ops.flip(x, axis=0)),
    "length": lambda x: layers.Softmax()(layers.UnitNormalization(axis=0)(x)),
}


@pytest.mark.parametrize("name", WITH_THE_BATCH)
def test_what_computes_along_the_batch_is_refused(tmp_path: Path, name: str) -> None:
    """A device has one sample: such a softmax is always 1 there."""
    with pytest.raises(ModelFileError, match=ALONG) as raised:
        load(tmp_path, WITH_THE_BATCH[name])
    assert "\n" not in str(raised.value) and "model.keras" in str(raised.value)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: ops.transpose(ops.softmax(ops.transpose(dense(x, 3)), axis=0)),
        lambda x: layers.Flatten()(layers.Softmax(axis=1)(layers.Reshape((3, 1))(dense(x, 3)))),
        lambda x: ops.softmax(dense(x, 3), axis=1),
        lambda x: layers.Softmax()(layers.GlobalAveragePooling1D()(layers.Reshape((2, 3))(dense(x, 6)))),  # the advice
        lambda x: layers.Softmax()(dense(x, 3) - ops.max(dense(x, 3), axis=1, keepdims=True)),
    ],
)
def test_a_softmax_over_the_labels_may_have_any_axis(tmp_path: Path, end: Any) -> None:
    classifier, model = load(tmp_path, end)
    raw = np.asarray(model(PIXELS.astype(np.float32)))
    assert classifier.settled(raw).activation == "softmax"
    np.testing.assert_allclose(classifier.predict(PIXELS), raw, atol=1e-5)


def values(*rows: list[float]) -> np.ndarray:
    return np.asarray(rows, np.float32)


BOUNDED = values([0.2, 0.3], [0.9, 0.6])


@pytest.mark.parametrize(
    ("end", "declared", "raw", "expected"),
    [
        (LOGITS, None, values([-3, 2], [4, 1]), ("softmax", "softmax")),
        (LOGITS, "sigmoid", values([-3, 2], [4, 1]), ("sigmoid", "sigmoid")),
        (LOGITS, "sigmoid", BOUNDED, ("sigmoid", "sigmoid")),
        (LOGITS, "none", BOUNDED, ("sigmoid", None)),
        (LOGITS, None, BOUNDED, None),
        (LOGITS, "none", values([-3, 2]), None),
        (LOGITS, None, values([0.25, 0.75], [0.5, 0.5]), ("softmax", None)),
        (UNKNOWN, None, values([0.25, 0.75], [0.5, 0.5]), ("softmax", None)),
        (UNKNOWN, None, BOUNDED, None),
        (UNKNOWN, None, values([-3, 2], [4, 1]), None),
        (UNKNOWN, "sigmoid", BOUNDED, ("sigmoid", None)),
        (UNKNOWN, "softmax", values([-3, 2], [4, 1]), ("softmax", "softmax")),
        ("softmax", None, values([0.25, 0.75], [0.5, 0.5]), ("softmax", None)),
        ("sigmoid", None, values([0.25, 0.75], [0.5, 0.5]), ("softmax", None)),
        ("sigmoid", None, values([1.2, 0.75]), None),
    ],
)
def test_values_decide_where_the_graph_is_silent(
    end: str, declared: str | None, raw: np.ndarray, expected: tuple[str, str | None] | None
) -> None:
    def settle() -> Output:
        return settled_output(expected_output(end, 2, declared, 2, "x"), raw, declared, 2, "x")

    if expected is None:
        with pytest.raises(BuilderError):
            settle()
    else:
        assert (settle().activation, settle().applied) == expected


@pytest.mark.parametrize("labels", [12, 100, 300])
def test_a_softmax_in_integers_adds_up_but_for_its_rounding(labels: int) -> None:
    raw = np.random.default_rng(labels).dirichlet(np.full(labels, 2e5 / labels), 20).astype(np.float32)
    rounded = np.float32(np.rint(raw * 256) / 256)
    assert np.abs(rounded.sum(1) - 1).max() > 0.01

    def settled(end: str, values: np.ndarray) -> str:
        return settled_output(expected_output(end, labels, None, labels, "x"), values, None, labels, "x").activation

    assert settled("softmax", rounded) == "softmax"
    assert settled("sigmoid", rounded) == "sigmoid"
    for wrong in (rounded + np.float32(3 / labels), rounded + np.float32(0.4 / 256)):
        with pytest.raises(ConfigError, match="do not add up to 1"):
            settled("softmax", wrong)


def probabilities(seed: int, labels: int = 4) -> np.ndarray:
    raised = np.exp(np.random.default_rng(seed).normal(0, 2, (60, labels)))
    return np.asarray(raised / raised.sum(1, keepdims=True), np.float32)


def test_kinds_of_probabilities_are_told_apart() -> None:
    original, other = probabilities(1), probabilities(2)
    noisy = original + np.random.default_rng(0).normal(0, 0.004, original.shape).astype(np.float32)
    raised = np.exp(original)
    assert difference_in_kind(original, noisy) is None
    assert difference_in_kind(original, other) is None  # as wrong as can be, and of the same kind
    for found, words in (
        (raised / raised.sum(1, keepdims=True), "softmax is applied twice"),
        (original**0.3 / (original**0.3).sum(1, keepdims=True), "a monotone function of the original"),
        (np.sqrt(original), "add up to 1, the file's do not"),
        (np.log(original), "they are no probabilities"),
        (original * np.nan, "NaN or infinity"),
        (original[:, :3], "4 probabilities, the file 3"),
    ):
        assert words in (difference_in_kind(original, found.astype(np.float32)) or "")
    alone = np.random.default_rng(4).uniform(0, 1, (60, 4)).astype(np.float32)  # each label for itself
    assert "a monotone function of the original" in (difference_in_kind(alone, alone**3) or "")


@pytest.mark.parametrize("labels", [2, 10, 100, 300])
def test_probabilities_in_steps_of_an_integer_add_up_still(labels: int) -> None:
    """Of many labels each may be off by half a step in the same direction."""
    original = np.random.default_rng(labels).dirichlet(np.full(labels, 50.0), 20).astype(np.float32)
    found = np.float32(np.rint(original * 256) / 256)
    assert difference_in_kind(original, found) is None
    assert difference_in_kind(found, original) is None
    assert difference_in_kind(original[:, 1:], found[:, 1:] + np.float32(3 / labels)) is not None


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("samples", [4, 8, 60])
def test_what_rounding_moves_is_no_other_function(samples: int, labels: int) -> None:
    """However far: logits that are a little off rise and fall with those of the original, and are the same kind."""
    rng, far = np.random.default_rng(samples + labels), 0
    for _ in range(200):
        logits = rng.normal(0, 2, (samples, labels))
        theirs, ours = (np.exp(z) for z in (logits, logits + rng.normal(0, rng.uniform(0.3, 0.8), logits.shape)))
        original, found = (np.float32(p / p.sum(1, keepdims=True)) for p in (theirs, ours))
        assert difference_in_kind(original, found) is None
        far += np.abs(original - found).mean() > 0.05
        tempered = original**0.25 / (original**0.25).sum(1, keepdims=True)
        if np.abs(tempered - original).mean() > 0.06:
            assert difference_in_kind(original, np.float32(tempered)) is not None
    assert far > 100


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2), (2, 5, 1, 7)])
def test_values_that_are_no_row_of_labels_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    expected = expected_output(LOGITS, 3, None, 3, "heads.a")
    with pytest.raises(ModelFileError, match=re.escape(f"found {('batch', *shape[1:])}; not a classifier")):
        settled_output(expected, np.zeros(shape, np.float32), None, 3, "heads.a")
