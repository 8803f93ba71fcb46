"""Heads of equal structure are converted once, and each computes what its original does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging import convert as conversion  # noqa: E402
from builder.merging.merge import MergedModel  # noqa: E402
from builder.merging.substitute import groups, places, template  # noqa: E402
from builder.reading.picture_input import PictureSourceInput  # noqa: E402
from builder.reading.text_input import TextSourceInput  # noqa: E402
from builder.settings.input_scaling import PixelTransform  # noqa: E402
from builder.tflite.flatbuffer import read_parts  # noqa: E402
from edge_runtime.interpreter import find_interpreter  # noqa: E402
from edge_runtime.text import TextInput  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

layers = keras.layers
SHAPES = {"features": (6,), "features_2": (4, 4, 3)}


def head(build: Callable[[Any, Any], Any], seed: int) -> Any:
    inputs = [keras.Input(shape, name=name) for name, shape in SHAPES.items()]
    output = build(*inputs)
    model = keras.Model(inputs, output)
    model = keras.Model([i for i in inputs if _reads(build, i)], output)
    seed_weights(model, seed)
    return model


def _reads(build: Any, tensor: Any) -> bool:
    return tensor.name in build.reads


def reads(*names: str) -> Any:
    def mark(function: Any) -> Any:
        function.reads = names
        return function

    return mark


@reads("features")
def dense(features: Any, _: Any) -> Any:
    return layers.Dense(3, activation="softmax")(features)


@reads("features")
def square(features: Any, _: Any) -> Any:
    """Two square kernels in a row: told apart by their numbers, and from their transposes."""
    return layers.Dense(6, activation="softmax")(layers.Dense(6, activation="relu")(features))


@reads("features_2")
def convolution(_: Any, features: Any) -> Any:
    x = layers.Conv2D(4, 3, activation="relu")(features)
    return layers.Dense(2, activation="sigmoid")(layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(2)(x)))


@reads("features", "features_2")
def two_inputs(features: Any, earlier: Any) -> Any:
    x = layers.Concatenate()([features, layers.GlobalAveragePooling2D()(earlier)])
    return layers.Dense(3, activation="softmax")(x)


@reads("features")
def normalized(features: Any, _: Any) -> Any:
    """The converter folds these into one: no weight is found again."""
    return layers.Dense(3, activation="softmax")(layers.BatchNormalization()(layers.Dense(5)(features)))


@reads("features")
def one_label(features: Any, _: Any) -> Any:
    return layers.Dense(1, activation="sigmoid")(features)


STAMPABLE = [dense, square, convolution, two_inputs, one_label]


def merged(heads: dict[str, Any]) -> MergedModel:
    image = keras.Input((4, 4, 3), name="image")
    first = layers.Dense(6)(layers.Flatten()(image))
    backbone = keras.Model(image, [first, layers.Conv2D(3, 1)(image)])
    entry = PictureSourceInput((4, 4), PixelTransform(), PixelTransform())
    return MergedModel(entry, backbone, heads, "sha256:0", tuple(SHAPES))


@pytest.fixture(scope="module")
def model() -> tuple[MergedModel, bytes, list[int]]:
    """Four heads of each kind, one more of a kind of its own, and how many functions each conversion was given."""
    heads = {f"{build.__name__}_{i}": head(build, 10 * i + 1) for i in range(4) for build in (*STAMPABLE, normalized)}
    whole, counts = merged(heads), list[int]()
    original = conversion._convert
    conversion._convert = lambda functions: counts.append(len(functions)) or original(functions)
    try:
        return whole, whole.float_model(), counts
    finally:
        conversion._convert = original


def test_every_head_computes_what_its_keras_model_does(model: tuple[MergedModel, bytes, list[int]]) -> None:
    whole, data, _ = model
    interpreter = find_interpreter("ai_edge_litert")[1](model_content=data)
    rng = np.random.default_rng(3)
    features = {name: rng.normal(0, 1, (1, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    for name, keras_head in whole.heads.items():
        expected = keras_head([features[t.name] for t in keras_head.inputs], training=False)
        found = interpreter.get_signature_runner(name)(**{t.name: features[t.name] for t in keras_head.inputs})["scores"]
        np.testing.assert_allclose(found, np.asarray(expected), atol=1e-6, err_msg=name)


def test_heads_that_are_built_alike_cost_one_conversion(model: tuple[MergedModel, bytes, list[int]]) -> None:
    """The backbone; one template of each kind; then those whose weights the converter computed with."""
    assert model[2] == [1, 6, 4]


def test_the_order_of_heads_is_kept(model: tuple[MergedModel, bytes, list[int]]) -> None:
    assert list(read_parts(model[1])) == ["backbone", *model[0].heads]


def test_what_makes_heads_alike() -> None:
    heads = {"a": head(dense, 1), "b": head(square, 2), "c": head(dense, 3)}
    heads["d"] = head(reads("features")(lambda f, _: layers.Dense(4, activation="softmax")(f)), 4)
    heads["e"] = head(reads("features")(lambda f, _: layers.Dense(3, activation="sigmoid")(f)), 5)
    heads["f"] = head(reads("features_2")(lambda _, f: layers.Dense(3, "softmax")(layers.Flatten()(f))), 6)
    assert groups(heads) == [["a", "c"], ["b"], ["d"], ["e"], ["f"]]


@pytest.mark.parametrize("masked", [True, False])
def test_a_mean_over_no_words_needs_words(masked: bool) -> None:
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    embedded = layers.Embedding(6, 3, mask_zero=masked)(tokens)
    backbone = keras.Model(tokens, layers.GlobalAveragePooling1D()(embedded))
    entry = TextSourceInput(TextInput(4, ("", "[UNK]", "a")), inside=True)
    assert MergedModel(entry, backbone, {}, "sha256:0", ("features",)).needs_words() is masked
    assert not merged({}).needs_words()  # a picture always has pixels


def test_a_weight_that_is_not_found_is_never_guessed() -> None:
    own = template(head(dense, 1))
    part = read_parts(merged({"a": own}).float_model())["a"]
    weights = own.get_weights()
    assert places(part, weights) is not None
    assert places(part, [weights[0] + 1e-3, weights[1]]) is None
    assert places(part, [*weights, np.ones((2, 2), np.float32)]) is None
