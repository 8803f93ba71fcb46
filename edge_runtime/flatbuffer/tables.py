"""Flatbuffers, many tables at once: positions go in as an array of byte offsets, values come out as an array.

Every read is checked against the length of the data. The format: https://flatbuffers.dev/internals. A table begins with
the distance back to its vtable, which holds its own length, the table's length, and for each field where in the table it
lies, 0 where it does not.
"""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

import numpy as np

from edge_runtime.errors import BundleError

_KINDS = {"u1": 1, "i1": 1, "u2": 2, "u4": 4, "i4": 4, "f4": 4, "i8": 8}  # little-endian, and bytes each
_SHIFT = {2: 1, 4: 2, 8: 3}
_Pieces = List[bytes]  # in ``Data`` the word is a method's


def refuse_where(wrong: Any, words: Callable[[int], str]) -> None:
    """Raises ``BundleError`` with ``words`` for the first index at which ``wrong`` holds."""
    if wrong.any():
        raise BundleError(words(int(np.argmax(wrong))))


class Data:
    """The bytes; no vector of them may have more than ``most`` items, nor may all vectors of one field together.

    ``structure``: (first bytes, ends) of the tables and vectors that were read.
    """

    def __init__(self, data: Any, most: int) -> None:
        raw = np.frombuffer(data, np.uint8)
        self.raw, self.size, self.most = raw.data, raw.size, most
        self.structure: List[Tuple[np.ndarray, np.ndarray]] = []
        self._views = {k: raw[: raw.size // w * w].view("<" + k) for k, w in _KINDS.items()}

    def read(self, kind: str, places: np.ndarray) -> np.ndarray:
        """The numbers of ``kind`` (as ``i4``) at ``places``, each aligned to its own size. Raises ``BundleError``."""
        width = _KINDS[kind]
        if width == 1:
            return self._take(kind, places)
        if (places & (width - 1)).any():
            raise BundleError("the model is damaged: a number is not aligned")
        return self._take(kind, places >> _SHIFT[width])

    def _take(self, kind: str, indices: np.ndarray) -> np.ndarray:
        """No index is negative: places only grow, but for those of vtables, which ``Tables`` looks at."""
        try:
            found: np.ndarray = self._views[kind][indices]
        except IndexError as error:
            raise BundleError("the model is damaged: an offset leads out of it") from error
        return found

    def follow(self, places: np.ndarray) -> np.ndarray:
        """Where the offsets at ``places`` lead."""
        return places + self.read("u4", places).astype(np.int64)

    def bytes(self, start: int, end: int) -> bytes:
        return bytes(self.raw[start:end])

    def pieces(self, starts: np.ndarray, sizes: np.ndarray) -> _Pieces:
        """Many of them at once."""
        blob, ends = self.read("u1", spread(starts, sizes)).tobytes(), np.cumsum(sizes).tolist()
        return [blob[a:b] for a, b in zip([0, *ends], ends)]


def spread(starts: np.ndarray, counts: np.ndarray, width: int = 1) -> np.ndarray:
    """Where the items of ``width`` bytes are, ``counts`` of them from each of ``starts`` on."""
    ends = np.cumsum(counts)
    first = np.repeat(starts - width * (ends - counts), counts)
    found: np.ndarray = first + width * np.arange(len(first))
    return found


class Tables:
    """Tables of one kind at ``places``, int64 (tables,)."""

    def __init__(self, data: Data, places: np.ndarray) -> None:
        self.data, self.places = data, places
        self.vtables = places - data.read("i4", places)
        refuse_where(self.vtables < 0, lambda i: "the model is damaged: an offset leads out of it")
        self._vtable_size = data.read("u2", self.vtables).astype(np.int64)
        self.sizes = data.read("u2", self.vtables + 2).astype(np.int64)
        wrong = (self._vtable_size < 4) | (self._vtable_size % 2 != 0) | (self.sizes < 4)
        wrong |= (self.vtables + self._vtable_size > data.size) | (places + self.sizes > data.size)
        refuse_where(wrong, lambda i: "the model is damaged: a table is not whole")
        data.structure += [(places, places + self.sizes), (self.vtables, self.vtables + self._vtable_size)]

    def __len__(self) -> int:
        return len(self.places)

    def field(self, number: int, width: int) -> Tuple[np.ndarray, np.ndarray]:
        """(indices of the tables that have it, where it lies in each)."""
        there = np.flatnonzero(self._vtable_size >= 6 + 2 * number)
        offsets = self.data.read("u2", self.vtables[there] + 4 + 2 * number).astype(np.int64)
        there, offsets = there[offsets != 0], offsets[offsets != 0]
        wrong = (offsets < 4) | (offsets + width > self.sizes[there])
        refuse_where(wrong, lambda i: "the model is damaged: a field lies outside its table")
        return there, self.places[there] + offsets

    def scalars(self, number: int, kind: str, default: int = 0) -> np.ndarray:
        """int64 (tables,), or float32."""
        found = np.full(len(self), default, np.float32 if kind == "f4" else np.int64)
        there, places = self.field(number, _KINDS[kind])
        found[there] = self.data.read(kind, places)
        return found

    def targets(self, number: int) -> np.ndarray:
        """Where the table, vector or string of a field lies; 0 where there is none."""
        found = np.zeros(len(self), np.int64)
        there, places = self.field(number, 4)
        found[there] = self.data.follow(places)
        return found

    def vectors(self, number: int, width: int) -> Vectors:
        return Vectors(self.data, self.targets(number), width)

    def tables(self, number: int) -> Tuple[Tables, np.ndarray]:
        """A field that holds one table: (those tables, the index of each one's owner)."""
        targets = self.targets(number)
        owners = np.flatnonzero(targets)
        return Tables(self.data, targets[owners]), owners


class Vectors:
    """Vectors at ``places``, 0 for none, of items of ``width`` bytes. ``counts``: of their items."""

    def __init__(self, data: Data, places: np.ndarray, width: int) -> None:
        self._data, self._width = data, width
        there = places != 0
        self.counts = np.zeros(len(places), np.int64)
        self.counts[there] = data.read("u4", places[there])
        self.starts = places + 4
        refuse_where(
            there & (self.starts + self.counts * width > data.size), lambda i: "the model is damaged: a list is not whole"
        )
        data.structure.append((places[there], (self.starts + self.counts * width)[there]))
        self.ends = np.cumsum(self.counts)  # of each among the items of all
        if width > 1 and self.total > data.most:
            raise BundleError(f"a list of {self.total:,} items, more than the {data.most:,} that are read")

    @property
    def total(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def owners(self) -> np.ndarray:
        """Of each item the index of its vector."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def values(self, kind: str) -> np.ndarray:
        """All items one behind the other."""
        found = self._data.read(kind, self._items())
        return found if kind == "f4" else found.astype(np.int64)

    def tables(self) -> Tuple[Tables, np.ndarray]:
        """Of a vector of tables: (each table once, which of them each item is)."""
        places = self._data.follow(self._items())
        order = np.argsort(places, kind="stable")
        new = np.diff(places[order], prepend=-1) != 0  # np.unique would import np.ma, which takes longer than all of this
        which = np.empty(len(places), np.int64)
        which[order] = np.cumsum(new) - 1
        return Tables(self._data, places[order[new]]), which

    def texts(self) -> _Pieces:
        """Of strings: their bytes."""
        return self._data.pieces(self.starts, self.counts)

    def _items(self) -> np.ndarray:
        return spread(self.starts, self.counts, self._width)
