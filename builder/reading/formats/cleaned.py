"""A copy of a model file that is safe to load with its own framework: checked, and without parts that loading runs."""

from __future__ import annotations

import errno
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from builder.reading.formats.definition import parse_definition
from builder.reading.formats.limits import (
    MAX_TEXT,
    check_archive,
    check_definition,
    hdf5_errors,
    hdf5_objects,
    read_member,
)
from builder.reading.formats.stored import LOADING_ERRORS, Weights, reason_of
from builder.reading.formats.training import as_inference
from builder.reading.originals.original import write_definition
from builder.support.errors import ConfigError, ModelFileError
from edge_runtime.temporary import TemporaryFolder

_DEFINITION = "model_config"  # an attribute of HDF5 files
_KEPT = (_DEFINITION, "keras_version", "backend")  # attributes that stay; not those of training


_HALF = ("mixed_float16", "mixed_bfloat16")
_POLICIES = ("DTypePolicy", "Policy", "PolicyV1")  # of Keras 3, and of Keras 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def load_original(path: Path, *, allow_code: bool = False) -> Any:
    """The model in a ``.keras`` archive or HDF5 file as Keras 3 itself loads it, from a cleaned copy.

    Raises ``ModelFileError``, and ``ConfigError`` where there is no room for the copy.
    """
    with TemporaryFolder() as folder:
        copy = write_cleaned(path, Path(folder), allow_code=allow_code)
        try:
            return keras.saving.load_model(copy, compile=False, safe_mode=not allow_code)
        except LOADING_ERRORS as error:
            reason = reason_of(error).replace(str(copy), str(path))
            raise ModelFileError(f"{path}: Keras {keras.__version__} cannot load it: {reason}") from error


def write_cleaned(path: Path, folder: Path, *, allow_code: bool = False) -> Path:
    """Copy the model file ``path``, a ``.keras`` archive or HDF5 of any Keras, into ``folder``; its weights stay.

    The copy's configuration holds only classes that are allowed and neither ``build_config`` nor ``compile_config``, at
    any depth, whose shapes and losses Keras would act on; the state of the training is left out.

    Args:
        path: The untrusted file. It is read, and never given to Keras.
        folder: An existing folder for the copy.
        allow_code: The user trusts the file: its classes are not checked.

    Returns:
        The copy, ``model.keras`` or ``model.h5`` in ``folder``.

    Raises:
        ModelFileError: The file is damaged, or names code of its own.
        ConfigError: There is no room in ``folder``.
    """
    archive = zipfile.is_zipfile(path) and not h5py.is_hdf5(path)
    copy = folder / ("model.keras" if archive else "model.h5")
    try:
        (_clean_archive if archive else _clean_hdf5)(path, copy, allow_code)
    except ModelFileError:
        raise
    except (*LOADING_ERRORS, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ConfigError(
                f"{folder}: no room for a copy of {path.name} ({error.strerror}); make room there, or set TMPDIR to a "
                "folder with room"
            ) from error
        raise ModelFileError(f"{path}: not a whole Keras model ({reason_of(error)}); copy or save it again") from error
    return copy


def write_layers(definition: Any, weights: Weights, folder: Path) -> Path:
    """For a file that no framework loads as it is: the layers that were read of it, in its words, and their weights."""
    saved = write_definition(in_float32(as_inference(definition)), folder)
    named: dict[str, Any] = {
        f"{'/'.join(place)}:{i}": one for place, values in weights.items() for i, one in enumerate(values)
    }
    np.savez(saved / "weights.npz", **named)
    return saved


def _clean_text(text: bytes | str, path: Path, allow_code: bool) -> str:
    definition = parse_definition(text, path)
    check_definition(definition, path, allow_code=allow_code)
    return json.dumps(in_float32(as_inference(definition)))


def in_float32(value: Any) -> Any:
    """The definition with layers of half precision in float32: their weights are float32, and comparisons must not
    include the rounding of half precision.
    """
    if isinstance(value, dict):
        if value.get("class_name") in _POLICIES and (value.get("config") or {}).get("name") in _HALF:
            return "float32"
        return {key: in_float32(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_float32(item) for item in value]
    return "float32" if isinstance(value, str) and value in _HALF else value


def half_notes(value: Any) -> tuple[str, ...]:
    """Notes on the policies of half precision in a definition of Keras 3, for which ``in_float32`` puts float32."""
    if isinstance(value, str):
        return (f"{value} is read as float32",) if value in _HALF else ()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return tuple(dict.fromkeys(note for item in inner for note in half_notes(item)))


def _clean_archive(path: Path, copy: Path, allow_code: bool) -> None:
    with zipfile.ZipFile(path) as old:
        check_archive(old, path)
        definition = _clean_text(read_member(old, "config.json", path, limit=MAX_TEXT), path, allow_code)
        with zipfile.ZipFile(copy, "w") as new:
            new.writestr("config.json", definition)
            for name in dict.fromkeys(old.namelist()):
                if name != "config.json" and not name.endswith("/"):
                    new.writestr(name, read_member(old, name, path))


def _clean_hdf5(path: Path, copy: Path, allow_code: bool) -> None:
    with hdf5_errors(path), h5py.File(path, "r") as old:
        hdf5_objects(old, path)  # refuses links to other files
        text = old.attrs.get(_DEFINITION)
        if not isinstance(text, (str, bytes)):
            raise ModelFileError(f"{path}: an HDF5 file without a Keras model (no attribute {_DEFINITION})")
        definition = _clean_text(text, path, allow_code)
    shutil.copyfile(path, copy)
    with hdf5_errors(path), h5py.File(copy, "r+") as new:
        for name in [name for name in new.attrs if name not in _KEPT]:
            del new.attrs[name]
        if "optimizer_weights" in new:
            del new["optimizer_weights"]
        new.attrs[_DEFINITION] = definition
