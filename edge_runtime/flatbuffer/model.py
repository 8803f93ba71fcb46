"""The tables of a model as arrays. The numbers of the fields are those of TensorFlow Lite's schema (version 3c).

Tables that several subgraphs share are read once; ``tensor_of`` leads from a subgraph's own numbers to them.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer.tables import Data, Tables, Vectors, refuse_where

MAX_RANK = 8
CUSTOM = 32
# Types by number, and bits of an item.
TYPES = {
    0: ("float32", 32), 1: ("float16", 16), 2: ("int32", 32), 3: ("uint8", 8), 4: ("int64", 64), 6: ("bool", 8),
    7: ("int16", 16), 9: ("int8", 8), 15: ("uint32", 32), 17: ("int4", 4),
}  # fmt: skip


class Tensors:
    """Each tensor table once. ``shape``: int64 (tensors, MAX_RANK), 1 beyond the rank; ``bytes``: of the content."""

    def __init__(self, tables: Tables, buffers: np.ndarray) -> None:
        self.tables = tables
        self.type = tables.scalars(1, "i1")
        known = np.zeros(256, np.int64)
        known[list(TYPES)] = [bits for _, bits in TYPES.values()]
        bits = known[self.type & 255]
        refuse_where(bits == 0, lambda i: f"a tensor of type {self.type[i]}, which no classifier needs")
        self.shape, self.rank = self._shapes(tables.vectors(0, 4))
        refuse_where((self.shape < 0).any(1), lambda i: f"a tensor of shape {self.shape[i, : self.rank[i]].tolist()}")
        sizes = np.prod(self.shape.astype(np.float64), 1)
        refuse_where(sizes > 1 << 40, lambda i: f"a tensor of {sizes[i]:.0e} items")
        self.items = np.prod(self.shape, 1)
        self.bytes = (self.items * bits + 7) // 8
        self.buffer = tables.scalars(2, "u4")
        refuse_where(
            self.buffer >= len(buffers), lambda i: f"a tensor of buffer {self.buffer[i]}, where there are {len(buffers)}"
        )
        self.constant = (buffers[self.buffer] > 0) | (self.items == 0)
        for field, what in ((5, "variable"), (6, "sparse"), (9, "variant"), (10, "external")):
            # A scalar for the first and the last; one that is there and is 0 says no.
            said = tables.scalars(field, "u1" if field == 5 else "u4")
            refuse_where(said != 0, lambda i, what=what: f"a tensor that is {what}, which no classifier needs")  # type: ignore[misc]
        self._check_names()

    def _shapes(self, lists: Vectors) -> Tuple[np.ndarray, np.ndarray]:
        refuse_where(lists.counts > MAX_RANK, lambda i: f"a tensor of {lists.counts[i]} dimensions")
        shape = np.ones((len(self.tables), MAX_RANK), np.int64)
        owners = lists.owners
        shape[owners, np.arange(lists.total) - (lists.ends - lists.counts)[owners]] = lists.values("i4")
        return shape, lists.counts

    def _check_names(self) -> None:
        check_texts(self.tables.vectors(3, 1).texts(), "a tensor")
        signature = self.tables.vectors(7, 4)
        refuse_where(
            (signature.counts != 0) & (signature.counts != self.rank), lambda i: "a tensor with two different ranks"
        )
        refuse_where(signature.values("i4") < -1, lambda i: "a tensor whose shape is negative")


class Model:
    """Raises ``BundleError`` where the structure does not hold; whether it makes sense is asked elsewhere."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.root = root = Tables(data, data.follow(np.zeros(1, np.int64)))
        version = int(root.scalars(0, "u4")[0])
        if version != 3:
            raise BundleError(f"expected a model of version 3, found {version}")
        for field in (8, 9):
            if root.targets(field)[0]:
                raise BundleError("weights outside the file, which are not read")
        root.vectors(3, 1)
        self.kinds = self._operator_codes(root.vectors(1, 4))
        self.buffer_starts, self.buffer_bytes = self._buffers(root.vectors(4, 4))
        self._graphs(root.vectors(2, 4))
        self._metadata(root)
        self._signatures(root.vectors(7, 4))

    def _operator_codes(self, lists: Vectors) -> np.ndarray:
        tables, which = lists.tables()
        kinds = np.maximum(tables.scalars(0, "i1"), tables.scalars(3, "i4"))
        custom = tables.vectors(1, 1)
        refuse_where(
            kinds == CUSTOM,
            lambda i: f"the custom operator {custom.texts()[i].decode('ascii', 'replace')!r:.60}, which no client runs",
        )
        refuse_where(tables.scalars(2, "i4", 1) < 1, lambda i: "an operator of a version below 1")
        found: np.ndarray = kinds[which]
        return found

    def _buffers(self, lists: Vectors) -> Tuple[np.ndarray, np.ndarray]:
        """Where each begins and its bytes; also those that lie behind the tables, at an offset."""
        tables, which = lists.tables()
        inside = tables.vectors(0, 1)
        self.data.structure.pop()  # contents are none
        start, size = tables.scalars(1, "i8"), tables.scalars(2, "i8")
        self.behind = behind = start > 1
        wrong = behind & ((size < 0) | (start > self.data.size) | (size > self.data.size - start))
        refuse_where(wrong, lambda i: "a buffer outside the file")
        return np.where(behind, start, inside.starts)[which], np.where(behind, size, inside.counts)[which]

    def _graphs(self, lists: Vectors) -> None:
        tables, which = lists.tables()
        if not len(which):
            raise BundleError("a model without a subgraph")
        if len(tables) < len(which):
            raise BundleError("two subgraphs that are one")
        tables = Tables(self.data, tables.places[which])  # in the file's order
        self.graph_places = tables.places
        tables.vectors(4, 1)
        tensors = tables.vectors(0, 4)
        found, self.tensor_of = tensors.tables()
        self.tensors = Tensors(found, self.buffer_bytes)
        self.first = np.concatenate([[0], tensors.ends])  # of each subgraph's tensors, in tensor_of
        self.inputs, self.outputs = (self._indices(tables.vectors(field, 4), "a subgraph") for field in (1, 2))
        operators = tables.vectors(3, 4)
        self.operators, self.operator_of = operators.tables()
        self.graph_of = operators.owners
        own = Tables(self.data, self.operators.places[self.operator_of])
        code = own.scalars(0, "u4")
        refuse_where(
            code >= len(self.kinds), lambda i: f"an operator of kind {code[i]}, where there are {len(self.kinds)}"
        )
        self.kind = self.kinds[code] if len(code) else code
        reads = Vectors(self.data, own.targets(1), 4), Vectors(self.data, own.targets(2), 4)
        self.reads = self._indices(reads[0], "an operator", self.graph_of, optional=True)
        self.writes = self._indices(reads[1], "an operator", self.graph_of)
        for field, width in ((5, 1), (7, 1), (8, 4)):
            refuse_where(own.vectors(field, width).counts != 0, lambda i: "an operator with settings of its own")
        refuse_where(own.scalars(11, "u1") != 0, lambda i: "an operator of StableHLO, which no client runs")

    def _indices(
        self, lists: Vectors, what: str, graphs: object = None, *, optional: bool = False
    ) -> Tuple[Vectors, np.ndarray]:
        """The vectors, and of each item the index in ``tensor_of``, -1 for an input that is left out."""
        values, owners = lists.values("i4"), lists.owners
        graph = owners if graphs is None else np.asarray(graphs)[owners]
        count = (self.first[1:] - self.first[:-1])[graph]
        wrong = (values < (-1 if optional else 0)) | (values >= count)
        refuse_where(
            wrong, lambda i: f"{what} of subgraph {graph[i]} names tensor {values[i]}, where there are {count[i]}"
        )
        return lists, np.where(values < 0, -1, values + self.first[graph])

    def _metadata(self, root: Tables) -> None:
        buffers = len(self.buffer_bytes)
        indices = root.vectors(5, 4).values("i4")
        refuse_where((indices < 0) | (indices >= buffers), lambda i: "metadata of a buffer that is not there")
        tables, _ = root.vectors(6, 4).tables()
        own, names = tables.scalars(1, "u4"), tables.vectors(0, 1).texts()
        refuse_where(own >= buffers, lambda i: "metadata of a buffer that is not there")
        for name, buffer in zip(names, own.tolist()):
            if name == b"model_control_dependencies" or (
                name == b"min_runtime_version" and not self.buffer_bytes[buffer]
            ):
                raise BundleError(f"metadata {name.decode('ascii')}, which no classifier needs")

    def _signatures(self, lists: Vectors) -> None:
        tables, which = lists.tables()
        self.signature_tables = tables = Tables(self.data, tables.places[which])  # in the file's order
        graph, self.signatures = tables.scalars(4, "u4"), tables.vectors(2, 1).texts()
        count = len(self.first) - 1
        refuse_where(graph >= count, lambda i: f"a signature of subgraph {graph[i]}, where there are {count}")
        check_texts(self.signatures, "signatures")
        if len(set(self.signatures)) != len(self.signatures):
            raise BundleError("two signatures of one name")
        self.signature_tensors: List[List[Tuple[str, ...]]] = []  # names of the inputs of each, and of the outputs
        for field in (0, 1):
            maps = tables.vectors(field, 4)
            entries, which = maps.tables()
            texts, tensor = entries.vectors(0, 1).texts(), entries.scalars(1, "u4")[which]
            check_texts(texts, "inputs or outputs")
            names = [text.decode("utf-8") for text in texts]
            own = graph[maps.owners]
            # Files are about whose signature names what lies behind the first operator: that does no harm.
            wrong = tensor >= (self.first[1:] - self.first[:-1])[own]
            refuse_where(wrong, lambda i, tensor=tensor: f"a signature of tensor {tensor[i]}, which is not there")  # type: ignore[misc]
            if not field:
                constant = self.tensors.constant[self.tensor_of[self.first[own] + tensor]]
                refuse_where(constant, lambda i: "a signature whose input is constant")
            ends = [0, *maps.ends.tolist()]
            own_names = [tuple(names[j] for j in which[a:b].tolist()) for a, b in zip(ends, ends[1:])]
            if any(len(set(found)) != len(found) for found in own_names if len(found) > 1):
                raise BundleError("two inputs or outputs of one name")
            self.signature_tensors.append(own_names)


def check_texts(texts: Sequence[bytes], what: str) -> None:
    """Interpreters hand them out as text."""
    try:
        b"\n".join(texts).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{what} with a name that is no UTF-8") from error
