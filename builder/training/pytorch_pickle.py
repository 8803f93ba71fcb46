"""Read the tensors of a PyTorch state dict into NumPy without PyTorch.

    state = read_state_dict(content)   # {"_conv_stem.weight": array, ...}

Unpickling a file can run anything that can be imported. So its bytes must be known beforehand: ``read_state_dict`` checks
their SHA-256. And the unpickler admits only the four names that a state dict needs.

``torch.save`` writes a ZIP archive with a pickle of the state dict and a member for each storage. Before PyTorch 1.6 it
wrote five pickles (magic number, protocol version, the writer's byte order, the state dict, the order of the storages),
then each storage as an int64 count and its elements.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


class TensorFileError(ValueError):
    """The file is not the expected one, or not a PyTorch state dict."""


@dataclass(frozen=True)
class _View:
    """A view of the storage with this key; ``offset`` and ``strides`` are in elements."""

    key: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(storage: tuple[str, np.dtype], offset: int, shape: Any, strides: Any, *_: Any) -> _View:
    return _View(*storage, offset, tuple(shape), tuple(strides))


_ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise TensorFileError(f"expected a state dict of tensors, found {module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        """Of ``("storage", kind, key, device, count, None)``."""
        return pid[2], pid[1]


def read_state_dict(content: bytes, *, sha256: str) -> dict[str, np.ndarray]:
    """Tensors by name, in the file's order: read-only float32 or int64 arrays, axes as PyTorch keeps them.

    Args:
        content: the bytes of the file.
        sha256: their digest, hexadecimal.

    Raises:
        TensorFileError: other bytes, or not a state dict of tensors.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise TensorFileError(f"expected the file with SHA-256 {sha256[:16]}..., found {digest[:16]}...")
    views, storages = (_of_archive if zipfile.is_zipfile(io.BytesIO(content)) else _of_pickles)(content)
    return {name: _array(view, storages[view.key]) for name, view in views.items()}


def _of_archive(content: bytes) -> tuple[dict[str, _View], dict[str, np.ndarray]]:
    """The tensors by name and the storages by key, as PyTorch 1.6 and later write them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise TensorFileError(f"expected one member data.pkl of the archive, found {len(found)}")
        folder = found[0].rpartition("/")[0]
        order = f"{folder}/byteorder"  # written since PyTorch 2.1
        if order in archive.namelist() and archive.read(order) != b"little":
            raise TensorFileError("expected a little-endian file")
        views = _Unpickler(io.BytesIO(archive.read(found[0]))).load()
        keys = {view.key: view.dtype for view in views.values()}
        return views, {key: np.frombuffer(archive.read(f"{folder}/data/{key}"), dtype) for key, dtype in keys.items()}


def _of_pickles(content: bytes) -> tuple[dict[str, _View], dict[str, np.ndarray]]:
    """The same, as earlier ones wrote them."""
    stream = io.BytesIO(content)
    start = [_Unpickler(stream).load() for _ in range(2)]
    system = _Unpickler(stream).load()
    if start != [MAGIC_NUMBER, PROTOCOL_VERSION] or not system["little_endian"]:
        raise TensorFileError("expected a file of torch.save, little-endian")
    views, keys = _Unpickler(stream).load(), _Unpickler(stream).load()
    dtypes = {view.key: view.dtype for view in views.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        storages[key] = np.frombuffer(stream.read(count * dtypes[key].itemsize), dtypes[key])
    return views, storages


def _array(view: _View, elements: np.ndarray) -> np.ndarray:
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    if last >= len(elements):
        raise TensorFileError(f"expected a tensor inside its storage of {len(elements)} elements, found {view.shape}")
    strides = [stride * elements.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, strides, writeable=False)
