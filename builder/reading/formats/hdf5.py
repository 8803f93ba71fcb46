"""``.h5``, ``.hdf5`` and ``.model``: the whole-model HDF5 file of Keras 1, 2 and tf_keras, and the old format of Keras 3.

The root holds the configuration as an attribute; ``model_weights`` holds a group for each layer, whose attribute
``weight_names`` names its datasets. A nested model is one layer there: all its weights are in one group, with names of
their own ("conv1/kernel:0").
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from builder.reading.formats.calls import clean_name
from builder.reading.formats.cleaned import load_original, write_cleaned, write_layers
from builder.reading.formats.complete import layers_within, missing_weights
from builder.reading.formats.definition import check_form, parse_definition
from builder.reading.formats.keras2 import Modernized, modernize
from builder.reading.formats.library_model import check_layers_inside
from builder.reading.formats.limits import (
    MAX_OBJECTS,
    MAX_TEXT,
    Objects,
    check_definition,
    hdf5_errors,
    hdf5_objects,
    read_dataset,
)
from builder.reading.formats.rebuild import rebuild, weights_by_order
from builder.reading.formats.stored import LayerPath, StoredModel, is_old
from builder.reading.formats.tf_keras import tf_keras_model
from builder.reading.formats.toolkit import Unwrapped, unwrap
from builder.reading.keras_graph import MODEL_CLASSES
from builder.reading.originals.original import KerasOriginal
from builder.reading.trained import loss_in
from builder.support.errors import ModelFileError

Groups = list[tuple[str, list[tuple[str, np.ndarray]]]]  # each layer with its named weights, in the file's order


def read_hdf5(path: Path, *, allow_code: bool = False) -> StoredModel:
    """The model in an HDF5 file of any Keras. Raises ``ModelFileError``."""
    with hdf5_errors(path), h5py.File(path, "r") as file:
        return _read(file, path, partial(write_cleaned, path, allow_code=allow_code), allow_code=allow_code)


def read_hdf5_member(data: bytes, path: Path, *, allow_code: bool = False) -> StoredModel:
    """As ``read_hdf5``, from the bytes of such a file in the archive ``path``."""

    def copy(folder: Path) -> Path:
        (folder / "member.h5").write_bytes(data)
        return write_cleaned(folder / "member.h5", folder, allow_code=allow_code)

    with hdf5_errors(path), h5py.File(io.BytesIO(data), "r") as file:
        return _read(file, path, copy, allow_code=allow_code)


def _read(file: h5py.File, path: Path, copy: Callable[[Path], Path], *, allow_code: bool) -> StoredModel:
    text, version = _configuration(file, path)
    model = unwrap(parse_definition(text, path))
    check_definition(model.definition, path, allow_code=allow_code)
    check_layers_inside(model.definition, path, copy, allow_code=allow_code)
    groups = _groups(file, hdf5_objects(file, path), path)
    found = stored_hdf5(model, version, groups, path, copy, allow_code=allow_code)
    return replace(found, loss=loss_in(_text(file, "training_config")))


def stored_hdf5(
    model: Unwrapped,
    version: str,
    groups: Groups,
    path: Path,
    copy: Callable[[Path], Path],
    *,
    allow_code: bool,
) -> StoredModel:
    """The model from the file's configuration and the weights of its layers.

    ``copy``: writes the file, cleaned, into a folder.
    """
    old = is_old(model.definition, version)
    modern = Modernized(model.definition)
    if old or "module" not in model.definition:  # Keras 3 also omits the module of the model itself
        modern = modernize(model.definition, path, allow_code=allow_code)
    definition = modern.definition
    check_form(definition, path)
    groups = [(model.name(layer), model.weights(layer, named)) for layer, named in groups]
    groups = [(layer, named) for layer, named in groups if named]
    weights = weights_by_name(definition, groups)
    if weights is None:
        plain = [(name, [values for _, values in named]) for name, named in groups if named]
        weights = weights_by_order(definition, plain, path, allow_code=allow_code)
    kind = f"Keras {version or '1 or 2'} HDF5"
    if old:
        return tf_keras_model(path, kind, model, modern, weights, copy, allow_code=allow_code)
    live = partial(load_original, path, allow_code=allow_code)
    if path.suffix not in (".h5", ".hdf5"):
        live = partial(rebuild, definition, weights, path, allow_code=allow_code)
    if model.layers:
        copy = partial(write_layers, model.definition, weights)
    original = KerasOriginal(path, "keras", copy, allow_code=allow_code)
    return StoredModel(path, kind, definition, weights, live, original, notes=(*model.notes, *modern.notes))


def _configuration(file: h5py.File, path: Path) -> tuple[str, str]:
    """The configuration, and the version of Keras that wrote it (empty if unknown)."""
    text = _text(file, "model_config")
    if text is None:
        if (
            "layer_names" in file.attrs
            or "layer_names0" in file.attrs
            or "_layer_checkpoint_dependencies" in file
            or ("layers" in file)
        ):
            raise ModelFileError(
                f"{path}: weights without an architecture; rebuild the model, load_weights() into it and save the whole "
                "model as .keras"
            )
        raise ModelFileError(f"{path}: an HDF5 file without a Keras model (no attribute model_config)")
    if len(text) > MAX_TEXT:
        raise ModelFileError(f"{path}: its configuration has {len(text):,} characters, expected at most {MAX_TEXT:,}")
    return text, (_text(file, "keras_version") or "").strip()


def _text(file: h5py.File, name: str) -> str | None:
    """An attribute as text, whether it was stored as bytes or as a string."""
    if name not in file.attrs:
        return None
    value = file.attrs[name]
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(value, (bytes, np.bytes_)):
        return bytes(value).rstrip(b"\0").decode("utf-8")
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"attribute {name} is not text")


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; lists above 64 KB are split over several numbered attributes."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        parts = []
        while f"{attribute}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{attribute}{len(parts)}"])
    if sum(np.size(part) for part in parts) > MAX_OBJECTS:
        raise ValueError(f"more than {MAX_OBJECTS} {attribute}")
    flat = [item for part in parts for item in np.asarray(part).ravel().tolist()]
    return [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in flat]


def _groups(file: h5py.File, objects: Objects, path: Path) -> Groups:
    """The weights of every layer that has any. Raises ``ModelFileError`` where a named weight is missing."""
    prefix = "model_weights/" if "model_weights" in objects else ""
    root = h5py.Group(objects[prefix.rstrip("/")])
    found: Groups = []
    for layer in (*_names(root, "layer_names"), "top_level_model_weights"):
        group = objects.get(f"{prefix}{layer}")
        if group is None and layer == "top_level_model_weights":
            continue
        if not isinstance(group, h5py.h5g.GroupID):
            raise ModelFileError(f"{path}: no weights of layer {layer!r:.80} in the file; copy or save the model again")
        named = []
        for name in _names(h5py.Group(group), "weight_names"):
            dataset = objects.get(f"{prefix}{layer}/{name}")
            if not isinstance(dataset, h5py.h5d.DatasetID):
                raise ModelFileError(f"{path}: weight {name!r:.80} of {layer!r:.80} is not in the file; save it again")
            named.append((name, read_dataset(dataset, path)))
        if layer == "top_level_model_weights" and named:
            raise ModelFileError(f"{path}: the model has weights outside its layers; build it from layers only")
        if named:
            found.append((layer, named))
    return found


def weights_by_name(definition: Mapping[str, Any], groups: Groups) -> dict[LayerPath, list[np.ndarray]] | None:
    """The weights of each layer by their names; None where the names are ambiguous."""
    layers = {layer["config"]["name"]: layer for layer in definition["config"]["layers"]}
    found: dict[LayerPath, list[np.ndarray]] = {}
    for name_there, named in groups:
        group = clean_name(name_there)
        layer = layers.get(group)
        if layer is None:
            return None
        if layer["class_name"] not in MODEL_CLASSES:
            found[(group,)] = [values for _, values in named]
            continue
        inner = layers_within(layer, (group,))
        names = [path[-1] for path in inner]
        if len(set(names)) != len(names):
            return None
        owners = {path[-1]: path for path in inner}
        for name, values in named:
            owner = _owner(name, owners)
            if owner is None:
                return None
            found.setdefault(owners[owner], []).append(values)
    return found if missing_weights(definition, found) is None else None


def _owner(name: str, owners: Mapping[str, Any]) -> str | None:
    """The layer that a weight called ``base/conv1/kernel:0`` belongs to: "conv1", or "base_conv1", once "base/conv1"."""
    scopes = name.split("/")[:-1]
    for length in range(len(scopes), 0, -1):
        for start in range(len(scopes) - length, -1, -1):
            candidate = clean_name("/".join(scopes[start : start + length]))
            if candidate in owners:
                return candidate
    return None
