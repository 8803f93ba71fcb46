"""Layers called with ``training=True``, which overrides ``predict`` in Keras 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.reading.keras_graph import MODEL_CLASSES

_CHANCE = ("Random", "RandAugment", "MixUp", "CutMix", "AugMix", "SpectralNormalization")
_AMOUNTS = ("dropout", "recurrent_dropout", "rate", "stddev")


def training_layers(definition: Mapping[str, Any], training: bool = False, path: str = "") -> Iterator[str]:
    """Names and classes of layers whose outputs depend on the batch or on chance because of how they are called.

    ``training``: the argument of the call around the model; an explicit argument of an inner call overrides it.
    """
    if definition["class_name"] not in MODEL_CLASSES:
        if training and changes_in_training(definition):
            yield f"{path!r:.80} ({definition['class_name']})"
        return
    for layer in definition["config"]["layers"]:
        name = f"{path}/{layer['config']['name']}".lstrip("/")
        for said in {_said(call) for call in layer.get("inbound_nodes") or [{}]}:
            yield from training_layers(layer, training if said is None else said, name)


def as_inference(value: Any) -> Any:
    """The definition, of any Keras, without ``training=True`` in any call."""
    if isinstance(value, dict):
        return {key: as_inference(item) for key, item in value.items() if not (key == "training" and item is True)}
    return [as_inference(item) for item in value] if isinstance(value, list) else value


def _said(call: Mapping[str, Any]) -> bool | None:
    """The training argument of a call, keyword or positional; None where there is none."""
    args = list(call.get("args", ()))
    said = args[1] if len(args) > 1 and isinstance(args[1], bool) else call.get("kwargs", {}).get("training")
    return None if said is None else bool(said)


def changes_in_training(definition: Mapping[str, Any]) -> bool:
    """Whether the layer computes something else with ``training=True``."""
    kind, config = str(definition["class_name"]), definition["config"]
    if kind.endswith("BatchNormalization"):
        return config.get("trainable", True) is not False  # a frozen one uses its stored statistics
    if kind.startswith(_CHANCE) or any(config.get(key) for key in _AMOUNTS):
        return True
    inner = [v for v in config.values() if isinstance(v, Mapping) and isinstance(v.get("config"), Mapping)]
    return any(changes_in_training(value) for value in inner if "class_name" in value)
