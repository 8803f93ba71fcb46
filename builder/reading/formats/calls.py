"""Calls in a configuration of Keras 1 or 2: names of layers, histories of tensors, arguments.

A call was written as [[name, call, output, {more arguments}], ...]: where each tensor of the first argument comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.reading.formats.operations import is_tensor

_CONSTANT = "_CONSTANT_VALUE"  # in place of a layer's name: a constant, not a tensor
Arguments = tuple[list[Any], dict[str, Any]]  # positional and keyword


def clean_name(name: str) -> str:
    """The name of a layer as Keras 3 allows it: without the "/" that applications of Keras 2 had ("conv1/bn")."""
    return name.replace("/", "_")


def layers_in(definition: Mapping[str, Any]) -> list[Any]:
    """The layers of a model; until Keras 2.2.2 they were all that a Sequential model's configuration held."""
    config = definition["config"]
    found: list[Any] = config if isinstance(config, list) else config["layers"]
    return found


def layer_name(layer: Mapping[str, Any]) -> str:
    """The name by which other layers refer to it. Raises ``ValueError`` where it has none."""
    config = layer["config"]
    inner = config.get("name") if isinstance(config, Mapping) else None
    name = layer.get("name") or inner
    if not isinstance(name, str):
        raise ValueError(f"a layer of class {layer['class_name']!r:.60} without a name")
    return name


def counts_from_one(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the calls of a nested model are counted from 1, as most versions of Keras 2 do."""
    used = [call for other in config["layers"] for call in _used(other.get("inbound_nodes", ()), name)]
    used += _used(config["output_layers"], name)
    return bool(used) and min(used) > 0


def _used(value: Any, name: str) -> list[int]:
    if is_history(value):
        inner = _used(value[3], name) if len(value) > 3 else []
        return ([value[1]] if value[0] == name else []) + inner
    if isinstance(value, Mapping):
        value = list(value.values())
    return [call for item in value for call in _used(item, name)] if isinstance(value, list) else []


def is_history(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value[1:3])
        and (len(value) == 3 or isinstance(value[3], Mapping))
    )


def tensor_of(name: str, call: int, output: int) -> dict[str, Any]:
    """A tensor as Keras 3 writes it; its shape is unknown here and not needed."""
    config = {"shape": [None], "dtype": "float32", "keras_history": [name, call, output]}
    return {"class_name": "__keras_tensor__", "config": config}


def read_call(node: Any, tensor: Any) -> Arguments:
    """Positional and keyword arguments of one call: [[name, call, output, {more}], ...], or a single one of these."""
    if isinstance(node, Mapping) and set(node) == {"args", "kwargs"}:  # already in Keras 3's form
        return node["args"], node["kwargs"]
    if isinstance(node, list) and len(node) == 1 and _is_entry(node[0]):
        node = node[0]
    kwargs: dict[str, Any] = {}
    first = _structure(node, tensor, kwargs)
    return [first], kwargs


def _is_entry(value: Any) -> bool:
    constant = isinstance(value, list) and len(value) in (3, 4) and value[0] == _CONSTANT
    return constant or is_history(value)


def _structure(value: Any, tensor: Any, kwargs: dict[str, Any]) -> Any:
    """The first argument with its tensors; further arguments after each tensor go to ``kwargs``."""
    if _is_entry(value):
        if len(value) == 4:
            more = ((k, _argument(v, tensor)) for k, v in value[3].items())
            kwargs.update({k: v for k, v in more if not (v is None and k in ("mask", "training", "name"))})
        return _argument(value[2] if value[0] == _CONSTANT else value[:3], tensor)
    if isinstance(value, Mapping):
        return {key: _structure(item, tensor, kwargs) for key, item in value.items()}
    if isinstance(value, list):
        return [_structure(item, tensor, kwargs) for item in value]
    raise ValueError(f"an argument {value!r:.60} among the tensors")


def _argument(value: Any, tensor: Any) -> Any:
    if isinstance(value, list) and len(value) == 3 and _is_entry(value):
        return value[2] if value[0] == _CONSTANT else tensor(value)
    if isinstance(value, list):
        return [_argument(item, tensor) for item in value]
    if isinstance(value, Mapping):
        return {key: _argument(item, tensor) for key, item in value.items()}
    return value


def read_ends(value: Any, end: Any) -> Any:
    """``input_layers`` and ``output_layers``: one [layer, call, output], or several."""
    if is_history(value):
        return end(value)
    if isinstance(value, Mapping):
        return {key: read_ends(item, end) for key, item in value.items()}
    ends = [read_ends(item, end) for item in value]
    return ends[0] if len(ends) == 1 else ends


def tensors_in(value: Any) -> Iterator[Any]:
    if is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)
