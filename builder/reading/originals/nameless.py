"""The settings of a model without its names, and without what says how it was trained: two files of one architecture have
them in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_OF_TRAINING = ("_initializer", "_regularizer", "_constraint")  # how such settings end


def spelled(config: Mapping[str, Any]) -> str:
    """The settings of a layer or a model, in one spelling."""
    return json.dumps(_nameless(config), sort_keys=True, default=str)


def _nameless(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without names; in a model, a layer is referred to by its place among the layers."""
    found: dict[str, Any] = _at_inference({key: one for key, one in config.items() if key not in ("name", "layers")})
    if isinstance(config.get("layers"), list):
        places = {_name(layer): i for i, layer in enumerate(config["layers"])}
        found["layers"] = [
            {
                **{key: _by_place(_at_inference(value), places) for key, value in layer.items() if key != "config"},
                "name": None,
                "config": _nameless(layer["config"]),
            }
            for layer in config["layers"]
        ]
        for key in {"input_layers", "output_layers"} & set(config):
            found[key] = _by_place(config[key], places)
    return found


def _at_inference(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {
            key: one for key, one in value.items() if key != "shared_object_id" and not str(key).endswith(_OF_TRAINING)
        }
        return {key: _at_inference(one) for key, one in kept.items()}
    return [_at_inference(one) for one in value] if isinstance(value, list | tuple) else value


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("name", layer["config"].get("name")))


def _by_place(value: Any, places: Mapping[str, int]) -> Any:
    """References to layers, [name, call, output, ...], with places instead of names."""
    if isinstance(value, Mapping):
        return {key: _by_place(one, places) for key, one in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if len(value) > 2 and isinstance(value[0], str) and all(isinstance(one, int) for one in value[1:3]):
        return [places.get(value[0], value[0]), *(_by_place(one, places) for one in value[1:])]
    return [_by_place(one, places) for one in value]
