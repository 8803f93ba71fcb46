"""``.keras``: a zip archive with the configuration as JSON and the weights as HDF5, of Keras 3 or of tf_keras."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from builder.reading.formats.calls import clean_name, layer_name, layers_in
from builder.reading.formats.cleaned import half_notes, load_original, write_cleaned, write_layers
from builder.reading.formats.complete import check_complete, weights_needed
from builder.reading.formats.definition import check_form, parse_definition
from builder.reading.formats.differences import MODELS, PARTS
from builder.reading.formats.keras2 import modernize
from builder.reading.formats.library_model import check_layers_inside
from builder.reading.formats.limits import (
    MAX_TEXT,
    Objects,
    check_archive,
    check_definition,
    hdf5_errors,
    read_dataset,
    read_hdf5_objects,
    read_member,
)
from builder.reading.formats.rebuild import build
from builder.reading.formats.stored import (
    LOADING_ERRORS,
    LayerPath,
    StoredModel,
    is_old,
    live_weights,
    reason_of,
    version_in,
)
from builder.reading.formats.tf_keras import tf_keras_model
from builder.reading.formats.toolkit import ROUNDING, Unwrapped, unwrap, wrapped
from builder.reading.formats.vocabulary import give_vocabularies, is_vocabulary
from builder.reading.originals.original import KerasOriginal
from builder.reading.trained import loss_in
from builder.support.errors import ModelFileError

_Value = TypeVar("_Value")
_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"


def read_archive(path: Path, *, allow_code: bool = False) -> StoredModel:
    """The model in a ``.keras`` archive of Keras 3 or of tf_keras. Raises ``ModelFileError``."""
    text, data, version, vocabularies = _members(path)
    raw = parse_definition(text, path)
    model = unwrap(raw)
    check_definition(model.definition, path, allow_code=allow_code)
    objects, loss = read_hdf5_objects(data, path), loss_in(text, "compile_config")
    copy = partial(write_cleaned, path, allow_code=allow_code)
    check_layers_inside(raw, path, copy, allow_code=allow_code)
    if is_old(raw, version):
        give_vocabularies(_groups(raw, (), ""), _named_as_today(vocabularies), path)
        found = _of_tf_keras(raw, model, objects, version, path, allow_code=allow_code)
        return replace(found, loss=loss)
    check_form(raw, path)
    give_vocabularies(_groups(raw, (), ""), vocabularies, path)

    weights = stored_weights(raw, objects, path)
    if weights is None:
        datasets = [item for item in objects.values() if isinstance(item, h5py.h5d.DatasetID)]
        build(raw, path, sum(int(np.prod(item.shape)) for item in datasets), allow_code=allow_code)  # is it of this size?
        weights = live_weights(load_original(path, allow_code=allow_code))
    check_complete(raw, weights, path)
    live = partial(load_original, path, allow_code=allow_code)
    original = KerasOriginal(path, "keras", copy, allow_code=allow_code)
    return StoredModel(path, f"Keras {version or 3}", raw, weights, live, original, notes=half_notes(raw), loss=loss)


def _of_tf_keras(
    raw: Mapping[str, Any], model: Unwrapped, objects: Objects, version: str, path: Path, *, allow_code: bool
) -> StoredModel:
    """``raw``: as the file has it, after which its groups are called; ``model``: what of it is read."""
    modern = modernize(model.definition, path, allow_code=allow_code)
    check_form(modern.definition, path)
    named = _named_as_today(objects)
    weights = stored_weights(raw, named, path) if _count_arrays(named) == _count_arrays(objects) else None
    if weights is None:
        raise ModelFileError(
            f"{path}: it is ambiguous which weights belong to which layer (layers within layers, or two names for one "
            "array); save the model as .h5 with the Keras that made it"
        )
    check_complete(modern.definition, weights, path)
    copy = partial(write_cleaned, path, allow_code=allow_code)
    if named.keys() != objects.keys():  # tf_keras looks for today's names alone
        copy = partial(write_layers, model.definition, weights)
    return tf_keras_model(path, f"tf_keras {version}".strip(), model, modern, weights, copy, allow_code=allow_code)


def _count_arrays(objects: Objects) -> int:
    return sum(isinstance(item, h5py.h5d.DatasetID) for item in objects.values())


def _members(path: Path) -> tuple[bytes, bytes, str, dict[str, bytes]]:
    """The configuration, the weights, the version of Keras that wrote them (empty if unknown), and vocabulary files."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            text, data = read_member(archive, _CONFIG, path, limit=MAX_TEXT), read_member(archive, _WEIGHTS, path)
            names = [name for name in archive.namelist() if is_vocabulary(name)]
            vocabularies = {name: read_member(archive, name, path, limit=MAX_TEXT) for name in names}
            metadata = read_member(archive, _METADATA, path, limit=MAX_TEXT) if _METADATA in archive.namelist() else b"{}"
    except ModelFileError:
        raise
    except (*LOADING_ERRORS, MemoryError) as error:
        raise ModelFileError(f"{path}: not a whole .keras archive ({reason_of(error)}); copy or save it again") from error
    return text, data, version_in(metadata), vocabularies


