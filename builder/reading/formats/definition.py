"""Parse the configuration of a model and check that it has the form that readers rely on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.reading.formats.limits import MAX_LAYERS, MAX_NUMBER
from builder.reading.keras_graph import MODEL_CLASSES
from builder.support.errors import ModelFileError

# Entries that Keras would act on and that no reader here needs: losses and metrics may be untrusted code, and a layer
# with a build shape allocates its weights at once, as large as the file says.
_UNUSED = ("compile_config", "build_config")
_MODEL = ("module", "class_name", "config", "registered_name", "name")  # the entries of a whole model that stay
_FREE_NUMBERS = ("seed", "shared_object_id")  # may be large: the second is an address in memory


def parse_definition(text: bytes | str, path: Path) -> dict[str, Any]:
    """The configuration of a model. Raises ``ModelFileError``."""
    try:
        definition = json.loads(text, object_hook=_without_unused)
        if isinstance(definition, dict) and "class_name" in definition and "config" in definition:
            return {key: definition[key] for key in _MODEL if key in definition}
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise ModelFileError(f"{path}: its configuration is not JSON ({reason}); save the model again") from error
    raise ModelFileError(f"{path}: its configuration is not that of a Keras model; save the model again")


def _without_unused(table: dict[str, Any]) -> dict[str, Any]:
    for key in _UNUSED:
        table.pop(key, None)
    if "unroll" in table:  # Keras would unroll the recurrent layer while the model is built
        table["unroll"] = False
    return table


# JSON has only dicts as mappings: checking for dict is fast, and a model has ten thousand of them.
def check_form(definition: Mapping[str, Any], path: Path) -> None:
    """Raises ``ModelFileError`` unless this is a Functional or Sequential model in Keras 3's form.

    That is: layers with unique names, calls with ``args`` and ``kwargs`` whose tensors come from existing layers, and no
    number that would make a layer huge.
    """
    kind, config = definition.get("class_name"), definition.get("config")
    if kind not in MODEL_CLASSES:
        raise ModelFileError(
            f"{path}: the model is of class {kind!r:.80}; expected Sequential or Functional: rebuild it as "
            "keras.Model(inputs, outputs) and save it again"
        )
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(layers, list) or not layers:
        raise _malformed(path, "has no layers")
    if len(layers) > MAX_LAYERS:
        raise ModelFileError(f"{path}: expected at most {MAX_LAYERS:,} layers in a model, found {len(layers):,}")
    names: set[str] = set()
    for layer in layers:
        names.add(_checked_layer(layer, names, path))
    if kind != "Sequential":
        _check_calls(config, layers, names, path)


def _malformed(path: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{path}: its configuration {what}; save the model again")


def _checked_layer(layer: Any, names: set[str], path: Path) -> str:
    """The name of a layer with a sound configuration, which must not be among ``names``."""
    if not _is_named(layer):
        raise _malformed(path, "has a layer without a class or a name")
    name: str = layer["config"]["name"]
    if name in names:
        raise _malformed(path, f"has two layers {name!r:.80}")
    if layer.get("name", name) != name:
        raise _malformed(path, f"calls layer {name!r:.80} by two names")
    for key in ("batch_shape", "batch_input_shape", "shape"):
        if not _is_shape(layer["config"].get(key)):
            raise _malformed(path, f"gives layer {name!r:.80} a {key} that is not a list of sizes")
    if layer["class_name"] in MODEL_CLASSES:
        check_form(layer, path)
    elif (number := _huge(layer["config"])) is not None:
        raise ModelFileError(
            f"{path}: layer {name!r:.80} has a setting {number!r:.40}; expected numbers up to {MAX_NUMBER:,}"
        )
    return name


def _check_calls(config: Mapping[str, Any], layers: Iterable[Any], names: set[str], path: Path) -> None:
    """Check how the layers of a Functional model are called, and what its inputs and outputs are."""
    for layer in layers:
        name, calls = layer["config"]["name"], layer.get("inbound_nodes")
        if not isinstance(calls, list) or not all(map(_is_call, calls)):
            raise _malformed(path, f"does not say how layer {name!r:.80} is called")
        if not _known([call["args"] for call in calls] + [call["kwargs"] for call in calls], names):
            raise _malformed(path, f"calls layer {name!r:.80} on the output of a layer that does not exist")
    for key in ("input_layers", "output_layers"):
        ends = list(_ends(config.get(key)))
        if not ends or not all(_is_history(end, names) for end in ends):
            raise _malformed(path, f"does not say its {key.replace('_', ' ')}")


def _is_named(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config"), dict)
        and isinstance(layer["config"].get("name"), str)
        and layer["config"]["name"] != ""
    )


def _is_shape(value: Any) -> bool:
    """Whether a value is None or a list of sizes; an open size is None."""
    return value is None or (isinstance(value, list) and all(n is None or type(n) is int for n in value))


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("args"), list) and isinstance(call.get("kwargs"), dict)


def _is_history(value: Any, names: set[str]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and value[0] in names
        and all(type(n) is int and 0 <= n <= MAX_NUMBER for n in value[1:])
    )


def _ends(value: Any) -> Iterator[Any]:
    """Every [layer, call, output] of one, a list or a dict of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list) and value and not isinstance(value[0], str):
        for item in value:
            yield from _ends(item)
    else:
        yield value


def _known(value: Any, names: set[str]) -> bool:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            return isinstance(config, dict) and _is_history(config.get("keras_history"), names)
        return all(_known(item, names) for item in value.values())
    return all(_known(item, names) for item in value) if isinstance(value, list) else True


def _huge(value: Any) -> Any:
    """An implausibly large number in a layer's settings; None where there is none."""
    if isinstance(value, dict):
        value = [item for key, item in value.items() if key not in _FREE_NUMBERS]
    if isinstance(value, list):
        return next((found for found in map(_huge, value) if found is not None), None)
    return value if isinstance(value, int) and abs(value) > MAX_NUMBER else None
