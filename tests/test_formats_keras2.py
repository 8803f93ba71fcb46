"""Old configurations translated to Keras 3: formats for which no writer can be installed any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.reading.formats import read_model  # noqa: E402
from builder.reading.formats.keras2 import modernize  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402

PATH = Path("model.h5")


def layer(kind: str, name: str, before: str | None = None, **config: Any) -> dict[str, Any]:
    nodes = [] if before is None else [[[before, 0, 0, {}]]]
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    ends = {"input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return {"class_name": "Model", "config": {"name": "model_1", "layers": list(layers), **ends}}


def image(**config: Any) -> dict[str, Any]:
    return layer("InputLayer", "image", batch_input_shape=[None, 4, 4, 3], dtype="float32", sparse=False, **config)


def modern(definition: dict[str, Any]) -> Any:
    """The Keras 3 model of an old definition."""
    return keras.saving.deserialize_keras_object(modernize(definition, PATH).definition)


def operation(function: str, arguments: dict[str, Any], kind: str = "TFOpLambda", first: Any = None) -> dict[str, Any]:
    return {
        "class_name": kind,
        "name": "op",
        "config": {"name": "op", "function": function},
        "inbound_nodes": [[*(first or ["image", 0, 0]), arguments]],
    }


def test_sequential_of_keras_2_0_is_a_list_without_an_input_layer() -> None:
    stack = [
        {"class_name": "Conv2D", "config": {
            "name": "conv2d_1", "batch_input_shape": [None, 4, 4, 3], "dtype": "float32", "filters": 2,
            "kernel_size": [3, 3], "kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0}},
        }},
        {"class_name": "Flatten", "config": {"name": "flatten_1", "trainable": True}},
        {"class_name": "Dense", "config": {"name": "dense_1", "units": 3, "activation": "softmax"}},
    ]  # fmt: skip
    model = modern({"class_name": "Sequential", "config": stack})
    assert model.input_shape == (None, 4, 4, 3)
    assert [item.name for item in model.layers] == ["conv2d_1", "flatten_1", "dense_1"]


def test_words_of_keras_1() -> None:
    definition = functional(
        image(input_dtype="float32"),
        layer("Convolution2D", "c", "image", nb_filter=2, nb_row=3, nb_col=1, border_mode="same", subsample=[2, 2],
              dim_ordering="tf", bias=False, init="glorot_uniform", W_regularizer=None, activation="linear"),
        layer("BatchNormalization", "b", "c", mode=0, axis=-1, epsilon=1e-5, momentum=0.99, gamma_regularizer=None),
        layer("Dropout", "d", "b", p=0.5),
        {**layer("Merge", "m", mode="concat", concat_axis=-1), "inbound_nodes": [[["b", 0, 0], ["d", 0, 0]]]},
        layer("Flatten", "f", "m"),
        layer("Dense", "e", "f", output_dim=3, activation="softmax", init="uniform"),
    )  # fmt: skip
    definition["class_name"] = "Container"
    model = modern(definition)
    assert model.get_layer("c").kernel.shape == (3, 1, 3, 2)
    assert (model.get_layer("c").padding, model.get_layer("c").strides) == ("same", (2, 2))
    assert model.get_layer("d").rate == 0.5
    assert model.output_shape == (None, 3)


def test_tuples_and_functions_of_saved_models() -> None:
    tuple_of = {"class_name": "__tuple__", "items": [3, 3]}
    relu = {"module": "builtins", "class_name": "function", "config": "relu6", "registered_name": "function"}
    model = modern(functional(image(), layer("Conv2D", "c", "image", filters=2, kernel_size=tuple_of, activation=relu)))
    assert model.get_layer("c").kernel_size == (3, 3)
    assert model.get_layer("c").activation is keras.activations.relu6


@pytest.mark.parametrize("start", [0, 1])
def test_calls_of_a_model_within_count_from_zero_or_one(start: int) -> None:
    inner = functional(image(), layer("Flatten", "f", "image"))
    inner = {**inner, "name": "inner", "inbound_nodes": [[["image", 0, 0, {}]], [["r", 0, 0, {}]]]}
    r = layer("Rescaling", "r", "image", scale=2.0, offset=1.0)
    total = {**layer("Subtract", "s"), "inbound_nodes": [[["inner", start + 1, 0, {}], ["inner", start, 0, {}]]]}
    x = np.ones((1, 4, 4, 3), np.float32)
    assert np.all(np.asarray(modern(functional(image(), inner, r, total))(x)) == 2)


def test_the_hard_sigmoid_of_keras_2_is_another_function() -> None:
    model = modern(functional(image(), layer("Activation", "a", "image", activation="hard_sigmoid")))
    x = np.linspace(-4, 4, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    np.testing.assert_allclose(np.asarray(model(x)), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)


def test_a_gru_of_old_resets_before() -> None:
    reshape = layer("Reshape", "r", "image", target_shape=[4, 12])
    model = modern(functional(image(), reshape, layer("GRU", "g", "r", units=2, recurrent_activation="sigmoid")))
    assert model.get_layer("g").reset_after is False


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("math.truediv", {"y": 127.5, "name": None}, lambda x: x / 127.5),
        ("math.multiply", {"y": [1.0, 2.0, 3.0]}, lambda x: x * np.array([1, 2, 3])),
        ("math.maximum", {"y": 0.5}, lambda x: np.maximum(x, 0.5)),
        ("compat.v1.transpose", {"perm": [0, 2, 1, 3], "conjugate": False}, lambda x: x.transpose(0, 2, 1, 3)),
        ("math.reduce_max", {"axis": [1, 2]}, lambda x: x.max((1, 2))),
        ("expand_dims", {"axis": 1}, lambda x: x[:, None]),
        ("pad", {"paddings": [[0, 0], [1, 0], [0, 2], [0, 0]], "mode": "CONSTANT"},
         lambda x: np.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]])),
        ("nn.softmax", {"axis": -1}, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    ],
)  # fmt: skip
def test_operations(function: str, arguments: dict[str, Any], expected: Any) -> None:
    x = np.random.default_rng(0).normal(0, 1, (2, 4, 4, 3)).astype(np.float32)
    model = modern(functional(image(), operation(function, arguments)))
    np.testing.assert_allclose(np.asarray(model(x)), expected(x), atol=1e-5)


def test_a_constant_may_stand_first() -> None:
    op = operation("math.truediv", {"y": ["image", 0, 0]}, first=["_CONSTANT_VALUE", -1, 2.0])
    x = np.full((1, 4, 4, 3), 4, np.float32)
    assert np.all(np.asarray(modern(functional(image(), op))(x)) == 0.5)


REFUSED = {
    "an unknown operation": (functional(image(), operation("linalg.inv", {})), "'op': tf.linalg.inv is not supported"),
    "an unknown argument": (functional(image(), operation("nn.relu6", {"name": None, "shift": 1})), "argument shift"),
    "a division by zero": (functional(image(), operation("math.truediv", {"y": 0.0})), "division by zero"),
    "a cast to int": (functional(image(), operation("cast", {"dtype": "uint8"})), "expected a float type"),
    "an operation of TensorFlow 2.0": (
        functional(image(), {**operation("", {}), "class_name": "TensorFlowOpLayer"}), "TensorFlow 2.0 to 2.3",
    ),
    "a class that is gone": (functional(image(), layer("LocallyConnected2D", "l", "image")), "'l': class 'LocallyConn"),
    "a class of the user's": (functional(image(), layer("MyLayer", "mine", "image")), "class 'MyLayer' is not one of"),
    "a setting that is gone": (
        functional(image(), layer("DepthwiseConv2D", "d", "image", kernel_size=3, groups=3)), "'d': groups is 3",
    ),
    "a subclassed model": ({"class_name": "MyModel", "config": {}}, "of class 'MyModel'; expected Sequential"),
    "a tensor from nowhere": (functional(image(), layer("Flatten", "f", "gone")), "a layer 'gone' that does not exist"),
    "no layers": ({"class_name": "Sequential", "config": {"name": "s"}}, "not that of a Keras model"),
    **{
        f"a hard sigmoid of {kind}": (
            functional(image(), layer(kind, "r", "image", units=2, activation=activation)),
            "'r': the hard_sigmoid of Keras 2 as activation of a recurrent layer",
        )
        for kind in ("SimpleRNN", "LSTM", "GRU")
        for activation in ("hard_sigmoid", {"class_name": "function", "config": "hard_sigmoid"})
    },
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_named(case: str) -> None:
    definition, words = REFUSED[case]
    with pytest.raises(ModelFileError, match=words) as error:
        modernize(definition, PATH)
    assert str(error.value).startswith("model.h5: ")
    assert "\n" not in str(error.value)


def write_old(path: Path, *, prefix: str = "model_weights", ends: str = ":0", text: Any = str) -> dict[str, np.ndarray]:
    """An HDF5 file as a Python 2 or a Windows machine left it; its weights by name."""
    import json

    dense = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
    rng = np.random.default_rng(0)
    values = {f"d/kernel{ends}": rng.normal(0, 1, (3, 2)).astype("f4"), f"d/bias{ends}": np.ones(2, "f4")}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = text(json.dumps({"class_name": "Sequential", "config": [dense]}))
        root = file.create_group(prefix) if prefix else file
        root.attrs["layer_names"] = [b"d"]
        group = root.create_group("d")
        group.attrs["weight_names"] = [name.encode() for name in values]
        for name, value in values.items():
            group[name] = value
    return values


@pytest.mark.parametrize("text", [str, lambda t: t.encode(), lambda t: np.bytes_(t), lambda t: np.array([t.encode()])])
@pytest.mark.parametrize("ends", [":0", ""])
@pytest.mark.parametrize("prefix", ["model_weights", ""])
def test_hdf5_of_old_machines(tmp_path: Path, prefix: str, ends: str, text: Any) -> None:
    values = write_old(tmp_path / "m.h5", prefix=prefix, ends=ends, text=text)
    model = read_model(tmp_path / "m.h5")
    assert all(map(np.array_equal, model.weights["d",], values.values()))
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(np.asarray(model.live()(x)), values[f"d/kernel{ends}"] + 1, atol=1e-6)
