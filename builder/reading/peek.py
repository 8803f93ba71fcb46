"""A quick look at the configuration in a Keras file, before TensorFlow is imported: incomplete, but never a guess."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from builder.reading.formats.applications import Application, application_of
from builder.reading.formats.downloads import LABEL_FILES, is_teachable_machine
from builder.reading.formats.stored import LOADING_ERRORS, is_merged, is_old, version_in
from builder.reading.keras_graph import MODEL_CLASSES

_MOST = 64 << 20  # bytes of a configuration
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Layers that cannot be part of the input scaling; any other layer may be.
_OF_NETWORKS = {
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Dense", "DepthwiseConv2D",
    "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "LeakyReLU", "MaxPooling2D",
    "Multiply", "ReLU", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout2D", "ZeroPadding2D", *MODEL_CLASSES,
}  # fmt: skip
_KEEP_THE_COUNT = ("Activation", "Dropout", "Softmax")
_T = TypeVar("_T")


class Peek:
    """A Keras file's configuration, as the file has it."""

    def __init__(self, path: Path, definition: Mapping[str, Any], version: str) -> None:
        self._path, self._definition, self._version = path, definition, version

    @property
    def outputs(self) -> int | None:
        """The number of outputs; None where a quick look does not tell."""
        return _seen(lambda: _outputs(self._definition), None)

    @property
    def is_silent(self) -> bool:
        """Whether nothing in the file or beside it defines the input scaling."""
        return _seen(lambda: _is_silent(self._definition), False) and not has_labels_beside(self._path)

    @property
    def framework(self) -> str:
        """What runs the original: ``tf_keras`` or ``keras``."""
        return "tf_keras" if _seen(lambda: is_old(self._definition, self._version), False) else "keras"

    @property
    def application(self) -> Application | None:
        """The architecture of Keras that it is built on, if recognized."""
        return _seen(lambda: application_of(self._definition), None)


def peek(path: Path) -> Peek | None:
    """The configuration of a ``.keras`` archive or HDF5 file; None for anything else, or what cannot be read."""
    if not path.is_file():  # a pipe would keep us waiting
        return None
    try:
        with path.open("rb") as stream:
            hdf5 = stream.read(8) == _HDF5
        text, version = _of_hdf5(path) if hdf5 else _of_archive(path)
        definition = json.loads(text)
    except (*LOADING_ERRORS, MemoryError):  # reading the model later reports what is wrong
        return None
    return Peek(path, definition, version) if isinstance(definition, dict) else None


def _seen(look: Callable[[], _T], otherwise: _T) -> _T:
    """The result of ``look`` at an untrusted definition, or ``otherwise`` if that fails."""
    try:
        return look()
    except LOADING_ERRORS:
        return otherwise


def _is_silent(definition: Mapping[str, Any]) -> bool:
    layers = list(_layers(definition))
    plain = all(_kind(layer) in _OF_NETWORKS and ".ops." not in str(layer.get("module")) for layer in layers)
    convolves = any("Conv2D" in _kind(layer) for layer in layers)
    return plain and convolves and not _is_teachable(definition) and not is_merged(definition)


def has_labels_beside(path: Path) -> bool:
    """Whether a download's label file lies beside the model, which may define more than labels."""
    return any((path.parent / name).is_file() for name in LABEL_FILES)


def _of_archive(path: Path) -> tuple[bytes, str]:
    """The configuration and the version of Keras, empty if unknown."""
    with zipfile.ZipFile(path) as archive:
        with archive.open("config.json") as stream:
            text = stream.read(_MOST)
        if "metadata.json" not in archive.namelist():
            return text, ""
        with archive.open("metadata.json") as stream:
            return text, version_in(stream.read(_MOST))


def _of_hdf5(path: Path) -> tuple[str | bytes, str]:
    """As ``_of_archive``."""
    import h5py  # not installed where only .tflite files are used

    with h5py.File(path, "r") as file:
        text, version = file.attrs["model_config"], file.attrs.get("keras_version", "")
    version = version.decode("ascii") if isinstance(version, bytes) else version
    return text if isinstance(text, (str, bytes)) else bytes(text), str(version)


def _kind(layer: Mapping[str, Any]) -> str:
    kind = str(layer["class_name"]).rpartition(">")[2]
    return "Dropout" if kind.startswith("Random") and kind != "RandomCrop" else kind


def _layers(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for layer in _within(definition):
        yield layer
        if _kind(layer) in MODEL_CLASSES:
            yield from _layers(layer)


def _within(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    config = definition["config"]
    return list(config if isinstance(config, list) else config["layers"])


def _is_teachable(definition: Mapping[str, Any]) -> bool:
    return isinstance(definition["config"], dict) and is_teachable_machine(definition)


def _outputs(definition: Mapping[str, Any]) -> int | None:
    layers = _within(definition)
    if _kind(definition) == "Sequential":
        last = next(layer for layer in reversed(layers) if _kind(layer) not in _KEEP_THE_COUNT)
    else:
        by_name = {layer["config"]["name"]: layer for layer in layers}
        ends = set(_names(definition["config"]["output_layers"], by_name))
        while len(ends) == 1 and _kind(last := by_name[ends.pop()]) in _KEEP_THE_COUNT:
            ends = set(_names(last["inbound_nodes"], by_name))
        if ends:
            return None
    if _kind(last) in MODEL_CLASSES:
        return _outputs(last)
    units = last["config"]["units"] if _kind(last) == "Dense" else None
    return units if type(units) is int and units > 0 else None


def _names(value: Any, known: Mapping[str, Any]) -> Iterator[str]:
    """Of layers, in a list of tensors as Keras 2 or 3 writes it: [name, call, output], however deep."""
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and value[0] in known:
        yield value[0]
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _names(item, known)
