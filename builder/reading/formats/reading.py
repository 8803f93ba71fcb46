"""Any path -> ``StoredModel``. The kind of file is recognized by content, not by name."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

import h5py

from builder.reading.formats.archive import read_archive
from builder.reading.formats.downloads import LABEL_FILES, with_origin
from builder.reading.formats.hdf5 import read_hdf5, read_hdf5_member
from builder.reading.formats.members import Members, archive_members, folder_members
from builder.reading.formats.saved_model import GRAPH, saved_model_of
from builder.reading.formats.stored import Origin, StoredModel, contradictions
from builder.support.errors import ModelFileError

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_POINTER = b"version https://"  # of a Git LFS pointer
_EXPECTED = "expected a Keras model: .keras, .h5, a SavedModel folder or a Teachable Machine download"
# Other files that users try, by their first bytes.
_OTHERS = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x80\x02", "a pickle, which is a program and is never loaded"),
    (0, b"\x80\x03", "a pickle, which is a program and is never loaded"),
    (0, b"\x80\x04", "a pickle, which is a program and is never loaded"),
    (0, b"\x80\x05", "a pickle, which is a program and is never loaded"),
    (0, b"{", "text that begins like JSON: at best an architecture without weights"),
)
_SUFFIXES = (".keras", ".h5", ".hdf5", ".model")


def read_model(path: Path, *, allow_code: bool = False) -> StoredModel:
    """The model in a file, a zip archive or a folder, with labels and input scaling from files beside it.

    ``allow_code``: whether layers may contain code (Lambda, the user's own classes). Raises ``ModelFileError``.
    """
    with contradictions(path):
        return _read(path, allow_code=allow_code)


def _read(path: Path, *, allow_code: bool) -> StoredModel:
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file")
    if path.is_dir():
        return _of_folder(path, allow_code=allow_code)
    if not path.is_file():
        raise ModelFileError(f"{path}: {_EXPECTED}, found neither a file nor a folder")
    start = _start(path)
    if start.startswith(_HDF5) or h5py.is_hdf5(path):
        return with_origin(read_hdf5(path, allow_code=allow_code), _neighbours(path))
    if start.startswith((_ZIP, _EMPTY_ZIP)) or zipfile.is_zipfile(path):
        return _of_zip(path, allow_code=allow_code)
    if start.startswith(_POINTER):
        raise ModelFileError(f"{path}: a Git LFS pointer, not the model itself; run `git lfs pull` where it comes from")
    found = next((what for place, mark, what in _OTHERS if start[place : place + len(mark)] == mark), None)
    if found:
        raise ModelFileError(f"{path}: {_EXPECTED}, found {found}; save the Keras model it was made from")
    raise ModelFileError(f"{path}: {_EXPECTED}, found something else or an incomplete one; copy or save it again")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise ModelFileError(f"{path}: the file is empty; save or copy the model again")
    return start


def _neighbours(path: Path) -> Members:
    """The label files beside a model."""
    found = {name: path.parent / name for name in LABEL_FILES}
    return {name: file.read_bytes for name, file in found.items() if file.is_file()}


def _of_folder(path: Path, *, allow_code: bool) -> StoredModel:
    members = folder_members(path)
    if GRAPH in members:
        model = saved_model_of(members, "", path, allow_code=allow_code)
        return with_origin(model, _neighbours(path))
    if {"config.json", "model.weights.h5"} <= set(members):
        raise ModelFileError(f"{path}: an unpacked .keras archive; name the archive itself")
    name = _the_model(members, path)
    prefix = _folder_of(name)
    if PurePosixPath(name).name == GRAPH:
        model = saved_model_of(members, prefix, path, allow_code=allow_code)
        return with_origin(model, members, _folder_of(prefix.rstrip("/")))
    model = read_model(path / name, allow_code=allow_code)
    return with_origin(model, members, prefix) if model.origin == Origin() else model


def _of_zip(path: Path, *, allow_code: bool) -> StoredModel:
    members = archive_members(path)
    if not members:
        raise ModelFileError(f"{path}: {_EXPECTED}, found an empty archive; save or copy the model again")
    if "config.json" in members or "model.weights.h5" in members:
        return with_origin(read_archive(path, allow_code=allow_code), _neighbours(path))
    name = _the_model(members, path)
    prefix = _folder_of(name)
    if PurePosixPath(name).name == GRAPH:
        model = saved_model_of(members, prefix, path, allow_code=allow_code)
        return with_origin(model, members, _folder_of(prefix.rstrip("/")))
    if name.endswith(".keras"):
        raise ModelFileError(f"{path}: an archive with {name!r:.80} in it; unpack it and name that file")
    return with_origin(read_hdf5_member(members[name](), path, allow_code=allow_code), members, prefix)


def _the_model(members: Members, path: Path) -> str:
    """The one model among the files of a folder or an archive. Raises ``ModelFileError``."""
    names = [name for name in members if name.endswith(_SUFFIXES) or PurePosixPath(name).name == GRAPH]
    names = [n for n in names if not n.endswith("model.weights.h5") and not PurePosixPath(n).name.startswith("._")]
    if len(names) == 1:
        return names[0]
    if names:
        raise ModelFileError(f"{path}: {len(names)} models in it ({', '.join(sorted(names))!s:.200}); name one of them")
    files = {PurePosixPath(name).name for name in members}
    if any(name.endswith(".tflite") for name in files):
        raise ModelFileError(f"{path}: a download for TensorFlow Lite; unpack it, and name one .tflite file in it")
    if "model.json" in files:
        raise ModelFileError(
            f"{path}: a download for TensorFlow.js; in Teachable Machine choose Export Model, Tensorflow, Keras"
        )
    if any(name.endswith("data.pkl") for name in members):
        raise ModelFileError(f"{path}: a PyTorch file, which is a program and is never loaded; {_EXPECTED}")
    if "variables/variables.index" in members or "keras_metadata.pb" in members:
        raise ModelFileError(f"{path}: no {GRAPH}: expected a whole SavedModel folder; copy it again")
    raise ModelFileError(f"{path}: {_EXPECTED}, found none in it")


def _folder_of(name: str) -> str:
    """The folder of a member, with a trailing "/"; empty at the top."""
    parent, slash, _ = name.rpartition("/")
    return parent + slash
