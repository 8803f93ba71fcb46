"""Read the content of a planned sample: the bytes of a picture or of a text, from any place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.scoring.samples import Planned, file_system
from builder.support.errors import SamplesError
from edge_runtime.files import read_file

MAX_SAMPLE = 1 << 30  # bytes


class Contents:
    """Reads samples, fastest in the order of the plan: an earlier row of a table has to be searched again.

    ``texts``: whether a string is a text; otherwise it is the path or address of a picture. ``column``: of tables.
    """

    def __init__(self, *, texts: bool, column: str | None = None) -> None:
        self._texts, self._column = texts, column
        self._table, self._next = "", 0
        self._values: Iterator[Any] = iter(())

    def read(self, sample: Planned) -> bytes:
        """The bytes of a sample. Raises ``SamplesError`` that begins with its source."""
        if sample.text is not None:
            return sample.text
        try:
            if sample.table is None and "://" not in sample.source:
                return read_file(sample.source, MAX_SAMPLE)
            return self._elsewhere(sample)
        except OSError as error:
            raise SamplesError(f"{sample.source}: {error.strerror or error}") from error

    def _elsewhere(self, sample: Planned) -> bytes:
        import pyarrow

        try:
            found: Any = sample.source
            if sample.table is not None and sample.row is not None:
                found = self._value(sample.table, sample.row)
            if isinstance(found, str):
                return found.encode() if self._texts else _file(found)
        except (pyarrow.ArrowException, StopIteration) as error:
            raise SamplesError(f"{sample.source}: {' '.join(str(error).split()) or 'the row is gone'}") from error
        if not isinstance(found, bytes):
            raise SamplesError(f"{sample.source}: expected bytes or a string in {self._column}, found {found!r:.60}")
        return found

    def _value(self, table: str, row: int) -> Any:
        """A string or bytes; of a picture as the datasets library stores it (``bytes`` and ``path``), its bytes."""
        if table != self._table or row < self._next:
            self._open(table, row)
        for _ in range(row - self._next):
            next(self._values)
        self._next = row + 1
        found = next(self._values).as_py()
        return found["bytes"] if isinstance(found, dict) and "bytes" in found else found

    def _open(self, name: str, row: int) -> None:
        """Open a table at the row group of ``row``."""
        import pyarrow.parquet

        system, path = file_system(name)
        file = pyarrow.parquet.ParquetFile(path, filesystem=system)
        group, first = 0, 0
        while row >= first + file.metadata.row_group(group).num_rows:
            first += file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.metadata.num_row_groups))
        batches = file.iter_batches(batch_size=64, row_groups=groups, columns=[self._column])
        self._table, self._next = name, first
        self._values = (value for batch in batches for value in batch.column(0))


def _file(name: str) -> bytes:
    if "://" not in name:
        return read_file(name, MAX_SAMPLE)
    system, path = file_system(name)
    with system.open_input_stream(path) as stream:
        found: bytes = stream.read()
    return found
