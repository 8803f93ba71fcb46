"""``.keras``: a zip archive with the configuration as JSON and the weights as HDF5."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from builder.errors import ModelFileError
from builder.formats.limits import MAX_TEXT, check_archive, check_definition, read_dataset, read_hdf5_objects, read_member
from builder.formats.stored import LOADING_ERRORS, LayerPath, StoredModel, Weights, live_weights, reason_of
from builder.graph import MODEL_CLASSES

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"


def read_archive(path: Path, *, allow_code: bool = False) -> StoredModel:
    """The model in a ``.keras`` archive of Keras 3 or of tf_keras. Raises ``ModelFileError``."""
    text, data = _members(path)
    definition = parse_definition(text, path)
    check_definition(definition, path, allow_code=allow_code)

    def original() -> Any:
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=not allow_code)
        except LOADING_ERRORS as error:
            raise ModelFileError(f"{path}: Keras {keras.__version__} cannot load it: {reason_of(error)}") from error

    weights = stored_weights(definition, read_hdf5_objects(data, path))
    return StoredModel(path, "Keras 3", definition, weights or live_weights(original()), original)


def _members(path: Path) -> tuple[bytes, bytes]:
    """The configuration and the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            return read_member(archive, _CONFIG, path, limit=MAX_TEXT), read_member(archive, _WEIGHTS, path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a whole .keras archive ({reason_of(error)}); copy or save it again") from error


def parse_definition(text: bytes | str, path: Path) -> dict[str, Any]:
    """The configuration of a model. Raises ``ModelFileError``."""
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: its configuration is no JSON ({error}); save the model again") from error
    if not isinstance(definition, dict) or not isinstance(definition.get("config"), dict):
        raise ModelFileError(f"{path}: its configuration is not that of a Keras model; save the model again")
    definition.pop("compile_config", None)  # losses and metrics may be anybody's code and do not matter here
    return definition


def stored_weights(definition: Mapping[str, Any], objects: Mapping[str, Any]) -> Weights | None:
    """The weights of each layer by where they lie in the file, without building the model.

    None where that cannot be said for certain: layers within layers, or names that do not fit.
    """
    datasets: dict[str, list[str]] = {}  # of each group, without what Dropout keeps for its random numbers
    for name, item in objects.items():
        if isinstance(item, h5py.h5d.DatasetID) and name.startswith("layers/") and "/seed_generator/" not in name:
            datasets.setdefault(name.rpartition("/")[0], []).append(name)
    found: dict[LayerPath, list[np.ndarray]] = {}
    for path, group in _groups(definition, (), ""):
        names = datasets.pop(f"{group}/vars", [])
        if group not in objects or not _is_called(objects.get(f"{group}/vars"), path[-1]):
            return None
        if names:
            ordered = sorted(names, key=lambda name: int(name.rpartition("/")[2]))
            found[path] = [read_dataset(objects[name]) for name in ordered]
    return None if datasets else found


def _is_called(group: Any, name: str) -> bool:
    """Does the layer's group bear its name? Files of Keras before 3.10 do not say."""
    if group is None or not h5py.h5a.exists(group, b"name"):
        return True
    return bool(h5py.Group(group).attrs["name"] == name)


def _groups(definition: Mapping[str, Any], path: LayerPath, prefix: str) -> Iterator[tuple[LayerPath, str]]:
    """(names, HDF5 group) of every layer. Groups are called by class, with a counter, in the order of the layers."""
    counts: Counter[str] = Counter()
    for layer in definition["config"]["layers"]:
        if ".ops." in f"{layer.get('module')}.":
            continue  # a bare operation holds nothing
        name = _snake_case(layer["class_name"])
        group = f"{prefix}layers/{name}" + (f"_{counts[name]}" if counts[name] else "")
        counts[name] += 1
        inner = (*path, layer["config"]["name"])
        if layer["class_name"] in MODEL_CLASSES:
            yield from _groups(layer, inner, f"{group}/")
        elif layer["class_name"] != "InputLayer":
            yield inner, group


def _snake_case(name: str) -> str:
    """DepthwiseConv2D -> depthwise_conv2d, as Keras names the groups of its weights."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
