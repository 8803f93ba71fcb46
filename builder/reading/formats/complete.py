"""Check, before anything is built, that the usual layers have the weights they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.reading.formats.calls import clean_name, layer_name, layers_in
from builder.reading.formats.differences import VARIABLES
from builder.reading.formats.stored import LayerPath
from builder.reading.keras_graph import MODEL_CLASSES
from builder.support.errors import ModelFileError
from edge_runtime.counting import count_of


def layers_within(model: Mapping[str, Any], path: LayerPath) -> dict[LayerPath, Mapping[str, Any]]:
    """Every layer within a model, by its path."""
    found: dict[LayerPath, Mapping[str, Any]] = {}
    for layer in layers_in(model):
        inner = (*path, clean_name(layer_name(layer)))
        found |= layers_within(layer, inner) if layer["class_name"] in MODEL_CLASSES else {inner: layer}
    return found


def missing_weights(definition: Mapping[str, Any], weights: Mapping[LayerPath, Sequence[Any]]) -> str | None:
    """The first layer without as many weights as its kind needs, in words; None where all have them."""
    for place, layer in layers_within(definition, ()).items():
        if layer["class_name"] not in VARIABLES:
            continue
        expected = weights_needed(layer["class_name"], layer["config"])
        if len(weights.get(place, ())) != expected:
            found = count_of(len(weights.get(place, ())), "weights")
            return f"layer {'/'.join(place)!r:.80} has {found}, expected {expected}"
    return None


def weights_needed(kind: str, config: Mapping[str, Any]) -> int:
    """How many weights a layer of a known kind has; 0 for any other."""
    return sum(not switch or config.get(switch, True) is True for _, switch in VARIABLES.get(kind, ()))


def check_complete(definition: Mapping[str, Any], weights: Mapping[LayerPath, Sequence[Any]], path: Path) -> None:
    """Raises ``ModelFileError`` where a layer lacks weights."""
    missing = missing_weights(definition, weights)
    if missing and not any(map(len, weights.values())):
        raise ModelFileError(
            f"{path}: no layer has weights: expected a model that was built before it was saved; call it on a batch "
            "of its data and save it again"
        )
    if missing:
        raise ModelFileError(f"{path}: {missing}; copy or save the model again")
