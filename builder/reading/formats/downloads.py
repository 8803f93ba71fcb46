"""What a folder, a zip archive or a file with neighbours tells beside the model: Teachable Machine and Frigate.

Teachable Machine's download "Keras" holds ``keras_model.h5`` and ``labels.txt`` (``0 Name`` lines), "SavedModel" a folder
``model.savedmodel`` and the same labels. Its models take the centre square of a picture, as x / 127.5 - 1 (source: its
converter, googlecreativelab/teachablemachine-community). Frigate keeps ``model.tflite`` and ``labelmap.txt`` in
``model_cache/<name>``; it trains on stretched pictures as x / 255 (source: blakeblackshear/frigate,
``frigate/util/classification.py``) and throws the Keras model away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builder.reading.formats.labels import MAX_LABEL_FILE, labels_of_text, numbered_labels
from builder.reading.formats.members import Members
from builder.reading.formats.stored import Origin, StoredModel
from builder.reading.graph import MODEL_CLASSES
from builder.settings.input_scaling import PREPROCESSING

TEACHABLE_LABELS, FRIGATE_LABELS = "labels.txt", "labelmap.txt"


def with_origin(model: StoredModel, neighbours: Members, prefix: str = "") -> StoredModel:
    """``model`` with what the files beside it tell, where it and they are of a kind that is known.

    ``prefix``: the folder within ``neighbours`` that the model lies in.
    """
    labels = _label_text(neighbours, f"{prefix}{TEACHABLE_LABELS}")
    numbered = numbered_labels(labels) if labels is not None else None
    if numbered and is_teachable_machine(model.definition):
        origin = Origin(numbered, PREPROCESSING["tf"], "crop")
        return replace(model, kind=f"Teachable Machine, {model.kind}", origin=origin)
    labels = _label_text(neighbours, f"{prefix}{FRIGATE_LABELS}")
    if labels is not None and is_frigate(model.definition):
        origin = Origin(labels_of_text(labels), PREPROCESSING["unit"], "stretch")
        return replace(model, kind=f"Frigate, {model.kind}", origin=origin)
    return model


def is_teachable_machine(definition: Mapping[str, Any]) -> bool:
    """Sequential[Sequential[base, pooling], Sequential[Dense(relu), Dense(softmax, without bias)]]."""
    parts = _stack(definition)
    if [part["class_name"] for part in parts] != ["Sequential", "Sequential"]:
        return False
    base, head = (_stack(part) for part in parts)
    return (
        [layer["class_name"] in MODEL_CLASSES for layer in base] == [True, False]
        and base[1]["class_name"].startswith("GlobalAveragePooling")
        and [layer["class_name"] for layer in head] == ["Dense", "Dense"]
        and [layer["config"].get("activation") for layer in head] == ["relu", "softmax"]
        and head[1]["config"].get("use_bias") is False
    )


def is_frigate(definition: Mapping[str, Any]) -> bool:
    """Sequential[base, GlobalAveragePooling2D, Dense(relu), Dropout, Dense(softmax)], the base without a Rescaling."""
    parts = _stack(definition)
    kinds = ["GlobalAveragePooling2D", "Dense", "Dropout", "Dense"]
    if [part["class_name"] for part in parts[1:]] != kinds or parts[0]["class_name"] not in MODEL_CLASSES:
        return False
    inside = {layer["class_name"] for layer in parts[0]["config"]["layers"]}
    return parts[-1]["config"].get("activation") == "softmax" and not inside & {"Rescaling", "Normalization"}


def _stack(definition: Mapping[str, Any]) -> list[Any]:
    """The layers of a Sequential model, without its input; nothing of any other."""
    layers: Iterable[Any] = definition["config"]["layers"] if definition["class_name"] == "Sequential" else ()
    return [layer for layer in layers if layer["class_name"] != "InputLayer"]


def _label_text(members: Members, name: str) -> str | None:
    if name not in members:
        return None
    data = members[name]()
    try:
        return data.decode("utf-8-sig") if len(data) <= MAX_LABEL_FILE else None
    except UnicodeDecodeError:
        return None
