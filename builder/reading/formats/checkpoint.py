"""Read TensorFlow's checkpoint ("tensor bundle") in pure Python: a hostile one can only cause an error.

``variables.index`` is a sorted table (that of LevelDB: blocks of entries with shared prefixes, and a footer of 48 bytes
that points to the block of blocks); each entry is a ``BundleEntryProto`` that says where in ``variables.data-*`` a tensor
lies.
Source: tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/format.h. Checksums are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from builder.reading.formats.members import Members

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_DTYPES = {
    types_pb2.DT_FLOAT: "<f4",
    types_pb2.DT_HALF: "<f2",
    types_pb2.DT_DOUBLE: "<f8",
    types_pb2.DT_INT32: "<i4",
    types_pb2.DT_INT64: "<i8",
    types_pb2.DT_BOOL: "?",
    types_pb2.DT_UINT8: "<u1",
    types_pb2.DT_INT8: "<i1",
}


class BrokenCheckpointError(ValueError):
    """The bytes are not a checkpoint, or a truncated one."""


class Checkpoint:
    """The tensors of a checkpoint. Reads each file of data once."""

    def __init__(self, members: Members, prefix: str) -> None:
        """``prefix``: path of the checkpoint without ``.index``. Raises ``BrokenCheckpointError``."""
        self._members, self._prefix = members, prefix
        self._data: dict[str, bytes] = {}
        index = members.get(f"{prefix}.index")
        if index is None:
            raise BrokenCheckpointError(f"{prefix}.index is missing")
        self._entries = dict(_table(index()))
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(self._entries.pop(b"", b""))
        self._shards = int(header.num_shards)
        if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
            raise BrokenCheckpointError("written on a big-endian machine")

    def tensor(self, key: str) -> np.ndarray:
        """The numbers of one tensor. Raises ``BrokenCheckpointError``."""
        entry = self._entry(key)
        dtype = _DTYPES.get(entry.dtype)
        shape = tuple(int(d.size) for d in entry.shape.dim)
        if dtype is None or entry.slices or min(shape, default=0) < 0:
            raise BrokenCheckpointError(f"{key:.80} is not a plain tensor of numbers")
        data = self._bytes(entry)
        if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
            raise BrokenCheckpointError(f"{key:.80} has {len(data)} bytes, which do not fit shape {shape} of {dtype}")
        return np.frombuffer(data, dtype).reshape(shape)

    def text(self, key: str) -> bytes:
        """A tensor of one string. Raises ``BrokenCheckpointError``."""
        data = self._bytes(self._entry(key))
        length, start = _varint(data, 0)
        found = data[start + 4 : start + 4 + length]  # 4 bytes of checksum lie between
        if len(found) != length:
            raise BrokenCheckpointError(f"{key:.80} is truncated")
        return found

    def _entry(self, key: str) -> Any:
        if key.encode() not in self._entries:
            raise BrokenCheckpointError(f"no tensor {key:.80}")
        return tensor_bundle_pb2.BundleEntryProto.FromString(self._entries[key.encode()])

    def _bytes(self, entry: Any) -> bytes:
        name = f"{self._prefix}.data-{entry.shard_id:05d}-of-{self._shards:05d}"
        if name not in self._data:
            if name not in self._members:
                raise BrokenCheckpointError(f"{name:.80} is missing")
            self._data[name] = self._members[name]()
        found = self._data[name][max(entry.offset, 0) : max(entry.offset, 0) + max(entry.size, 0)]
        if entry.offset < 0 or len(found) != entry.size:
            raise BrokenCheckpointError(f"{name:.80} is truncated")
        return found


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table."""
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise BrokenCheckpointError("the index is not a table, or is truncated")
    footer = data[-_FOOTER:]
    _, place = _varint(footer, 0)
    _, place = _varint(footer, place)  # the first handle is that of a block that is not needed
    budget = len(data)
    for _, handle in _block(data, *_handle(footer, place)):
        offset, size = _handle(handle, 0)
        budget -= size
        if budget < 0:
            raise BrokenCheckpointError("blocks of the index overlap")
        yield from _block(data, offset, size)


def _handle(data: bytes, place: int) -> tuple[int, int]:
    offset, place = _varint(data, place)
    size, _ = _varint(data, place)
    return offset, size


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; each key is stored as the length of the prefix shared with the previous key, and the rest."""
    block = data[offset : offset + size]
    if len(block) != size or size < 4 or data[offset + size : offset + size + 1] != b"\0":
        raise BrokenCheckpointError("a block of the index is compressed or truncated")
    restarts = int.from_bytes(block[-4:], "little")
    end = size - 4 - 4 * restarts
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + own + length > end:
            raise BrokenCheckpointError("an entry of the index is broken")
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + length]
        place += own + length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A varint (7 bits for each byte, lowest first), and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise BrokenCheckpointError("a varint is malformed")


def proto_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a protocol buffer message: a number, or bytes.

    Raises ``BrokenCheckpointError``.
    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise BrokenCheckpointError(f"a field of unknown kind {kind}")
        if place + size > len(data):
            raise BrokenCheckpointError("a field is truncated")
        yield tag >> 3, data[place : place + size]
        place += size
