"""Translate the configuration of a model of Keras 1, Keras 2 or tf_keras to Keras 3's form, without the old framework.

Layers and calls are put together here; ``keras2_layer`` translates each layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.reading.formats import differences
from builder.reading.formats.calls import (
    clean_name,
    counts_from_one,
    layer_name,
    read_call,
    read_ends,
    tensor_of,
)
from builder.reading.formats.keras2_layer import (
    OldFile,
    function_name,
    translated_hard_sigmoid,
    translated_layer,
    translated_operation,
)
from builder.reading.formats.keras2_weights import GATES
from builder.reading.formats.stored import LOADING_ERRORS, reason_of
from builder.reading.formats.training import training_layers
from builder.support.errors import ModelFileError

_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_NESTED = ("layer", "backward_layer", "cell", "activation")  # settings that may hold a layer


@dataclass(frozen=True)
class Modernized:
    """``definition``: as Keras 3 serializes a model. ``notes``: changes that the user may want to know.

    ``training``: layers called with ``training=True``, so that their answers depend on the batch or on chance.
    """

    definition: dict[str, Any]
    notes: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


def modernize(definition: Mapping[str, Any], path: Path, *, allow_code: bool = False) -> Modernized:
    """``definition``, written by Keras 1, 2 or tf_keras, in Keras 3's form; parts in that form stay the same.

    Raises ``ModelFileError`` for what has no counterpart.
    """
    old = OldFile(path, allow_code)
    try:
        modern = _model(_plain(definition), old)
    except ModelFileError:
        raise
    except LOADING_ERRORS as error:
        raise ModelFileError(
            f"{path}: its configuration is not that of a Keras model ({type(error).__name__}: {reason_of(error)}); "
            "save the model again"
        ) from error
    return Modernized(modern, tuple(old.notes), tuple(training_layers(modern)))


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


def _model(definition: Mapping[str, Any], old: OldFile) -> dict[str, Any]:
    kind = differences.MODELS.get(definition["class_name"])
    config = definition["config"]
    if kind is None:
        raise ModelFileError(
            f"{old.path}: the model is of class {definition['class_name']!r:.80}; expected Sequential or Functional: "
            "rebuild it as keras.Model(inputs, outputs) and save it again"
        )
    if isinstance(config, list):  # Sequential until Keras 2.2.2
        config = {"name": definition.get("name", "sequential"), "layers": config}
    modern = _sequential(config, old) if kind == "Sequential" else _functional(config, old)
    modern["name"] = clean_name(str(config.get("name") or kind.lower()))
    modern["trainable"] = bool(config.get("trainable", True))
    module = "keras.src.models.sequential" if kind == "Sequential" else "keras.src.models.functional"
    return {"module": module, "class_name": kind, "config": modern, "registered_name": kind}


def _sequential(config: Mapping[str, Any], old: OldFile) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for layer in config["layers"]:
        if not layers:
            layers += _input_before(layer, config, old)
        layers += _chain(layer, old)
    return {"layers": layers}


def _input_before(first: Mapping[str, Any], config: Mapping[str, Any], old: OldFile) -> list[dict[str, Any]]:
    """The InputLayer that a Sequential model lacks, from the input shape of its first layer or of itself."""
    if first["class_name"] == "InputLayer":
        return []
    shape = _input_shape(first) or config.get("build_input_shape")
    if not shape:
        return []
    return [translated_layer("InputLayer", {"batch_shape": shape, "name": f"{clean_name(layer_name(first))}_input"}, old)]


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


def _functional(config: Mapping[str, Any], old: OldFile) -> dict[str, Any]:
    kinds = {layer_name(layer): differences.MODELS.get(layer["class_name"], "") for layer in config["layers"]}
    start = {name: int(bool(kind) and counts_from_one(name, config)) for name, kind in kinds.items()}
    ends: dict[str, str] = {}  # the layer that has taken over the output of another
    layers: list[dict[str, Any]] = []
    pending = []
    for layer in config["layers"]:
        chain = [] if layer["class_name"] in (*_OPERATIONS, "TensorFlowOpLayer") else _chain(layer, old)
        if chain:
            ends[layer_name(layer)] = chain[-1]["name"]
        pending.append((layer, chain))

    def tensor(history: Any) -> dict[str, Any]:
        name, call, output = history[:3]
        if name not in kinds:
            raise ModelFileError(f"{old.path}: its configuration names a layer {name!r:.80} that does not exist")
        return tensor_of(ends.get(name, clean_name(name)), int(call) - start[name], int(output))

    def end(history: Any) -> list[Any]:
        name, call, output = tensor(history)["config"]["keras_history"]
        return [name, call + (kinds[history[0]] == "Functional"), output]  # here Keras 3 counts their calls from 1

    for layer, chain in pending:
        calls = [read_call(node, tensor) for node in layer.get("inbound_nodes", ())]
        if not chain:
            layers.append(translated_operation(layer, calls, old))
            continue
        chain[0]["inbound_nodes"] = [{"args": list(args), "kwargs": kwargs} for args, kwargs in calls]
        for before, item in itertools.pairwise(chain):
            item["inbound_nodes"] = [{"args": [tensor_of(before["name"], i, 0)], "kwargs": {}} for i in range(len(calls))]
        layers += chain
    ends_of = {key: read_ends(config[key], end) for key in ("input_layers", "output_layers")}
    return {"layers": layers, **ends_of}


def _chain(layer: Mapping[str, Any], old: OldFile) -> list[dict[str, Any]]:
    """One layer, or the layers that together compute the same."""
    if layer["class_name"] in differences.MODELS:
        model = _model(layer, old)
        name = clean_name(layer.get("name") or model["config"]["name"])
        return [{**model, "config": {**model["config"], "name": name}, "name": name}]
    kind = str(layer["class_name"]).rpartition(">")[2]
    config = {key: _nested(key, value, old) for key, value in layer["config"].items()}
    config["name"] = clean_name(layer_name(layer))
    if kind == "Merge":
        kind = differences.MERGE_MODES.get(str(config.get("mode")), "Merge")
        config = {k: v for k, v in config.items() if k in ("name", "concat_axis")}
    if function_name(config.get("activation")) == "hard_sigmoid":
        if kind.removesuffix("Cell") in (*GATES, "SimpleRNN"):
            raise old.fail(
                config["name"], "the hard_sigmoid of Keras 2 as activation of a recurrent layer is not supported"
            )
        return translated_hard_sigmoid(kind, config, old)
    return [translated_layer(kind, config, old)]


def _nested(key: str, value: Any, old: OldFile) -> Any:
    """A setting's value; a layer or a model in it is translated too."""
    if key not in _NESTED or not isinstance(value, Mapping) or value.get("class_name") == "function":
        return value
    if "config" not in value:
        return value
    if value["class_name"] in differences.MODELS:
        return _model(value, old)
    chain = _chain(value, old)
    if len(chain) > 1:
        raise old.fail(layer_name(value), "hard_sigmoid of Keras 2 within another layer")
    return {k: v for k, v in chain[0].items() if k != "name"}
