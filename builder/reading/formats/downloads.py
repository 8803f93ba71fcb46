"""Labels and input scaling from files beside the model: Teachable Machine, liner.ai, Frigate.

Teachable Machine's download "Keras" holds ``keras_model.h5`` and ``labels.txt`` (``0 Name`` lines), "SavedModel" a folder
``model.savedmodel`` and the same labels. Its models take pixels as x / 127.5 - 1 (source: its converter,
googlecreativelab/teachablemachine-community), and the example programs that it provides crop and resize a picture by
``ImageOps.fit(image, (224, 224), Image.LANCZOS)``. liner.ai writes ``model_keras.h5`` and ``classes.json``
(``{"name": index}``); its example only uses Pillow's ``resize``: stretched, bicubic, pixels 0..255.
Frigate keeps ``model.tflite`` and ``labelmap.txt`` in ``model_cache/<name>``; it trains on stretched pictures as x / 255
(source: blakeblackshear/frigate, ``frigate/util/classification.py``) and discards the Keras model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builder.reading.formats.labels import MAX_LABEL_FILE, decoded, labels_of_json, labels_of_text, teachable_labels
from builder.reading.formats.stored import Origin, StoredModel, reason_of
from builder.reading.keras_graph import MODEL_CLASSES
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import PREPROCESSING

if TYPE_CHECKING:
    from builder.reading.formats.members import Members  # imports h5py, which is not needed for .tflite files

TEACHABLE_LABELS, FRIGATE_LABELS, LINER_LABELS = "labels.txt", "labelmap.txt", "classes.json"
LABEL_FILES = (TEACHABLE_LABELS, FRIGATE_LABELS, LINER_LABELS)
TEACHABLE = Origin(preprocessing=PREPROCESSING["tf"], resize=ResizeConfig("lanczos", True, "crop"))
_FRIGATE = Origin(preprocessing=PREPROCESSING["unit"], resize=ResizeConfig(fit="stretch"))
_LINER = Origin(preprocessing=PREPROCESSING["raw"], resize=ResizeConfig("bicubic", True, "stretch"))


def with_origin(model: StoredModel, neighbours: Members, prefix: str = "") -> StoredModel:
    """``model`` with labels and input scaling from the files beside it, if their kind is known.

    ``prefix``: the folder within ``neighbours`` that the model lies in.
    """
    texts = {name: neighbours[f"{prefix}{name}"] for name in LABEL_FILES if f"{prefix}{name}" in neighbours}
    if is_teachable_machine(model.definition):
        file = TEACHABLE_LABELS if TEACHABLE_LABELS in texts else FRIGATE_LABELS  # some rename it
        return _known(model, "Teachable Machine", _with_labels(TEACHABLE, texts, file, teachable_labels))
    if FRIGATE_LABELS in texts and is_frigate(model.definition):
        return _known(model, "Frigate", _with_labels(_FRIGATE, texts, FRIGATE_LABELS, labels_of_text))
    if LINER_LABELS in texts:
        known = _LINER if is_liner(model.definition) else Origin()
        origin = _with_labels(known, texts, LINER_LABELS, labels_of_json)
        return _known(model, "liner.ai", origin) if known is _LINER else replace(model, origin=origin)
    return model


def _known(model: StoredModel, maker: str, origin: Origin) -> StoredModel:
    return replace(model, kind=f"{maker}, {model.kind}", origin=origin)


def _with_labels(
    origin: Origin, texts: Mapping[str, Callable[[], bytes]], file: str, read: Callable[[str], tuple[str, ...]]
) -> Origin:
    """An unreadable label file is an error only if labels are needed: see ``checks.read_labels``."""
    if file not in texts:
        return origin
    try:
        data = texts[file]()
        if len(data) > MAX_LABEL_FILE:
            raise ValueError(f"expected at most {MAX_LABEL_FILE:,} bytes, found more")
        return replace(origin, labels=read(decoded(data)) or None, labels_file=file)
    except (ValueError, OSError, RecursionError) as error:
        return replace(origin, trouble=reason_of(error)[:200])


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


def is_liner(definition: Mapping[str, Any]) -> bool:
    """A functional model for pictures of any size that scales them itself and ends in a pooling and a Dense."""
    layers = definition["config"]["layers"] if definition["class_name"] in MODEL_CLASSES else []
    kinds = [layer["class_name"] for layer in layers]
    sizes = [_input_shape(layer)[1:3] for layer in layers if layer["class_name"] == "InputLayer"]
    scaled = bool({"Rescaling", "Normalization"} & set(kinds))
    return sizes == [[None, None]] and scaled and kinds[-1] == "Dense" and "GlobalAveragePooling2D" in kinds


def _input_shape(layer: Mapping[str, Any]) -> list[Any]:
    config = layer["config"]
    return list(config.get("batch_shape") or config.get("batch_input_shape") or ())


def _stack(definition: Mapping[str, Any]) -> list[Any]:
    """The layers of a Sequential model, without its input; empty for any other."""
    layers: Iterable[Any] = definition["config"]["layers"] if definition["class_name"] == "Sequential" else ()
    return [layer for layer in layers if layer["class_name"] != "InputLayer"]
