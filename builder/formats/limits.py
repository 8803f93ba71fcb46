"""What a model file may hold. It comes from anywhere, so it is looked at before any library is let loose on it."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import keras
import numpy as np

from builder.errors import ModelFileError
from builder.formats.stored import reason_of

MAX_MEMBERS = 10_000
MAX_BYTES = 4 << 30  # of one file, unpacked: above any classifier that an edge device could hold
MAX_TEXT = 64 << 20  # of a configuration; EfficientNetV2-XL has 2 MB
MAX_DEPTH = 64  # of groups within groups, and of models within models
MAX_OBJECTS = 200_000  # groups and datasets

# Where a class in a configuration may come from; anything else could run what the file brings.
_MODULES = re.compile(
    r"(keras|tf_keras|tensorflow\.keras)(\.src)?"
    r"(\.(engine|layers|models|ops|initializers|regularizers|constraints|dtype_policies|mixed_precision)(\..*)?)?"
)
_PLAIN = ("__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__tuple__", "__bytes__", "__complex__")
_CODE = ("Lambda", "__lambda__", "__typespec__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ``ModelFileError`` for an archive that unpacks to too much, or outside of its folder."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ModelFileError(f"{path}: expected at most {MAX_MEMBERS} members in the archive, found {len(members)}")
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise ModelFileError(f"{path}: expected at most {MAX_BYTES >> 30} GB unpacked, found {size / (1 << 30):.1f} GB")
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise ModelFileError(f"{path}: member {member.filename!r:.60} would leave the archive's folder")


def read_member(archive: zipfile.ZipFile, name: str, path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """One member, whole and with the checksum that the archive says. Raises ``ModelFileError``."""
    try:
        member = archive.getinfo(name)
        if member.file_size > limit:
            raise ModelFileError(f"{path}: {name} has {member.file_size:,} bytes, expected at most {limit:,}")
        with archive.open(member) as stream:
            data = stream.read(limit + 1)
    except KeyError:
        raise ModelFileError(f"{path}: no {name} in the archive; save the model again") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path}: {name} cannot be unpacked ({error}); copy or save the model again") from error
    return data


def read_hdf5_objects(data: bytes, path: Path) -> dict[str, h5py.h5d.DatasetID | h5py.h5g.GroupID]:
    """Every group and dataset of an HDF5 file by its full name, in the file's order.

    Raises ``ModelFileError`` for what reaches outside of the file, is too deep, unpacks to too much, or is broken.
    """
    found: dict[str, Any] = {}
    links: list[tuple[str, int]] = []

    def visit(name: bytes, link: Any) -> int | None:
        links.append((name.decode(errors="replace"), link.type))
        return 1 if len(links) > MAX_OBJECTS or name.count(b"/") > MAX_DEPTH else None

    try:
        file = h5py.File(io.BytesIO(data), "r")
        if file.id.links.visit(visit, info=True):
            raise ModelFileError(
                f"{path}: expected at most {MAX_OBJECTS:,} groups and datasets, {MAX_DEPTH} deep; "
                f"found more at {links[-1][0]:.80}"
            )
        size = 0
        for name, kind in links:
            if kind != h5py.h5l.TYPE_HARD:
                raise ModelFileError(f"{path}: {name:.80} is a link; expected groups and datasets only")
            found[name] = item = h5py.h5o.open(file.id, name.encode())
            if isinstance(item, h5py.h5d.DatasetID):
                size += _size_inside(item, name, path)
            if size > MAX_BYTES:
                raise ModelFileError(f"{path}: expected at most {MAX_BYTES >> 30} GB of weights, found more at {name}")
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeError) as error:
        raise ModelFileError(f"{path}: not a whole HDF5 file ({reason_of(error)}); copy or save it again") from error
    return found


def read_dataset(dataset: h5py.h5d.DatasetID) -> np.ndarray:
    """The whole dataset, in the machine's byte order."""
    values = np.empty(dataset.shape, dataset.dtype.newbyteorder("="))
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _size_inside(dataset: h5py.h5d.DatasetID, name: str, path: Path) -> int:
    """Unpacked bytes of a dataset that lies in its own file."""
    plan = dataset.get_create_plist()
    if plan.get_external_count() or plan.get_layout() == h5py.h5d.VIRTUAL:
        raise ModelFileError(f"{path}: dataset {name:.80} lies in other files; save the model in one file")
    return int(np.prod(dataset.shape, dtype=np.float64)) * int(dataset.dtype.itemsize)


def check_definition(definition: Any, path: Path, *, allow_code: bool = False) -> None:
    """Raises ``ModelFileError`` where the configuration of a model names code that is not Keras's own.

    ``allow_code``: the user trusts the file; then only its depth is checked.
    """
    _check_value(definition, path, "the model", 0, allow_code)


def _check_value(value: Any, path: Path, layer: str, depth: int, allow_code: bool) -> None:
    if depth > 6 * MAX_DEPTH:  # a nested model costs six levels of its configuration
        raise ModelFileError(f"{path}: the model's configuration is nested too deeply, at {layer}")
    if isinstance(value, Mapping):
        if "class_name" in value:
            layer = _named(value, layer)
            if not allow_code:
                _check_class(value, path, layer)
        for item in value.values():
            _check_value(item, path, layer, depth + 1, allow_code)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_value(item, path, layer, depth + 1, allow_code)


def _check_class(value: Mapping[str, Any], path: Path, layer: str) -> None:
    kind, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
    if not isinstance(kind, str):
        raise ModelFileError(f"{path}: {layer} has a class name that is no text: {kind!r:.60}")
    if kind in _PLAIN:
        return
    trust = "rebuild the model from Keras's own layers, or give --allow-code if you trust the file"
    if kind in _CODE:
        raise ModelFileError(f"{path}: {layer} is of class {kind}: it would run code that the file brings; {trust}")
    if kind == "KerasLayer":
        raise ModelFileError(
            f"{path}: {layer} is a TensorFlow Hub layer: its weights are in the file, but not what it computes; "
            "train the head on a base from keras.applications, or export the base as Keras layers"
        )
    if kind == "function" and isinstance(value.get("config"), str) and hasattr(keras.activations, value["config"]):
        return  # how some versions write an activation
    custom = isinstance(registered, str) and ">" in registered
    if custom or (module is not None and not _MODULES.fullmatch(str(module))):
        name = registered if custom else f"{module}.{kind}"
        raise ModelFileError(f"{path}: {layer} is of class {name}, which is none of Keras's own; {trust}")


def _named(value: Mapping[str, Any], outer: str) -> str:
    config = value.get("config")
    name = config.get("name") if isinstance(config, Mapping) else None
    return f"layer {name!r:.80}" if isinstance(name, str) else outer
