"""Signatures of a model as models of their own: an interpreter prepares every subgraph it is given, run or not.

The checked bytes stay as they are. A new beginning comes before them: a root table that lists only the signatures that
are wanted, and their subgraphs. Offsets lead forwards and count from where they stand, so those in the bytes still hold.
"""

from __future__ import annotations

import io
import struct
from typing import Collection, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from edge_runtime.flatbuffer.model import Model

_LEFT_OUT = 1 << 12  # bytes, a page of memory: contents of fewer are copied, read or not
_ALIGNED = 64  # a multiple of 16, where contents begin
# A vtable: its bytes, its table's, and where in the table each field is, 0 where it is not; the schema has the fields.
_ROOT = struct.unpack("<5I", struct.pack("<10H", 20, 24, 4, 8, 12, 0, 16, 0, 0, 20))
_SIGNATURE = struct.unpack("<4I", struct.pack("<8H", 14, 20, 4, 8, 12, 0, 16, 0))  # the last 2 bytes are padding
_IDENTIFIER = int.from_bytes(b"TFL3", "little")


class Signature(NamedTuple):
    """``graph``: the number of its subgraph. ``places``: of its inputs, outputs and name in the model, in bytes."""

    graph: int
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    places: Tuple[int, ...]


class Views:
    """Of a model that ``check_model`` has seen. ``signatures``: by their names, in the file's order."""

    def __init__(self, model: Model) -> None:
        self._model = model
        tables = model.signature_tables
        places = zip(*(tables.targets(field).tolist() for field in (0, 1, 2)))
        rows = zip(tables.scalars(4, "u4").tolist(), *model.signature_tensors, places)
        self.signatures: Dict[str, Signature] = {
            name.decode("utf-8"): Signature(*row) for name, row in zip(model.signatures, rows)
        }

    def of(self, names: Collection[str]) -> bytes:
        """A model with these signatures alone; what they do not read of it is zeros."""
        model, chosen = self._model, [self.signatures[name] for name in names]
        if model.behind.any():  # contents whose place counts from the file's first byte
            return bytes(model.data.raw)
        graphs = sorted({signature.graph for signature in chosen})
        front = _front(model, graphs, chosen)
        content = io.BytesIO(bytes(len(front) + model.data.size))  # takes no memory where nothing is written
        with content.getbuffer() as target:
            target[: len(front)] = front
            start, shift = 0, len(front)
            for first, end in [*_left_out(model, graphs), (model.data.size, model.data.size)]:
                target[shift + start : shift + first] = model.data.raw[start:first]
                start = end
        return content.getvalue()


def _front(model: Model, graphs: Sequence[int], signatures: Sequence[Signature]) -> bytes:
    """The bytes before those of the model: root table, list of subgraphs, list of signatures, tables of signatures."""
    lists = 17, 18 + len(graphs)  # in words of 4 bytes
    tables = [lists[1] + 1 + len(signatures) + 5 * i for i in range(len(signatures) + 1)]
    size = -(-4 * tables.pop() // _ALIGNED) * _ALIGNED
    codes, buffers = (size + int(model.root.targets(field)[0]) for field in (1, 4))

    def plain(*numbers: int) -> List[Tuple[int, int]]:
        return [(number, 0) for number in numbers]

    def to(*places: int) -> List[Tuple[int, int]]:
        return [(place, 1) for place in places]

    words = to(28) + plain(_IDENTIFIER, *_ROOT, 20, 3) + to(codes, 4 * lists[0], buffers, 4 * lists[1])
    words += plain(*_SIGNATURE, len(graphs)) + to(*(size + int(model.graph_places[graph]) for graph in graphs))
    words += plain(len(signatures)) + to(*(4 * table for table in tables))
    for table, signature in zip(tables, signatures):
        words += plain(4 * table - 52) + to(*(size + place for place in signature.places))
        words += plain(graphs.index(signature.graph))
    values, leads = np.asarray(words, np.int64).T
    front: bytes = (values - 4 * leads * np.arange(len(values))).astype("<u4").tobytes()
    return front.ljust(size, b"\0")


def _left_out(model: Model, graphs: Sequence[int]) -> List[Tuple[int, int]]:
    """(first byte, end) of large contents that these subgraphs do not read, and in which nothing else lies."""
    (taken, sources), (given, results) = model.reads, model.outputs
    places = np.concatenate(
        [sources[np.isin(model.graph_of[taken.owners], graphs)], results[np.isin(given.owners, graphs)]]
    )
    read = np.zeros(len(model.buffer_bytes), bool)
    read[model.tensors.buffer[model.tensor_of[places[places >= 0]]]] = True
    starts, ends = model.buffer_starts, model.buffer_starts + model.buffer_bytes
    large = ~read & (model.buffer_bytes >= _LEFT_OUT)
    kept = [*model.data.structure, (starts[read], ends[read])]
    first, last = (np.concatenate(column) for column in zip(*kept))
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    before = np.searchsorted(first, ends[large]) - 1
    free = last[np.maximum(before, 0)] <= starts[large]
    return _joined(sorted(zip(starts[large][free].tolist(), ends[large][free].tolist())))


def _joined(ranges: Sequence[Tuple[int, int]]) -> List[Tuple[int, int]]:
    """Ranges that overlap, as one."""
    found: List[Tuple[int, int]] = []
    for first, end in ranges:
        if found and first < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((first, end))
    return found
