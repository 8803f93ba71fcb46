"""Translate a configuration of Keras 1, Keras 2 or tf_keras to Keras 3's form; the old framework is not needed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from builder.reading.formats import differences
from builder.reading.formats.calls import (
    Arguments,
    clean_name,
    counts_from_one,
    layer_name,
    read_call,
    read_ends,
    tensor_of,
    tensors_in,
)
from builder.reading.formats.operations import UnknownOperationError, translate
from builder.reading.formats.stored import LOADING_ERRORS, reason_of
from builder.reading.formats.training import training_layers
from builder.support.errors import ModelFileError

_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_HALF = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Modernized:
    """``definition``: as Keras 3 serializes a model. ``notes``: changes that the user may want to know.

    ``training``: layers called with ``training=True``, so that their answers depend on the batch or on chance.
    """

    definition: dict[str, Any]
    notes: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reader:
    path: Path
    allow_code: bool
    notes: dict[str, None] = field(default_factory=dict)  # an ordered set

    def fail(self, name: str, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: layer {name!r:.80}: {what}; save the model again with a current Keras")


def modernize(definition: Mapping[str, Any], path: Path, *, allow_code: bool = False) -> Modernized:
    """``definition``, written by Keras 1, 2 or tf_keras, in Keras 3's form; parts in that form stay the same.

    Raises ``ModelFileError`` for what has no counterpart.
    """
    reader = _Reader(path, allow_code)
    try:
        modern = _model(_plain(definition), reader)
    except ModelFileError:
        raise
    except LOADING_ERRORS as error:
        raise ModelFileError(
            f"{path}: its configuration is not that of a Keras model ({type(error).__name__}: {reason_of(error)}); "
            "save the model again"
        ) from error
    return Modernized(modern, tuple(reader.notes), tuple(training_layers(modern)))


def is_old(definition: Mapping[str, Any], version: str) -> bool:
    """Whether the configuration is in the form of Keras 1 or 2. ``version``: as in the file; may be empty."""
    if version.split(".")[0].isdecimal():
        return int(version.split(".")[0]) < 3
    return "module" not in definition


def _plain(value: Any) -> Any:
    """The value without Keras's wrappers of tuples, shapes and numbers."""
    if isinstance(value, Mapping):
        kind = value.get("class_name")
        if kind in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
            return [_plain(item) for item in value["items"]]
        if (
            kind == "__numpy__"
            and isinstance(value.get("config"), Mapping)
            and not isinstance(value["config"].get("value"), list)
        ):
            return value["config"]["value"]
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _model(definition: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    kind = differences.MODELS.get(definition["class_name"])
    config = definition["config"]
    if kind is None:
        raise ModelFileError(
            f"{reader.path}: the model is of class {definition['class_name']!r:.80}; expected Sequential or Functional: "
            "rebuild it as keras.Model(inputs, outputs) and save it again"
        )
    if isinstance(config, list):  # Sequential until Keras 2.2.2
        config = {"name": definition.get("name", "sequential"), "layers": config}
    modern = _sequential(config, reader) if kind == "Sequential" else _functional(config, reader)
    modern["name"] = clean_name(str(config.get("name") or kind.lower()))
    modern["trainable"] = bool(config.get("trainable", True))
    module = "keras.src.models.sequential" if kind == "Sequential" else "keras.src.models.functional"
    return {"module": module, "class_name": kind, "config": modern, "registered_name": kind}


def _sequential(config: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for layer in config["layers"]:
        if not layers:
            layers += _input_before(layer, config, reader)
        layers += _chain(layer, reader)
    return {"layers": layers}


def _input_before(first: Mapping[str, Any], config: Mapping[str, Any], reader: _Reader) -> list[dict[str, Any]]:
    """The InputLayer that a Sequential model lacks, from the input shape of its first layer or of itself."""
    if first["class_name"] == "InputLayer":
        return []
    shape = _input_shape(first) or config.get("build_input_shape")
    if not shape:
        return []
    return [_defined("InputLayer", {"batch_shape": shape, "name": f"{clean_name(layer_name(first))}_input"}, reader)]


def _input_shape(layer: Mapping[str, Any]) -> Any:
    """The input shape with the batch axis, of a layer or of the first layer in a model; None where it is missing."""
    config = layer["config"]
    if layer["class_name"] in differences.MODELS:
        inner = config if isinstance(config, list) else config["layers"]
        named = next((item for item in inner if item["class_name"] == "InputLayer"), inner[0])
        return _input_shape(named)
    if config.get("batch_input_shape") is None and isinstance(config.get("input_dim"), int):
        return [None, config["input_dim"]] if layer["class_name"] != "Embedding" else None
    return config.get("batch_input_shape", config.get("batch_shape"))


def _functional(config: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    kinds = {layer_name(layer): differences.MODELS.get(layer["class_name"], "") for layer in config["layers"]}
    start = {name: int(bool(kind) and counts_from_one(name, config)) for name, kind in kinds.items()}
    ends: dict[str, str] = {}  # the layer that has taken over the output of another
    layers: list[dict[str, Any]] = []
    pending = []
    for layer in config["layers"]:
        chain = [] if layer["class_name"] in (*_OPERATIONS, "TensorFlowOpLayer") else _chain(layer, reader)
        if chain:
            ends[layer_name(layer)] = chain[-1]["name"]
        pending.append((layer, chain))

    def tensor(history: Any) -> dict[str, Any]:
        name, call, output = history[:3]
        if name not in kinds:
            raise ModelFileError(f"{reader.path}: its configuration names a layer {name!r:.80} that does not exist")
        return tensor_of(ends.get(name, clean_name(name)), int(call) - start[name], int(output))

    def end(history: Any) -> list[Any]:
        name, call, output = tensor(history)["config"]["keras_history"]
        return [name, call + (kinds[history[0]] == "Functional"), output]  # here Keras 3 counts their calls from 1

    for layer, chain in pending:
        calls = [read_call(node, tensor) for node in layer.get("inbound_nodes", ())]
        if not chain:
            layers.append(_operation(layer, calls, reader))
            continue
        chain[0]["inbound_nodes"] = [{"args": list(args), "kwargs": kwargs} for args, kwargs in calls]
        for before, item in itertools.pairwise(chain):
            item["inbound_nodes"] = [{"args": [tensor_of(before["name"], i, 0)], "kwargs": {}} for i in range(len(calls))]
        layers += chain
    ends_of = {key: read_ends(config[key], end) for key in ("input_layers", "output_layers")}
    return {"layers": layers, **ends_of}


def _operation(layer: Mapping[str, Any], calls: list[Arguments], reader: _Reader) -> dict[str, Any]:
    """A TensorFlow function that was stored as a layer."""
    name = layer_name(layer)
    if len(calls) != 1:
        raise reader.fail(name, f"an operation that is called {len(calls)} times; expected once")
    try:
        if layer["class_name"] == "TensorFlowOpLayer":
            raise UnknownOperationError("an operation as TensorFlow 2.0 to 2.3 wrote them is not supported")
        call = translate(layer["config"]["function"], *calls[0])
    except UnknownOperationError as error:
        raise reader.fail(name, str(error)) from error
    except KeyError as error:
        raise reader.fail(name, f"argument {error} is missing") from error
    if next(tensors_in(call.args), None) is None:
        raise reader.fail(name, f"no tensor among its arguments {call.args!r:.60}")
    name = clean_name(name)
    return {
        "module": call.module,
        "class_name": call.class_name,
        "config": {"name": name, **call.config},
        "registered_name": None if call.module == "keras.layers" else call.class_name,
        "name": name,
        "inbound_nodes": [{"args": call.args, "kwargs": call.kwargs}],
    }


def _chain(layer: Mapping[str, Any], reader: _Reader) -> list[dict[str, Any]]:
    """One layer, or the layers that together compute the same."""
    if layer["class_name"] in differences.MODELS:
        model = _model(layer, reader)
        name = clean_name(layer.get("name") or model["config"]["name"])
        return [{**model, "config": {**model["config"], "name": name}, "name": name}]
    kind = str(layer["class_name"]).rpartition(">")[2]
    config = {**layer["config"], "name": clean_name(layer_name(layer))}
    if kind == "Merge":
        kind = differences.MERGE_MODES.get(str(config.get("mode")), "Merge")
        config = {k: v for k, v in config.items() if k in ("name", "concat_axis")}
    if config.get("activation") == "hard_sigmoid" and kind not in ("ConvLSTM2D", "LSTM", "GRU"):
        return _hard_sigmoid(kind, config, reader)
    return [_defined(kind, config, reader)]


def _hard_sigmoid(kind: str, config: dict[str, Any], reader: _Reader) -> list[dict[str, Any]]:
    """In Keras 2 it is clip(0.2 x + 0.5, 0, 1); Keras 3 has another function of this name, relu6(x + 3) / 6."""
    name = config["name"]
    before = [] if kind == "Activation" else [_defined(kind, {**config, "activation": "linear"}, reader)]
    return [
        *before,
        _defined("Rescaling", {"name": f"{name}_scaled", "scale": 0.2, "offset": 0.5}, reader),
        _defined("ReLU", {"name": f"{name}_clipped" if before else name, "max_value": 1.0}, reader),
    ]


def _defined(old_kind: str, config: dict[str, Any], reader: _Reader) -> dict[str, Any]:
    """One layer as Keras 3 serializes it."""
    name = config["name"]
    kind = differences.CLASSES.get(old_kind, old_kind)
    config = _kernel_size(config, kind)
    renamed = differences.RENAMED[""] | differences.RENAMED.get(old_kind, {}) | differences.RENAMED.get(kind, {})
    config = {renamed.get(key, key): value for key, value in config.items()}
    if kind == "InputLayer":
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        config = {"batch_shape": shape, "dtype": config.get("dtype") or "float32", "name": name}
    else:
        config = _without_dropped(config, kind, reader)
    for key, value in differences.DEFAULTS.get(kind, {}).items():
        config.setdefault(key, value)
    config = {key: _value(key, value, reader) for key, value in config.items()}
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
        config["axis"] = config["axis"][0]
    if "dtype" in config:
        config["dtype"] = _dtype(config["dtype"], reader)
    module = differences.MODULES.get(kind, "keras.layers")
    if module == "keras.layers" and not hasattr(keras.layers, kind) and not reader.allow_code:
        raise reader.fail(
            name, f"class {kind!r:.60} is not one of Keras's own, or Keras {keras.__version__} no longer has it"
        )
    return {"module": module, "class_name": kind, "config": config, "registered_name": None, "name": name}


def _kernel_size(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Join the separate settings of Keras 1 for each side."""
    sides = [key for key in ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col") if key in config]
    if not sides:
        return config
    kept = {key: value for key, value in config.items() if key not in sides}
    return {**kept, "kernel_size": [config[key] for key in sides]}


def _without_dropped(config: dict[str, Any], kind: str, reader: _Reader) -> dict[str, Any]:
    table = differences.DROPPED[""] | differences.DROPPED.get(kind, {})
    if kind == "Embedding":
        table = {key: value for key, value in table.items() if key != "input_dim"}
    if kind == "GroupNormalization":
        table = {key: value for key, value in table.items() if key != "groups"}
    kept = {}
    for key, value in config.items():
        if key.endswith(differences.DROPPED_SUFFIXES) or key.startswith(("W_", "b_", "activity_regularizer")):
            continue
        allowed = table.get(key)
        if key not in table:
            kept[key] = value
        elif allowed is not differences.ANY and value not in (allowed or ()):
            raise reader.fail(config["name"], f"{key} is {value!r:.40}, which Keras 3 does not have")
    return kept


def _value(key: str, value: Any, reader: _Reader) -> Any:
    """A setting's value, with nested layers modernized and functions as names."""
    if key in differences.VALUES and isinstance(value, str):
        return differences.VALUES[key].get(value, value)
    if key == "recurrent_activation" and value == "hard_sigmoid":
        raise ModelFileError(
            f"{reader.path}: a recurrent layer with the hard_sigmoid of Keras 2, which Keras 3 does not have; "
            "train it with recurrent_activation='sigmoid'"
        )
    if isinstance(value, Mapping) and value.get("class_name") == "function":
        return value["config"]
    if isinstance(value, Mapping) and key in ("layer", "backward_layer", "cell", "activation") and "config" in value:
        if value["class_name"] in differences.MODELS:
            return _model(value, reader)
        chain = _chain(value, reader)
        if len(chain) > 1:
            raise reader.fail(layer_name(value), "hard_sigmoid of Keras 2 within another layer")
        return {k: v for k, v in chain[0].items() if k != "name"}
    return value


def _dtype(value: Any, reader: _Reader) -> str:
    """Half precision is for training: features are computed in float32, as the built file needs."""
    name = value
    if isinstance(value, Mapping):
        name = value["config"].get("name") if isinstance(value.get("config"), Mapping) else value.get("config")
    if not isinstance(name, str):
        return "float32"
    if name.startswith("mixed_") or name in _HALF:
        reader.notes[f"{name} is read as float32"] = None
        return "float32"
    return name
