"""The first layer that differs between two models, whatever is only spelled differently before it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers  # noqa: E402

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.difference import _advice, first_difference  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.graph import Node, WeightPool  # noqa: E402
from builder.reading.keras_graph import _tensor_histories  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from tests.test_tflite_beside import file_of  # noqa: E402
from tests.test_tflite_beside import network as operators  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

SIZE = 8


def relu(kind: str, name: str) -> Any:
    if kind in ("layer", "none"):
        return (layers.ReLU if kind == "layer" else layers.Identity)(name=name)
    return layers.Activation("relu" if kind == "activation" else kind, name=name)


def network(**chosen: Any) -> Any:
    """A base whose parts can all be replaced, and a head of three labels. Equal shapes have equal weights."""
    c: dict[str, Any] = {
        "zeros": "inside", "inside": None, "filters": 4, "kernel": 3, "strides": 1, "padding": "same", "dilation": 1,
        "first": "layer", "epsilon": 1e-3, "scale": True, "normal": layers.BatchNormalization, "second": "layer",
        "skip": layers.Add, "pool": layers.MaxPooling2D, "pool_size": 2, "pool_padding": "valid", "bias": True,
        "dropout": 0.0, "mean": "pool", "hidden": "relu", "seed": 0, "extra": None, "twice": False, **chosen,
    }  # fmt: skip
    image = keras.Input((SIZE, SIZE, 3))
    x = image if c["inside"] is None else c["inside"](image)
    padding = c["padding"]
    if c["zeros"] == "in front":
        x, padding = layers.ZeroPadding2D(1, name="zeros")(x), "valid"
    fused = c["first"] == "fused"
    x = layers.Conv2D(
        c["filters"], c["kernel"], c["strides"], padding, dilation_rate=c["dilation"], use_bias=c["bias"], name="conv",
        activation="relu" if fused else None,
    )(x)  # fmt: skip
    x = x if fused else relu(c["first"], "act")(x)
    if c["normal"] is layers.BatchNormalization:
        x = layers.BatchNormalization(epsilon=c["epsilon"], scale=c["scale"], name="normal")(x)
    else:
        x = c["normal"](name="normal")(x)
    x = layers.Dropout(c["dropout"])(x)
    x = c["extra"](x) if c["extra"] is not None else x
    y = relu(c["second"], "act2")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = c["skip"](name="skip")([y, x] if c["twice"] else [x, y])
    x = c["pool"](c["pool_size"], padding=c["pool_padding"], name="pool")(x)
    if c["mean"] == "pool":
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    elif c["mean"] == "flat":
        x = layers.Flatten(name="flat")(layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x))
    else:
        x = layers.GlobalMaxPooling2D(name="mean")(x)
    x = layers.Dense(5, activation=c["hidden"], name="hidden")(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name=f"scores{c['seed']}")(x))
    for layer in model.layers:
        rng = np.random.default_rng(c["seed"] if layer.name.startswith("scores") else 7)
        layer.set_weights([rng.uniform(0.2, 1.0, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return model


def read(folder: Path, name: str, preprocessing: str | None = "unit", **chosen: Any) -> Classifier:
    path = folder / f"{name}.keras"
    network(**chosen).save(path)
    return Reader().read(name, path, None if preprocessing is None else PREPROCESSING[preprocessing])


# Ways to write the same base.
SPELLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zeros in front": {"zeros": "in front"},
    "activation in the layer": {"first": "fused"},
    "activation by name": {"first": "activation", "second": "activation"},
    "dropout": {"dropout": 0.4},
    "mean and flat": {"mean": "flat"},
    "the sum the other way round": {"twice": True},
    "everything": {"zeros": "in front", "first": "fused", "second": "activation", "dropout": 0.4, "mean": "flat",
                   "twice": True},
}  # fmt: skip

# What is another function, the layer at which the models part, and words that say how.
MISSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "filters": ({"filters": 6}, "conv", "filters is 6 where the other has 4"),
    "kernel": ({"kernel": 5}, "conv", "kernel_size is [5, 5]"),
    "strides": ({"strides": 2}, "conv", "strides is [2, 2]"),
    "dilation": ({"dilation": 2}, "conv", "dilation_rate is [2, 2]"),
    "padding": ({"padding": "valid", "zeros": "inside"}, "conv", "where the other has"),
    "bias": ({"bias": False}, "conv", "use_bias is False where the other has True"),
    "activation": ({"first": "relu6"}, "act conv", "activation is relu6 where the other has relu"),
    "no activation": ({"first": "none"}, "normal conv", "where the other has"),
    "epsilon": ({"epsilon": 1e-2}, "normal", "epsilon is 0.01"),
    "scale": ({"scale": False}, "normal", "scale is False where the other has True"),
    "kind": ({"normal": layers.LayerNormalization}, "normal", "LayerNormalization where the other has"),
    "second activation": ({"second": "relu6"}, "act2", "activation is relu6 where the other has relu"),
    "skip": ({"skip": layers.Multiply}, "skip", "Multiply where the other has Add"),
    "join": ({"skip": layers.Concatenate}, "skip", "Concatenate where the other has Add"),
    "pool": ({"pool": layers.AveragePooling2D}, "pool", "AveragePooling2D where the other has MaxPooling2D ('pool')"),
    "pool size": ({"pool_size": 4}, "pool", "pool_size is [4, 4]"),
    "pool padding": ({"pool_size": 3, "pool_padding": "same"}, "pool", "p"),
    "mean": ({"mean": "largest"}, "mean", "GlobalMaxPooling2D where the other has GlobalAveragePooling2D"),
    "hidden": ({"hidden": "tanh"}, "hidden", "activation is tanh where the other has relu"),
    "extra": ({"extra": lambda x: layers.Rescaling(2.0, name="double")(x)}, "double", "Rescaling where the other has"),
    "turned": ({"extra": lambda x: layers.Permute((2, 1, 3), name="turned")(x)}, "turned", "Permute where the other has"),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    folder = tmp_path_factory.mktemp("spellings")
    return {name.replace(" ", "_"): read(folder, name.replace(" ", "_"), **how) for name, how in SPELLINGS.items()}


def test_what_is_spelled_otherwise_is_no_difference(written: dict[str, Classifier], tmp_path: Path) -> None:
    plain = written["plain"]
    for name, model in written.items():
        assert first_difference(plain, model) is None, name
        assert first_difference(model, plain) is None, name
    other = read(tmp_path, "other", seed=3)
    for model in written.values():  # the heads differ, and nothing before them
        found = first_difference(model, other)
        assert found is not None
        assert found.layer == "scores3"


@pytest.mark.parametrize("miss", MISSES)
def test_the_first_difference_is_told_and_no_spelling_before_it(
    written: dict[str, Classifier], tmp_path: Path, miss: str
) -> None:
    chosen, layer, words = MISSES[miss]
    other = read(tmp_path, "other", **chosen)
    for name in ("plain", "everything"):
        found = first_difference(written[name], other)
        assert found is not None
        assert found.layer in layer.split(), f"{name}: {found}"
        assert words in found.what, f"{name}: {found}"
        assert "the architectures differ" in found.advice


def test_weights_of_other_shapes_are_told_where_no_setting_says_it(tmp_path: Path) -> None:
    """The operators of a .tflite have no number of units among their settings."""
    found = []
    for hidden in (8, 9):
        (tmp_path / f"{hidden}.tflite").write_bytes(file_of(operators(hidden=hidden)))
        found.append(Reader().read("h", tmp_path / f"{hidden}.tflite", PREPROCESSING["tf"]))
    difference = first_difference(*found)
    assert difference is not None
    assert re.fullmatch(r"weights of shapes \[\(9, .* where the other has \[\(8, .*", difference.what)
    assert first_difference(found[0], found[0]) is None


def test_pixels_come_before_all_layers(written: dict[str, Classifier], tmp_path: Path) -> None:
    found = first_difference(written["plain"], read(tmp_path, "other", "tf", filters=6))
    assert found is not None
    assert "its input scaling is" in found.what
    inside = read(tmp_path, "inside", None, inside=lambda x: layers.Rescaling(1 / 255)(x))
    assert first_difference(written["plain"], inside) is None


# ---- what weights that differ tell of their cause ----

BASE = {"Conv2D": 2, "BatchNormalization": 4, "DepthwiseConv2D": 2, "Dense": 2}  # and how many weights each has
KERNELS = {("Conv2D", 0), ("DepthwiseConv2D", 0), ("Dense", 0)}
STATISTICS = {("BatchNormalization", 2), ("BatchNormalization", 3)}
EVERY = {(kind, i) for kind, count in BASE.items() for i in range(count)}


def nodes(changed: set[tuple[str, int]], share: float) -> list[Node]:
    """``BASE`` in which one number of each weight in ``changed`` is off by ``share`` of the largest."""
    pool, found = WeightPool(), []
    for kind, count in BASE.items():
        values = [np.random.default_rng(i).uniform(0.1, 0.9, (3, 3, 2, 2)) for i in range(count)]
        for i, value in enumerate(values):
            value.flat[5] = 1.0
            value.flat[0] += share * ((kind, i) in changed)
        weights = tuple(pool.add(value.astype(np.float32)) for value in values)
        definition = {"module": "keras.layers", "class_name": kind, "config": {"name": kind}}
        found.append(Node(kind, definition, weights, (), {}))
    return found


@pytest.mark.parametrize(
    ("changed", "share", "exact", "words"),
    [
        (EVERY, 0.9 * 2**-11, (True, True), "rounding to float16"),
        (EVERY, 1.1 * 2**-11, (True, True), "different checkpoints"),
        (EVERY, 0.9 / 127, (True, False), "b was quantized, a was not"),
        (EVERY, 0.9 / 127, (False, True), "a was quantized, b was not"),
        (EVERY, 0.9 / 127, (True, True), "different checkpoints"),
        (EVERY, 1.1 / 127, (True, False), "different checkpoints"),
        (EVERY - KERNELS, 0.3, (True, True), "fine-tuned from here on"),
        (KERNELS, 0.3, (True, True), "different checkpoints"),
        (KERNELS - {("Dense", 0)}, 0.3, (True, True), "fine-tuned from here on"),
        (STATISTICS, 0.3, (True, True), "in training mode when b or a was trained"),
        ({("BatchNormalization", 2)}, 0.3, (True, True), "in training mode"),
        ({*STATISTICS, ("BatchNormalization", 1)}, 0.3, (True, True), "fine-tuned from here on"),
    ],
)
def test_weights_tell_how_they_came_to_differ(
    changed: set[tuple[str, int]], share: float, exact: tuple[bool, bool], words: str
) -> None:
    first, other = (SimpleNamespace(name=name, is_exact=one) for name, one in zip("ab", exact, strict=True))
    other.graph = SimpleNamespace(nodes=nodes(changed, share))
    assert words in _advice(first, other, dict(enumerate(nodes(set(), 0))))  # type: ignore[arg-type]


# ---- a base that Keras 2.2 wrote, beside the same from Keras 3 ----


def old_words(definition: dict[str, Any]) -> dict[str, Any]:
    """A Functional model of Keras 3 as Keras 2.2 would have written it: axes in lists, no modules, what it had then."""
    kept = {
        "InputLayer": ("batch_input_shape", "dtype", "sparse"),
        "ZeroPadding2D": ("padding", "data_format"),
        "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias"),
        "DepthwiseConv2D": ("kernel_size", "strides", "padding", "activation", "use_bias", "depth_multiplier"),
        "BatchNormalization": ("momentum", "epsilon", "center", "scale"),
        "ReLU": ("max_value", "negative_slope", "threshold"),
        "Add": (),
        "GlobalAveragePooling2D": ("data_format",),
        "Dense": ("units", "activation", "use_bias"),
    }  # fmt: skip
    found = []
    for layer in definition["config"]["layers"]:
        kind, config = layer["class_name"], dict(layer["config"])
        config["batch_input_shape"] = config.get("batch_shape")
        plain = {"name": config["name"], "trainable": True, "dtype": "float32"}
        plain.update({key: config[key] for key in kept[kind] if config.get(key) is not None})
        if kind == "BatchNormalization":
            plain |= {"axis": [3], "beta_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}}}
        inbound = [[[*history, {}] for history in _tensor_histories(call["args"])] for call in layer["inbound_nodes"]]
        found.append({"name": config["name"], "class_name": kind, "config": plain, "inbound_nodes": inbound})
    ends = {key: [definition["config"][key]] for key in ("input_layers", "output_layers")}
    return {"class_name": "Model", "config": {"name": "model", "layers": found, **ends}}


def old_file(path: Path, model: Any) -> None:
    """``model`` in an HDF5 file as Keras 2.2 wrote it."""
    model.save(path)
    with h5py.File(path, "r+") as file:
        definition = keras.saving.serialize_keras_object(model)
        file.attrs["model_config"] = json.dumps(old_words(definition))
        file.attrs["keras_version"] = file["model_weights"].attrs["keras_version"] = "2.2.4"


def mobilenet(**settings: Any) -> Any:
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None, **settings)


@pytest.mark.slow
def test_a_base_of_keras_2_2_and_the_same_of_keras_3_are_one(tmp_path: Path) -> None:
    """One model is flat, with axes in lists and pixels scaled outside; the other is nested, with a Rescaling inside."""
    base = mobilenet(pooling="avg")
    seed_weights(base, 5)
    scores = layers.Dense(3, activation="softmax", name="scores")
    old_file(tmp_path / "old.h5", keras.Model(base.input, scores(base.output)))
    image = keras.Input((32, 32, 3))
    x = base(layers.Rescaling(1 / 127.5, -1)(image), training=False)
    keras.Model(image, layers.Dense(4, activation="softmax", name="other")(x)).save(tmp_path / "new.keras")
    old = Reader().read("old", tmp_path / "old.h5", PREPROCESSING["tf"])
    new = Reader().read("new", tmp_path / "new.keras", None)
    assert "Keras 2.2.4" in old.kind
    found = first_difference(old, new)
    assert found is not None
    assert found.layer == "other"  # the heads alone differ
    assert find_backbone([old, new]).parameters == base.count_params()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    classifiers = [replace(c, labels=tuple("abcd")[:n]) for c, n in ((old, 3), (new, 4))]
    merged = merge(classifiers, find_backbone(classifiers))
    features = merged.features(pictures)
    for classifier in classifiers:
        answers = classifier.predict(pictures)
        np.testing.assert_allclose(merged.head_scores(classifier.name, features), answers, atol=1e-4)