def stored_weights(
    definition: Mapping[str, Any], objects: Objects, path: Path
) -> dict[LayerPath, list[np.ndarray]] | None:
    """The weights of each layer by their place in the file, without building the model.

    ``definition``: as in the file, which names the groups. Returns None where that is ambiguous: layers within layers, or
    names that do not match.
    """
    datasets: dict[str, list[str]] = {}  # of each group, without the random state of Dropout
    for name, item in objects.items():
        if isinstance(item, h5py.h5d.DatasetID) and name.startswith(f"{_ROOT}/") and "/seed_generator/" not in name:
            datasets.setdefault(name.rpartition("/")[0], []).append(name)
    found: dict[LayerPath, list[np.ndarray]] = {}
    for place, group, layer in _groups(definition, (), ""):
        kind = layer["class_name"]
        if group not in objects:
            return None
        holders = (group, *(f"{group}/{part}" for part in PARTS.get(kind, ())))
        names = [name for holder in holders for name in _ordered(datasets, holder)]
        if group.endswith(_INNER):  # the kernel that was rounded in training lies first among its wrapper's variables
            outer = _ordered(datasets, group.removesuffix(_INNER))
            names = outer[: max(0, weights_needed(kind, layer["config"]) - len(names))] + names
        if kind == ROUNDING:
            continue
        if names and not _is_called(objects.get(f"{group}/vars"), place[-1], path):
            return None
        if names:
            found[place] = [read_dataset(objects[name], path) for name in names]
    return None if datasets else found


_INNER = "/layer"  # behind the group of a wrapper: the layer in it

_ROOT, _OLD_ROOT = "layers", "_layer_checkpoint_dependencies"  # the second by TensorFlow 2.12 and 2.13


def _named_as_today(objects: Mapping[str, _Value]) -> dict[str, _Value]:
    """What tf_keras wrote, by the names that today's tf_keras gives it.

    On Windows it wrote ``\\`` for ``/``. TensorFlow 2.12 and 2.13 count a layer with weights twice when they number the
    groups of a class: dense, dense_2, ... Source: keras 2.13.1, ``saving_lib._save_container_state`` and
    ``Functional._layer_checkpoint_dependencies``.
    """
    paths = [name.replace("\\", "/").split("/") for name in objects]
    numbers: dict[tuple[str, ...], set[int]] = {}  # of the groups of one class in one model
    for path in paths:
        for i in _old_groups(path):
            stem, number = _numbered(path[i])
            numbers.setdefault((*path[:i], stem), set()).add(number)

    def today(path: list[str]) -> str:
        found = [_ROOT if part == _OLD_ROOT else part for part in path]
        for i in _old_groups(path):
            stem, number = _numbered(path[i])
            place = sorted(numbers[(*path[:i], stem)]).index(number)
            found[i] = f"{stem}_{place}" if place else stem
        return "/".join(found)

    return dict(zip(map(today, paths), objects.values(), strict=True))


def _old_groups(path: list[str]) -> list[int]:
    return [i for i in range(1, len(path)) if path[i - 1] == _OLD_ROOT]


def _numbered(group: str) -> tuple[str, int]:
    """A class in snake case and its number, 0 for the first: dense_2."""
    stem, _, number = group.rpartition("_")
    return (stem, int(number)) if stem and number.isdecimal() and len(number) < 9 else (group, 0)


def _ordered(datasets: dict[str, list[str]], group: str) -> list[str]:
    """The datasets of one group, which have numbers as names; each is returned once."""
    names = datasets.pop(f"{group}/vars", [])
    return sorted(names, key=lambda name: (len(name), name))


def _is_called(group: Any, name: str, path: Path) -> bool:
    """Whether the group has the layer's name; files of Keras before 3.10 do not store it."""
    with hdf5_errors(path):
        if not isinstance(group, h5py.h5g.GroupID) or not h5py.h5a.exists(group, b"name"):
            return True
        return bool(h5py.Group(group).attrs["name"] == name)


def _groups(
    definition: Mapping[str, Any], path: LayerPath, prefix: str
) -> Iterator[tuple[LayerPath, str, Mapping[str, Any]]]:
    """(names, HDF5 group, definition) of every layer, also of one in a wrapper.

    Groups are called by class, with a counter, in the layers' order.
    """
    counts: Counter[str] = Counter()
    for layer in layers_in(definition):
        if ".ops." in f"{layer.get('module')}.":
            continue  # a bare operation has no weights
        name = _snake_case(layer["class_name"])
        group = f"{prefix}{_ROOT}/{name}" + (f"_{counts[name]}" if counts[name] else "")
        counts[name] += 1
        inner = (*path, clean_name(layer_name(layer)))
        if layer["class_name"] in MODELS:
            yield from _groups(layer, inner, f"{group}/")
        elif (own := wrapped(layer)) is not None:
            yield (*path, clean_name(layer_name(own))), f"{group}{_INNER}", own
        elif layer["class_name"] != "InputLayer":
            yield inner, group, layer


def _snake_case(name: str) -> str:
    """DepthwiseConv2D -> depthwise_conv2d, as Keras names the groups of its weights."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
