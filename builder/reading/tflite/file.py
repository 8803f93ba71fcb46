"""A ``.tflite`` file before anything runs it: is it one, and is there a picture classifier in it?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from builder.support.errors import ModelFileError
from builder.tflite.flatbuffer import Part, read_subgraphs, type_name
from edge_runtime.errors import BundleError
from edge_runtime.files import read_file
from edge_runtime.flatbuffer import check_model

IDENTIFIER = b"TFL3"  # at byte 4
MAX_MODEL_FILE = 2 << 30  # bytes: what a flatbuffer can address
_MODELS = (".tflite", ".keras", ".h5", ".hdf5", ".zip")
_POINTER = b"version https://git-lfs"
_CUSTOM_NAME = re.compile(r"custom operator '([^']*)'")
_CUSTOM = {
    "edgetpu-custom-op": "it was compiled for the Edge TPU, which hides its weights; take the .tflite that was compiled",
    "TFLite_Detection_PostProcess": "it finds boxes; expected a classifier, one score for each label",
}


def tflite_in(path: Path) -> Path | None:
    """The file, where it begins as a TensorFlow Lite model or is the stand-in for one; in a folder with no other model
    the one such file. Raises ``ModelFileError``.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix in _MODELS]
        alone = len(files) == 1 and files[0].suffix == ".tflite" and not (path / "saved_model.pb").exists()
        return tflite_in(files[0]) if alone else None
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    return path if start[4:8] == IDENTIFIER or (path.suffix == ".tflite" and start.startswith(_POINTER)) else None


def read_part(path: Path) -> tuple[bytes, Part]:
    """The file's bytes and its network, with one input and one output. Raises ``ModelFileError``."""
    model = read_file(path, MAX_MODEL_FILE)
    if model.startswith(_POINTER):
        raise ModelFileError(f"{path}: a Git LFS pointer, not the model itself; run `git lfs pull` where it comes from")
    try:
        check_model(model)
    except BundleError as error:
        raise ModelFileError(f"{path}: {_reason(str(error))}") from error
    subgraphs = read_subgraphs(model)
    if len(subgraphs) != 1:
        raise ModelFileError(f"{path}: expected one network, found {len(subgraphs)} subgraphs; name the model before it")
    part = subgraphs[0]
    _check_ends(path, part)
    return model, part


def _reason(found: str) -> str:
    """What the check found, with what it means where an operator is not of TensorFlow Lite's own."""
    custom = _CUSTOM_NAME.search(found)
    if custom is None:
        return f"{found}; copy or convert it again"
    name = custom[1]
    if name.startswith("Flex"):
        return (
            f"operator {name[4:]!r} is TensorFlow's own (SELECT_TF_OPS), which needs TensorFlow on the device; convert "
            "the model with TFLITE_BUILTINS alone"
        )
    return (
        f"custom operator {name!r}: {_CUSTOM.get(name, 'only builtin operators are known; convert the model without it')}"
    )


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
    shown = [f"{name[:40]} {type_name(part.tensors[i])} {_shape(part.tensors[i])}" for name, i in ends.items()]
    return ", ".join(shown[:4])


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in (() if tensor.shape is None else tensor.shape))
