"""Calls in a Keras file: a layer called several times, dicts of tensors, ``training=True``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from builder.merging.backbone import find_backbone
from builder.merging.merge import merge
from builder.reading.classifier import Classifier
from builder.reading.formats.keras2 import modernize
from builder.reading.formats.operations import UnknownOperationError, translate
from builder.reading.formats.stored import StoredModel, live_weights
from builder.reading.formats.training import as_inference
from builder.reading.graph import Ref, WeightPool, map_refs, refs_in
from builder.reading.keras_graph import read_graph
from builder.reading.layers import canonical_layers
from builder.reading.reader import Reader
from builder.reading.shapes import tensor_shapes
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import ModelFileError
from tests.tiny_models import seed_weights


def read(folder: Path, model: Any) -> Classifier:
    path = folder / "model.keras"
    model.save(path)
    classifier = Reader().read("model", path, PREPROCESSING["unit"])
    return Classifier(**{**vars(classifier), "labels": tuple("abc")})


def assert_computes(folder: Path, model: Any, **how: Any) -> None:
    """The graph that was read, built again in two parts, answers as Keras does."""
    seed_weights(model, 3)
    classifier = read(folder, model)
    merged = merge([classifier], find_backbone([classifier]))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    ours = merged.head_scores("model", merged.features(pictures))
    theirs = keras.tree.flatten(model(pictures / np.float32(255), **how))[0]
    assert np.ptp(theirs, axis=0).max() > 0.005, "answers that never change would hide what was read wrongly"
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def stem(x: Any) -> Any:
    return layers.Conv2D(4, 3, padding="same", name="stem")(x)


def end(x: Any) -> Any:
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return layers.Dense(3, activation="softmax", name="scores")(x)


def one_relu(x: Any) -> Any:
    relu = layers.ReLU()
    for k in range(3):
        x = relu(layers.Conv2D(4, 3, padding="same", name=f"conv{k}")(x))
    return end(x)


def one_dense(x: Any) -> Any:
    dense, drop = layers.Dense(4, activation="tanh"), layers.Dropout(0.3)
    x = layers.GlobalAveragePooling2D()(stem(x))
    for _ in range(3):
        x = drop(dense(drop(x)))
    return end(x)


def one_model(x: Any) -> Any:
    inner = keras.Input((8, 8, 4))
    block = keras.Model(inner, layers.Conv2D(4, 3, padding="same", activation="tanh")(inner), name="block")
    x = stem(x)
    return end(layers.Add()([block(block(x)), x]))


def one_sequence(x: Any) -> Any:
    block = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()])
    return end(block(block(stem(x))))


def one_layer_inside(x: Any) -> Any:
    relu, inner = layers.ReLU(), keras.Input((8, 8, 4))
    y = relu(layers.Conv2D(4, 1)(relu(inner)))
    block = keras.Model(inner, layers.Subtract()([y, relu(layers.Conv2D(4, 1)(y))]))
    return end(relu(block(relu(block(stem(x))))))


def called_elsewhere(x: Any) -> Any:
    """The first call of the pooling belongs to another model, so that Keras counts on from it."""
    pool = layers.MaxPooling2D()
    pool(keras.Input((8, 8, 4)))
    return end(pool(layers.Conv2D(4, 1)(pool(stem(x)))))


def inputs_by_name(x: Any) -> Any:
    a, b = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    block = keras.Model({"b": b, "a": a}, layers.Subtract()([a, layers.Activation("tanh")(b)]))
    x = stem(x)
    return end(block({"a": x, "b": layers.Conv2D(4, 1)(x)}))


def inputs_in_a_list(x: Any) -> Any:
    a, b = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    block = keras.Model([b, a], layers.Subtract()([a, layers.Activation("tanh")(b)]))
    x = stem(x)
    return end(block([x, layers.Conv2D(4, 1)(x)]))


def inputs_of_a_list_by_name(x: Any) -> Any:
    """Keras finds the inputs of a list by their names too."""
    a, b = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    block = keras.Model([b, a], layers.Subtract()([a, layers.Activation("tanh")(b)]))
    x = stem(x)
    return end(block({"a": x, "b": layers.Conv2D(4, 1)(x)}))


def one_input_by_name(x: Any) -> Any:
    inner = keras.Input((8, 8, 4), name="inner")
    return end(keras.Model(inner, layers.Activation("tanh")(inner))({"inner": stem(x)}))


def two_outputs_inside(x: Any) -> Any:
    inner = keras.Input((8, 8, 4))
    block = keras.Model(inner, {"low": layers.Conv2D(4, 1)(inner), "high": layers.Activation("tanh")(inner)})
    found = block(stem(x))
    return end(layers.Subtract()([found["high"], found["low"]]))


def second_output(x: Any) -> Any:
    """The second output of a layer with several different outputs is read."""
    x = layers.Reshape((8, 32))(stem(x))
    _, state = layers.GRU(4, return_state=True, return_sequences=True)(x)
    return end(state)


def third_output(x: Any) -> Any:
    x = layers.Reshape((8, 32))(stem(x))
    _, _, memory = layers.LSTM(4, return_state=True)(x)
    return end(memory)


def parts(x: Any) -> Any:
    low, high = ops.split(stem(x), 2, axis=-1)
    return end(ops.subtract(ops.tanh(high), low))


CALLS: tuple[Callable[[Any], Any], ...] = (
    one_relu, one_dense, one_model, one_sequence, one_layer_inside, called_elsewhere, inputs_by_name, inputs_in_a_list,
    inputs_of_a_list_by_name, one_input_by_name, two_outputs_inside, second_output, third_output, parts,
)  # fmt: skip


@pytest.mark.parametrize("make", CALLS, ids=lambda make: make.__name__)
def test_calls_are_read_as_they_were_made(tmp_path: Path, make: Callable[[Any], Any]) -> None:
    image = keras.Input((8, 8, 3))
    assert_computes(tmp_path, keras.Model(image, make(image)))


@pytest.mark.parametrize("wrap", [lambda y: {"answer": y}, lambda y: [y]], ids=["dict", "list"])
def test_one_output_may_be_wrapped(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, wrap(one_relu(image)))
    assert_computes(tmp_path, model)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    expected = np.asarray(keras.tree.flatten(model(pictures / np.float32(255)))[0])
    np.testing.assert_allclose(read(tmp_path, model).predict(pictures), expected, atol=1e-6)


# Each gives one tensor of (batch, 8, 6, 3); what Keras knows of its shape must be known from the file alone.
SHAPED: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (x / 2.0 + x) * 3.0,
    "with an array": lambda x: x * ops.convert_to_tensor(np.ones((2, 1, 6, 3), np.float32))[0],
    "of an array": lambda x: ops.multiply(x, ops.convert_to_tensor(np.ones((8, 1, 3), np.float32))),
    "reshape": lambda x: ops.reshape(x, (-1, 8, 18)),
    "mean": lambda x: ops.mean(x, axis=1),
    "mean of all axes that are kept": lambda x: ops.mean(x, axis=(1, 2), keepdims=True),
    "stack": lambda x: ops.stack([x, x, x], axis=1),
    "concatenation": lambda x: ops.concatenate([x, x], axis=-1),
    "turned": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "more axes and fewer": lambda x: ops.squeeze(ops.expand_dims(x, 1)[:, :, :1], 2),
    "slices": lambda x: x[:, 1:5, ::2, 0],
    "the only one of a list": lambda x: ops.split(x, 1, axis=2)[0],
    "the first of several": lambda x: ops.split(x, 3, axis=2)[0],
    "padded": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0))),
    "named arguments": lambda x: ops.expand_dims(x=x, axis=-1),
    "product": lambda x: ops.matmul(x, ops.convert_to_tensor(np.ones((3, 5), np.float32))),
    "layers": lambda x: layers.Conv2D(5, 3, strides=2)(layers.ZeroPadding2D(((1, 0), (2, 0)))(x)),
    "layers of several": lambda x: layers.Concatenate(axis=1)([x, layers.Cropping2D(((1, 0), (0, 0)))(x)]),
    "a layer with states": lambda x: layers.LSTM(4, return_sequences=True, return_state=True)(x[:, 0])[0],
}


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_are_those_that_keras_gives(name: str) -> None:
    image = keras.Input((8, 6, 3))
    model = keras.Model(image, SHAPED[name](image))
    definition = keras.saving.serialize_keras_object(model)
    graph = read_graph(definition, live_weights(model), pool=WeightPool(), canonical=canonical_layers())
    assert tensor_shapes(graph, (8, 6, 3))[graph.output] == model.output_shape


@pytest.mark.parametrize("kind", [list, tuple, lambda pair: dict(zip("ab", pair, strict=True))])
def test_the_tensors_of_a_call_are_found_wherever_they_stand(kind: Callable[[Any], Any]) -> None:
    """What is replaced in a call and what is found in it are the same tensors, in the same order."""
    first, second, third = (Ref(i, 0) for i in (4, 2, 3))
    call = kind([first, [3, "no tensor", {"inner": kind([second, (third,)])}]])
    changed: list[Ref] = []
    map_refs(call, changed.append)
    assert list(refs_in(call)) == changed == [first, second, third]


def called(kind: str, training: Any, config: Any = None, *, trainable: bool = True) -> dict[str, Any]:
    """A model of Keras 2 with a model in it, as its configuration says it; the layer within is called by no argument."""
    inner = {"class_name": kind, "config": {"name": "inner", "trainable": trainable, **(config or {})}}
    image = {"class_name": "InputLayer", "config": {"name": "image", "batch_input_shape": [None, 8, 8, 3]}}
    block = {"class_name": "Sequential", "config": {"name": "block", "layers": [image, inner]}}
    said = {} if training is None else {"training": training}
    config = {
        "name": "outer",
        "layers": [
            {**image, "inbound_nodes": []},
            {**block, "name": "block", "inbound_nodes": [[["image", 0, 0, said]]]},
        ],
        "input_layers": [["image", 0, 0]],
        "output_layers": [["block", 1, 0]],
    }
    return {"class_name": "Functional", "config": config}


ACTIVE = {
    "Dropout": {"rate": 0.5},
    "GaussianNoise": {"stddev": 0.5},
    "RandomFlip": {},
    "BatchNormalization": {"axis": [3]},
    "LSTM": {"units": 2, "dropout": 0.1},
    "GRU": {"units": 2, "recurrent_dropout": 0.1},
}


@pytest.mark.parametrize("kind", ACTIVE)
def test_what_depends_on_the_batch_or_on_chance_is_refused_by_name(kind: str) -> None:
    definition = called(kind, True, ACTIVE[kind])
    modern = modernize(definition, Path("model.h5"))
    assert modern.training == (f"'block/inner' ({kind})",)
    assert modernize(as_inference(definition), Path("model.h5")).training == ()
    stored = StoredModel(Path("model.h5"), "", modern.definition, {}, None, None, training=modern.training)
    with pytest.raises(
        ModelFileError, match=rf"layer 'block/inner' \({kind}\) is called with training=True.*--inference-m"
    ):
        Reader().base("a", stored, None)
    (note,) = Reader(inference_mode=True)._training(stored)
    assert "is run in inference mode" in note


@pytest.mark.parametrize("kind", ACTIVE)
@pytest.mark.parametrize("training", [False, None])
def test_inference_is_read(kind: str, training: bool | None) -> None:
    assert modernize(called(kind, training, ACTIVE[kind]), Path("model.h5")).training == ()


def test_training_that_changes_nothing_is_read() -> None:
    assert modernize(called("BatchNormalization", True, {"axis": [3]}, trainable=False), Path("model.h5")).training == ()
    assert modernize(called("Dropout", True, {"rate": 0.0}), Path("model.h5")).training == ()
    assert modernize(called("LSTM", True, {"units": 2, "dropout": 0.0}), Path("model.h5")).training == ()


def test_keras_3_leaves_the_choice_to_predict(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    x = layers.Dropout(0.5)(stem(layers.RandomFlip()(image)), training=True)
    assert_computes(tmp_path, keras.Model(image, end(x)), training=False)


INSIDE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "division and subtraction": (lambda x: x / 127.5 - 1.0, "tf"),
    "preprocess_input": (keras.applications.mobilenet_v2.preprocess_input, "tf"),
    "multiplication": (lambda x: x * (1 / 255), "unit"),
    "addition in front": (lambda x: -1.0 + x * (1 / 127.5), "tf"),
    "a layer and an operation": (lambda x: layers.Rescaling(1 / 255)(x) * 2 - 1, "tf"),
    "augmentation before it": (lambda x: layers.RandomFlip()(x) / 255.0, "unit"),
}


@pytest.mark.parametrize("how", INSIDE)
def test_arithmetic_inside_settles_the_input_scaling(tmp_path: Path, how: str) -> None:
    image = keras.Input((8, 8, 3))
    inside, expected = INSIDE[how]
    keras.Model(image, end(stem(inside(image)))).save(tmp_path / "model.keras")
    classifier = Reader().read("model", tmp_path / "model.keras", None)
    assert classifier.source_input.pixels.identity == PREPROCESSING[expected].identity
    assert classifier.graph.nodes[0].kind == "Conv2D"


def test_arithmetic_that_the_input_scaling_cannot_hold_stays(tmp_path: Path) -> None:
    for number, inside in enumerate(
        (lambda x: 1.0 / (x + 1.0), lambda x: x * np.ones((8, 1), np.float32), lambda x: x + x)
    ):
        image = keras.Input((8, 8, 3))
        keras.Model(image, end(stem(inside(image)))).save(tmp_path / f"{number}.keras")
        classifier = Reader().read("model", tmp_path / f"{number}.keras", None)
        assert classifier.graph.nodes[0].kind in ("TrueDivide", "Multiply", "Add")


def test_what_is_computed_twice_is_one_node(tmp_path: Path) -> None:
    """Two branches of a head that each pool the base on their own: the base stays shared."""
    image = keras.Input((8, 8, 3))
    x = stem(image)
    branches = [layers.Dense(4, activation=kind)(layers.GlobalAveragePooling2D()(x)) for kind in ("relu", "tanh")]
    model = keras.Model(image, end(layers.Concatenate()(branches)))
    assert_computes(tmp_path, model)
    kinds = [node.kind for node in read(tmp_path, model).graph.nodes]
    assert kinds.count("GlobalAveragePooling2D") == 1
    assert kinds.count("Dense") == 3


@pytest.mark.parametrize(
    ("kind", "config"),
    [("RandomRotation", {"factor": 0.1, "value_range": [0, 255]}), ("Dropout", {"rate": 0.5, "noise_shape": 2})],
)
def test_a_layer_that_does_nothing_need_not_be_made(kind: str, config: dict[str, Any]) -> None:
    definition = {
        "module": "keras.layers",
        "class_name": kind,
        "registered_name": None,
        "config": {"name": "a", **config},
    }
    with pytest.raises((TypeError, ValueError)):
        keras.saving.deserialize_keras_object(definition)
    assert canonical_layers()(definition)["class_name"] == kind


@pytest.mark.parametrize(("data_format", "known"), [(None, True), ("NHWC", True), ("N...C", True), ("NCHW", False)])
def test_bias_add_of_tensorflow_with_channels_last(data_format: str | None, known: bool) -> None:
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["image", 0, 0]}}
    given = {"bias": [1.0, 2.0, 3.0], "data_format": data_format}
    if known:
        assert translate("nn.bias_add", [tensor], given).config == {"scale": 1.0, "offset": [1.0, 2.0, 3.0]}
        return
    with pytest.raises(UnknownOperationError, match="data_format is not supported"):
        translate("nn.bias_add", [tensor], given)
