"""Models that TensorFlow's optimization toolkit pruned or trained for quantization, without its wrappers.

``strip_pruning`` takes the layers out of their wrappers and changes no weight; the same is done here. A model that was
trained for quantization computes its layers between fake quantizations (tfmot 0.8, ``quantize_wrapper.py``): what is read
are the layers, in float, and the ranges are measured again on pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from builder.reading.formats.calls import clean_name, is_history, layer_name, layers_in
from builder.reading.formats.differences import MODELS, VARIABLES

_PRUNED = ("PruneLowMagnitude",)
_QUANTIZED = ("QuantizeWrapperV2", "QuantizeWrapper", "QuantizeAnnotate")
WRAPPERS = (*_PRUNED, *_QUANTIZED)
ROUNDING = "QuantizeLayer"  # rounds what passes, and holds nothing but its range
_NOTES = {
    _PRUNED: "pruned by TensorFlow's toolkit: its layers are read as strip_pruning leaves them",
    (*_QUANTIZED, ROUNDING): (
        "trained for quantization: its layers are read in float, without the fake quantization between them; "
        "int8 ranges come from the calibration data"
    ),
}
_T = TypeVar("_T")
Layers = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Unwrapped:
    """``definition``: of the layers without wrappers. ``layers``: by the name of each wrapper, the layer in it."""

    definition: dict[str, Any]
    layers: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    def name(self, outer: str) -> str:
        """What the layer is called whose wrapper, if it has one, is called ``outer``."""
        inner = self._in(outer)
        return layer_name(inner) if inner else outer

    def _in(self, outer: str) -> Mapping[str, Any] | None:
        return next((layer for name, layer in self.layers.items() if outer in (name, clean_name(name))), None)

    def weights(self, outer: str, named: Sequence[tuple[str, _T]]) -> list[tuple[str, _T]]:
        """Of what is stored under ``outer``, by name ("c1/kernel:0"): no masks, steps and ranges; as ``get_weights``."""
        own = [(name, one) for name, one in named if not self._is_of_wrapper(name.rpartition("/")[0])]
        inner = self._in(outer)
        # The toolkit's first version lists a bias before its kernel.
        order = [name for name, _ in VARIABLES.get(inner["class_name"], ())] if inner else []
        last = {name: name.rpartition("/")[2].partition(":")[0] for name, _ in own}
        return sorted(own, key=lambda one: order.index(last[one[0]]) if last[one[0]] in order else len(order))

    def _is_of_wrapper(self, scope: str) -> bool:
        return any(scope == name or scope.endswith(f"/{name}") for name in self.layers)


def unwrap(definition: dict[str, Any]) -> Unwrapped:
    """``definition``, as the file has it, with each wrapper replaced by the layer in it."""
    kinds = {str(layer.get("class_name")) for layer in _all_layers(definition)}
    if kinds.isdisjoint((*WRAPPERS, ROUNDING)):
        return Unwrapped(definition, {})
    found: Layers = {}
    model = _model(definition, found)
    return Unwrapped(model, found, tuple(note for some, note in _NOTES.items() if not kinds.isdisjoint(some)))


def wrapped(layer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The layer in a wrapper; None where ``layer`` is none."""
    inner = layer["config"].get("layer") if layer.get("class_name") in WRAPPERS else None
    return inner if isinstance(inner, dict) and isinstance(inner.get("config"), dict) else None


def _all_layers(definition: Any) -> Iterator[Mapping[str, Any]]:
    """Of a model and of those within it, as far as it has their form: nothing of it was checked yet."""
    config = definition.get("config") if isinstance(definition, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else config
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict):
            yield layer
            yield from _all_layers(layer)


def _model(definition: Mapping[str, Any], found: Layers) -> dict[str, Any]:
    own: Layers = {}
    layers = [_layer(layer, own, found) for layer in layers_in(definition)]
    if isinstance(definition["config"], list):
        return {**definition, "config": layers}
    found |= own
    names = {outer: layer_name(layer) for outer, layer in own.items()}
    for layer in layers:
        layer |= {key: _renamed(value, names) for key, value in layer.items() if key == "inbound_nodes"}
    config = {k: _renamed(v, names) if k.endswith("put_layers") else v for k, v in definition["config"].items()}
    return {**definition, "config": {**config, "layers": layers}}


def _layer(layer: dict[str, Any], own: Layers, found: Layers) -> dict[str, Any]:
    if layer["class_name"] in MODELS:
        return _model(layer, found)
    name, inner = layer_name(layer), wrapped(layer)
    if inner is not None:
        shape = {key: value for key, value in layer["config"].items() if key == "batch_input_shape"}
        calls = {key: value for key, value in layer.items() if key == "inbound_nodes"}
        own[name] = {**inner, "config": {**shape, **_plain(inner["config"])}, "name": layer_name(inner), **calls}
    elif layer["class_name"] == ROUNDING:
        config = {key: value for key, value in layer["config"].items() if key != "quantizer"}
        kept = {key: value for key, value in layer.items() if key not in ("module", "registered_name", "build_config")}
        own[name] = {**kept, "class_name": "Activation", "config": {**config, "activation": "linear"}}
    return own.get(name) or dict(layer)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layer whose activation rounds what it gives, or was moved behind the next layer."""
    activation = config.get("activation")
    if isinstance(activation, dict) and activation.get("class_name") == "QuantizeAwareActivation":
        activation = activation["config"]["activation"]
        moved = isinstance(activation, dict) and activation.get("class_name") == "NoOpActivation"
        return {**config, "activation": "linear" if moved else activation}
    return dict(config)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if is_history(value):
        return [names.get(value[0], value[0]), *value[1:3], *(_renamed(more, names) for more in value[3:])]
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value
