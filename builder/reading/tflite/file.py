"""Check a ``.tflite`` file before anything runs it, and find its picture classifier."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from builder.reading.formats.members import archive_members, file_beside
from builder.reading.formats.stored import Origin
from builder.settings.input_scaling import CHANNELS, GREY
from builder.support.errors import ModelFileError
from builder.tflite.flatbuffer import RESOURCE, Part, read_subgraphs, shape_of, type_name
from edge_runtime.errors import BundleError
from edge_runtime.files import read_file
from edge_runtime.flatbuffer import check_structure

IDENTIFIER = b"TFL3"  # at byte 4
MAX_MODEL_FILE = 2 << 30  # bytes that a flatbuffer can address
_MODELS = (".tflite", ".keras", ".h5", ".hdf5", ".zip")
_PARTS = ("saved_model.pb", "config.json")  # files of models that are folders or archives
_SAVED_MODEL, _ZIP = "saved_model.pb", b"PK\x03\x04"
_POINTER = b"version https://git-lfs"
_CUSTOM_NAME = re.compile(r"custom operator '([^']*)'")
_VARIABLES = f"a tensor of type {RESOURCE},"
_CUSTOM = {
    "edgetpu-custom-op": "it was compiled for the Edge TPU, which hides its weights; use the file it was compiled from",
    "TFLite_Detection_PostProcess": "it finds boxes (a detector); expected a classifier, one score for each label",
}


@dataclass(frozen=True)
class TfliteFile:
    """``path``: what the user named. ``name``: of the file itself, which may be in a folder or an archive at that path.

    ``content``: reads it. ``beside``: reads the named file beside it; None where there is none. ``origin``: input scaling
    and resizing, where what it was converted from says them.
    """

    path: Path
    name: str
    content: Callable[[], bytes]
    beside: Callable[[str], bytes | None]
    origin: Origin = field(default_factory=Origin)


def tflite_in(path: Path) -> TfliteFile | None:
    """The file, where it begins as a TensorFlow Lite model or is the stand-in for one; in a folder or an archive with no
    other model the one such file. Raises ``ModelFileError``.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix in _MODELS]
        alone = len(files) == 1 and files[0].suffix == ".tflite" and not (path / _SAVED_MODEL).exists()
        return tflite_in(files[0]) if alone else None
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    if start.startswith(_ZIP):
        return _in_archive(path)
    if start[4:8] == IDENTIFIER or (path.suffix == ".tflite" and start.startswith(_POINTER)):
        return TfliteFile(path, path.name, partial(read_file, path, MAX_MODEL_FILE), partial(file_beside, path.parent))
    return None


def _in_archive(path: Path) -> TfliteFile | None:
    """The only model in a zip archive, if it is a ``.tflite``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((*_MODELS, *_PARTS))]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return None  # the reader of archives reports what is wrong
    names = [name for name in names if not PurePosixPath(name).name.startswith("._")]
    if len(names) != 1 or not names[0].endswith(".tflite"):
        return None
    members = archive_members(path)
    folder = PurePosixPath(names[0]).parent

    def beside(name: str) -> bytes | None:
        read = members.get(str(folder / name))
        return read() if read is not None else None

    return TfliteFile(path, PurePosixPath(names[0]).name, members[names[0]], beside)


def read_part(file: TfliteFile) -> tuple[bytes, Part]:
    """The file's bytes and its network, with one input and one output. Raises ``ModelFileError``."""
    model = file.content()
    if model.startswith(_POINTER):
        raise ModelFileError(
            f"{file.path}: a Git LFS pointer, not the model itself; run `git lfs pull` where it comes from"
        )
    return model, network(file.path, model)


def network(path: Path, model: bytes) -> Part:
    """The network of a model, with one input and one output. ``path``: for messages. Raises ``ModelFileError``."""
    try:
        check_rules = check_structure(model)
        subgraphs = read_subgraphs(model)
        if len(subgraphs) == 1 and not is_open(subgraphs[0]):  # otherwise checked at its size
            check_rules()
    except BundleError as error:
        raise ModelFileError(f"{path}: {_reason(str(error))}") from error
    except struct.error as error:  # a field that no interpreter reads is out of bounds
        raise ModelFileError(f"{path}: damaged ({error}); copy or convert it again") from error
    if len(subgraphs) != 1:
        raise ModelFileError(f"{path}: expected one network, found {len(subgraphs)} subgraphs; use a file with one")
    _check_ends(path, subgraphs[0])
    return subgraphs[0]


def is_open(part: Part) -> bool:
    """Whether the height or the width of its pictures is open."""
    return len(part.inputs) == 1 and None in input_sides(part)


def input_sides(part: Part) -> tuple[int | None, int | None]:
    """Height and width of the input; None where open, for which some converters write 1."""
    (source,) = part.inputs.values()
    tensor = part.tensors[source]
    shape = shape_of(tensor)
    if len(shape) != 4:
        return 0, 0
    told = shape if tensor.shapeSignature is None else tuple(int(n) for n in tensor.shapeSignature)
    place = 2 if is_channels_first(shape) else 1
    if len(told) != 4 or shape[place : place + 2] == (1, 1):
        return None, None
    height, width = (n if n > 0 else None for n in told[place : place + 2])
    return height, width


def is_channels_first(shape: Sequence[int]) -> bool:
    """Whether a shape is (1, 3, height, width), or (1, 1, height, width) for greyscale."""
    if len(shape) != 4 or shape[3] == CHANNELS:
        return False
    return shape[1] == CHANNELS or (shape[1] == GREY and shape[3] != GREY)


def _reason(found: str) -> str:
    """The finding of the check, with an explanation for operators that are not builtin."""
    if found.startswith(_VARIABLES):
        return "its weights are variables, which it does not hold; give what it was converted from"
    custom = _CUSTOM_NAME.search(found)
    if custom is None:
        return f"{found}; copy or convert it again"
    name = custom[1]
    if name.startswith("Flex"):
        return (
            f"operator {name[4:]!r} is a TensorFlow operator (SELECT_TF_OPS), which needs TensorFlow on the device; "
            "convert the model with TFLITE_BUILTINS only"
        )
    why = _CUSTOM.get(name, "only builtin operators are supported; convert the model without it")
    return f"custom operator {name!r}: {why}"


def _check_ends(path: Path, part: Part) -> None:
    if len(part.inputs) != 1:
        raise ModelFileError(
            f"{path}: expected one input, a picture; found {len(part.inputs)} ({_named(part, part.inputs)})"
        )
    if len(part.outputs) != 1:
        raise ModelFileError(
            f"{path}: expected one output, a score for each label; found {len(part.outputs)} "
            f"({_named(part, part.outputs)}): a detector, or a model with several heads"
        )
    if not part.operators:
        raise ModelFileError(f"{path}: no operators; not a classifier")


def _named(part: Part, ends: Any) -> str:
    shown = [f"{name[:40]} {type_name(part.tensors[i])} {shape_of(part.tensors[i])}" for name, i in ends.items()]
    return ", ".join(shown[:4])
