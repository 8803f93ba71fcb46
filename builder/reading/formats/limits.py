"""Limits and checks for model files. They are untrusted, so they are checked before any library loads them."""

from __future__ import annotations

import contextlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from builder.reading.formats.allowed import ACTIVATIONS, is_allowed
from builder.reading.formats.libraries import library_of
from builder.reading.formats.stored import LOADING_ERRORS, reason_of
from builder.support.errors import ModelFileError
from builder.support.lazy import Lazy

if TYPE_CHECKING:
    import h5py
else:
    h5py = Lazy("h5py")  # which is not needed for archives of .tflite files

MAX_MEMBERS = 10_000
MAX_BYTES = 4 << 30  # of one file, unpacked: above any classifier that an edge device could hold
MAX_TEXT = 64 << 20  # of a configuration; EfficientNetV2-XL has 2 MB
MAX_DEPTH = 64  # of groups within groups, and of models within models
MAX_OBJECTS = 200_000  # groups and datasets
MAX_PACKING = 200  # unpacked bytes for each packed one; weights hardly compress, and zip reaches 1000
MAX_LAYERS = 5000  # of one model; EfficientNetV2-XL has 1,100
MAX_NUMBER = 1 << 20  # in a layer's settings: above any width, picture or vocabulary of a classifier for a device
_SMALL = 64 << 20  # bytes below which any compression is allowed

PLAIN = (
    "__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__", "__tuple__", "TensorShape", "TypeSpec",
)  # fmt: skip
_CODE = re.compile(r"(.*\.)?(Lambda|__lambda__|__typespec__|TorchModuleWrapper|TFSMLayer|JaxLayer|FlaxLayer)")


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ``ModelFileError`` for an archive that unpacks to too much, or outside its folder."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ModelFileError(f"{path}: expected at most {MAX_MEMBERS} members in the archive, found {len(members)}")
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise ModelFileError(f"{path}: expected at most {MAX_BYTES >> 30} GB unpacked, found {size / (1 << 30):.1f} GB")
    packed = sum(member.compress_size for member in members)
    if size > _SMALL and size > MAX_PACKING * packed:
        raise ModelFileError(
            f"{path}: {packed:,} bytes that unpack to {size:,}; expected at most {MAX_PACKING} times as many"
        )
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1]):
            raise ModelFileError(f"{path}: member {member.filename!r:.60} would leave the archive's folder")


def read_member(archive: zipfile.ZipFile, name: str, path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """One member, with its checksum verified. Raises ``ModelFileError``."""
    try:
        member = archive.getinfo(name)
        if member.file_size > limit:
            raise ModelFileError(f"{path}: {name} has {member.file_size:,} bytes, expected at most {limit:,}")
        with archive.open(member) as stream:
            data = stream.read(limit + 1)
    except KeyError:
        raise ModelFileError(f"{path}: no {name} in the archive; save the model again") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: {name} cannot be unpacked ({reason_of(error)}); copy or save the model again"
        ) from error
    return data


Objects = dict[str, "h5py.h5d.DatasetID | h5py.h5g.GroupID"]  # groups and datasets by their full names


def read_hdf5_objects(data: bytes, path: Path) -> Objects:
    """Every group and dataset of an HDF5 file that is in memory, in the file's order; as ``hdf5_objects``."""
    with hdf5_errors(path):
        return hdf5_objects(h5py.File(io.BytesIO(data), "r"), path)


@contextlib.contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a broken file into a ``ModelFileError``."""
    try:
        yield
    except ModelFileError:
        raise
    except (*LOADING_ERRORS, MemoryError) as error:
        raise ModelFileError(f"{path}: not a whole HDF5 file ({reason_of(error)}); copy or save it again") from error


def hdf5_objects(file: h5py.File, path: Path) -> Objects:
    """Every group and dataset of ``file``, "" being the root, in the file's order.

    Raises ``ModelFileError`` for links, and for content that is too deep, unpacks to too much, or is not numeric.
    """
    links: list[tuple[str, int]] = []

    def visit(name: bytes, link: Any) -> int | None:
        links.append((name.decode(errors="replace"), link.type))
        return 1 if len(links) > MAX_OBJECTS or name.count(b"/") > MAX_DEPTH else None

    if file.id.links.visit(visit, info=True):
        raise ModelFileError(
            f"{path}: expected at most {MAX_OBJECTS:,} groups and datasets, {MAX_DEPTH} deep; "
            f"found more at {links[-1][0]!r:.80}"
        )
    size = 0
    found: Objects = {"": file["/"].id}
    for name, kind in links:
        if kind != h5py.h5l.TYPE_HARD:
            raise ModelFileError(f"{path}: {name!r:.80} is a link; expected groups and datasets only")
        item = h5py.h5o.open(file.id, name.encode())
        if isinstance(item, h5py.h5d.DatasetID):
            size += _size_inside(item, name, path)
        elif not isinstance(item, h5py.h5g.GroupID):
            raise ModelFileError(f"{path}: {name!r:.80} is a named type; expected groups and datasets only")
        found[name.replace("\\", "/")] = item  # some versions on Windows wrote group names with backslashes
        if size > MAX_BYTES:
            raise ModelFileError(f"{path}: expected at most {MAX_BYTES >> 30} GB of weights, found more at {name!r:.80}")
    return found


def read_dataset(dataset: h5py.h5d.DatasetID, path: Path) -> np.ndarray:
    """The whole dataset in the machine's byte order; all float types become float32."""
    with hdf5_errors(path):
        if dataset.get_type().get_class() == h5py.h5t.FLOAT:
            values = np.empty(dataset.shape, np.float32)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values, h5py.h5t.NATIVE_FLOAT)
        else:
            values = np.empty(dataset.shape, dataset.dtype.newbyteorder("="))
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values


