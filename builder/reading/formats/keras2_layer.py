"""Translate one layer of Keras 1, Keras 2 or tf_keras, and one stored TensorFlow operation, to Keras 3's form.

``keras2`` puts them together to models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from builder.reading.formats import differences
from builder.reading.formats.calls import Arguments, clean_name, layer_name, tensors_in
from builder.reading.formats.operations import UnknownOperationError, translate
from builder.support.errors import ModelFileError

_HALF = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class OldFile:
    """The file that is translated, what it is allowed, and what the user should know about it."""

    path: Path
    allow_code: bool
    notes: dict[str, None] = field(default_factory=dict)  # an ordered set

    def fail(self, name: str, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: layer {name!r:.80}: {what}; save the model again with a current Keras")


def translated_layer(old_kind: str, config: dict[str, Any], old: OldFile) -> dict[str, Any]:
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
        config = _without_dropped(config, kind, old)
    for key, value in differences.DEFAULTS.get(kind, {}).items():
        config.setdefault(key, value)
    config = {key: _value(key, value, old) for key, value in config.items()}
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
        config["axis"] = config["axis"][0]
    if "dtype" in config:
        config["dtype"] = _dtype(config["dtype"], old)
    module = differences.MODULES.get(kind, "keras.layers")
    if module == "keras.layers" and not hasattr(keras.layers, kind) and not old.allow_code:
        raise old.fail(
            name, f"class {kind!r:.60} is not one of Keras's own, or Keras {keras.__version__} no longer has it"
        )
    return {"module": module, "class_name": kind, "config": config, "registered_name": None, "name": name}


def translated_hard_sigmoid(kind: str, config: dict[str, Any], old: OldFile) -> list[dict[str, Any]]:
    """In Keras 2 it is clip(0.2 x + 0.5, 0, 1); Keras 3 has another function of this name, relu6(x + 3) / 6."""
    name = config["name"]
    before = [] if kind == "Activation" else [translated_layer(kind, {**config, "activation": "linear"}, old)]
    return [
        *before,
        translated_layer("Rescaling", {"name": f"{name}_scaled", "scale": 0.2, "offset": 0.5}, old),
        translated_layer("ReLU", {"name": f"{name}_clipped" if before else name, "max_value": 1.0}, old),
    ]


def translated_operation(layer: Mapping[str, Any], calls: list[Arguments], old: OldFile) -> dict[str, Any]:
    """A TensorFlow function that was stored as a layer."""
    name = layer_name(layer)
    if len(calls) != 1:
        raise old.fail(name, f"an operation that is called {len(calls)} times; expected once")
    try:
        if layer["class_name"] == "TensorFlowOpLayer":
            raise UnknownOperationError("an operation as TensorFlow 2.0 to 2.3 wrote them is not supported")
        call = translate(layer["config"]["function"], *calls[0])
    except UnknownOperationError as error:
        raise old.fail(name, str(error)) from error
    except KeyError as error:
        raise old.fail(name, f"argument {error} is missing") from error
    if next(tensors_in(call.args), None) is None:
        raise old.fail(name, f"no tensor among its arguments {call.args!r:.60}")
    name = clean_name(name)
    return {
        "module": call.module,
        "class_name": call.class_name,
        "config": {"name": name, **call.config},
        "registered_name": None if call.module == "keras.layers" else call.class_name,
        "name": name,
        "inbound_nodes": [{"args": call.args, "kwargs": call.kwargs}],
    }


def _kernel_size(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Join the separate settings of Keras 1 for each side."""
    sides = [key for key in ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col") if key in config]
    if not sides:
        return config
    kept = {key: value for key, value in config.items() if key not in sides}
    return {**kept, "kernel_size": [config[key] for key in sides]}


def _without_dropped(config: dict[str, Any], kind: str, old: OldFile) -> dict[str, Any]:
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
            raise old.fail(config["name"], f"{key} is {value!r:.40}, which Keras 3 does not have")
    return kept


def _value(key: str, value: Any, old: OldFile) -> Any:
    """A setting's value, with functions as names."""
    if key in differences.VALUES and isinstance(value, str):
        return differences.VALUES[key].get(value, value)
    return function_name(value)


def function_name(value: Any) -> Any:
    """A function as its name; anything else as it is."""
    return value["config"] if isinstance(value, Mapping) and value.get("class_name") == "function" else value


def _dtype(value: Any, old: OldFile) -> str:
    """Half precision is for training: features are computed in float32, as the built file needs."""
    name = value
    if isinstance(value, Mapping):
        name = value["config"].get("name") if isinstance(value.get("config"), Mapping) else value.get("config")
    if not isinstance(name, str):
        return "float32"
    if name.startswith("mixed_") or name in _HALF:
        old.notes[f"{name} is read as float32"] = None
        return "float32"
    return name