def as_float32(values: np.ndarray) -> np.ndarray:
    """float16 and float64 as float32; everything else unchanged."""
    return values.astype(np.float32) if values.dtype.kind == "f" and values.dtype != np.float32 else values


def _size_inside(dataset: h5py.h5d.DatasetID, name: str, path: Path) -> int:
    """Unpacked bytes of a dataset of numbers that lies in its own file."""
    if dataset.get_offset() is None:  # chunked or external: contiguous data in the file is complete
        plan = dataset.get_create_plist()
        if plan.get_external_count() or plan.get_layout() == h5py.h5d.VIRTUAL:
            raise ModelFileError(f"{path}: dataset {name!r:.80} lies in other files; save the model in one file")
    kind = dataset.get_type()
    numbers = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)  # the last for booleans
    if kind.get_class() not in numbers or kind.get_size() > 8:
        raise ModelFileError(f"{path}: dataset {name!r:.80} holds {str(dataset.dtype)!r:.40}; expected plain numbers")
    size: int = math.prod(dataset.shape) * int(kind.get_size())
    if size > MAX_PACKING * dataset.get_storage_size():
        raise ModelFileError(
            f"{path}: dataset {name!r:.80} claims shape {dataset.shape!s:.60}, but the file holds "
            f"{dataset.get_storage_size():,} bytes of it; copy or save the model again"
        )
    return size


# Libraries whose models save only their settings, by the prefix of modules and registered names.
_HUBS = {"keras_hub": "KerasHub", "keras_cv": "KerasCV", "keras_nlp": "KerasNLP"}
_CLUSTERED = ("ClusterWeights", "ClusterWeightsRNN")  # wrappers whose weights are not those of the layers in them


def check_definition(definition: Any, path: Path, *, allow_code: bool = False) -> None:
    """Raises ``ModelFileError`` where the configuration of a model names code that is not Keras's own.

    ``allow_code``: the user trusts the file; then only its depth is checked.
    """
    _check_value(definition, path, "the model", 0, allow_code)


def _check_value(value: Any, path: Path, layer: str, depth: int, allow_code: bool) -> None:
    if depth > 6 * MAX_DEPTH:  # a nested model adds six levels to its configuration
        raise ModelFileError(f"{path}: the model's configuration is nested too deeply, at {layer}")
    if isinstance(value, dict):
        if "class_name" in value:
            layer = _named(value, layer)
            if not allow_code:
                _check_class(value, path, layer)
        items: Iterable[Any] = value.values()
    else:
        items = value
    for item in items:
        if isinstance(item, (dict, list, tuple)):  # most values are plain: skip the call
            _check_value(item, path, layer, depth + 1, allow_code)


def _check_class(value: Mapping[str, Any], path: Path, layer: str) -> None:
    kind, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
    if not isinstance(kind, str):
        raise ModelFileError(f"{path}: {layer} has a class name that is not text: {kind!r:.60}")
    if not all(text is None or isinstance(text, str) for text in (module, registered)):
        raise ModelFileError(f"{path}: {layer} has a module or a registered name that is not text")
    if kind in PLAIN and module in (None, "builtins"):
        return
    trust = "rebuild the model from Keras's own layers, or give --allow-code if you trust the file"
    if _CODE.fullmatch(kind):
        raise ModelFileError(f"{path}: {layer} is of class {kind:.120}: it would run code from the file; {trust}")
    if kind == "KerasLayer":
        raise ModelFileError(
            f"{path}: {layer} is a TensorFlow Hub layer: its weights are in the file, but not its layers; "
            "train the head on a base from keras.applications, or export the base as Keras layers"
        )
    if kind.rpartition(">")[2] in _CLUSTERED:
        raise ModelFileError(
            f"{path}: {layer} ({kind:.60}) is a wrapper of TensorFlow's optimization toolkit; save "
            "tfmot.clustering.keras.strip_clustering(model)"
        )
    if kind == "function" and isinstance(value.get("config"), str) and value["config"] in ACTIVATIONS:
        return  # how some versions write an activation
    if library_of(module, kind, registered) is not None:
        return
    hub = next((name for start, name in _HUBS.items() if str(module or registered).startswith(start)), None)
    if hub is not None:
        raise ModelFileError(
            f"{path}: {layer} is {hub}'s {kind:.60}: its layers are in {hub} and not in the file; export it there, "
            "model.export(FOLDER), and give that folder; its preprocessor is not part of it: set preprocessing"
        )
    custom = next((name for name in (registered, kind) if name and ">" in name), None)
    if custom or not is_allowed(module, kind):
        name = custom or (kind if module is None else f"{module}.{kind}")
        raise ModelFileError(f"{path}: {layer} is of class {name!r:.120}, which is not one of Keras's own; {trust}")


def _named(value: Mapping[str, Any], outer: str) -> str:
    config = value.get("config")
    name = config.get("name") if isinstance(config, Mapping) else None
    return f"layer {name!r:.80}" if isinstance(name, str) else outer
