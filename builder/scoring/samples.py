"""Samples to be scored, one ``Planned`` after the other: files of a folder or glob, lines of texts, rows of a table."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from builder.support.errors import SamplesError
from edge_runtime.errors import said
from edge_runtime.preprocess import PICTURE_SUFFIXES

TABLE_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Planned:
    """One sample that is to be scored.

    Attributes:
        source: Its name in the result: a path, ``FILE:LINE`` of a text, or ``FILE#ROW`` of a table.
        text: The text itself, unless it is in a Parquet file; None for a picture.
        table: The Parquet file with the sample; None for a file or a text.
        row: Its row there, from 0.
        label: Its label from a column of the table; None unless requested.
    """

    source: str
    text: bytes | None = None
    table: str | None = None
    row: int | None = None
    label: str | None = None


def file_system(place: str) -> tuple[Any, str]:
    """The pyarrow file system of a path or an address such as ``s3://bucket/folder``, and the path in it.

    Raises ``SamplesError`` for a kind of address that pyarrow does not support, and ``ModuleNotFoundError``.
    """
    if "://" not in place:
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), place
    root, below = _split(place)
    system, base = _system(root)
    return system, base.rstrip("/") + below


def _split(address: str) -> tuple[str, str]:
    """Split into ``s3://bucket`` and ``/folder``: file names may contain characters that addresses may not."""
    scheme, _, rest = address.partition("://")
    authority = rest.partition("/")[0]
    return f"{scheme}://{authority}", rest[len(authority) :]


@lru_cache
def _system(root: str) -> tuple[Any, str]:
    """The file system of an address; cached, since opening one queries a server."""
    import pyarrow as pa
    import pyarrow.fs

    try:
        found: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(f"{root}/")
    except (pa.ArrowInvalid, OSError) as error:
        raise SamplesError(f"{root}: expected a path, or an address such as s3://bucket/folder; {said(error)}") from error
    return found


def planned(
    place: str, *, texts: bool, column: str | None = None, labels: str | None = None, tables: bool = True
) -> Iterator[Planned]:
    """Every sample of a folder, a glob, a file, or a column of a table, in a fixed order.

    Args:
        place: A path, a glob, or an address that pyarrow knows (``s3://``, ``gs://``).
        texts: Whether the file takes texts; then ``.txt`` files are read, one text in each line.
        column: The column of a Parquet or CSV file with texts, or with pictures as bytes or paths.
        labels: The column of such a file with labels.
        tables: Whether to read such files in a folder; otherwise they are ignored.

    Raises:
        SamplesError: Nothing is there, or a table has no such column.
    """
    for name in _files(place, texts, tables):
        if name.lower().endswith(".parquet"):
            yield from _parquet_rows(name, column, labels)
        elif name.lower().endswith(".csv"):
            yield from _csv_rows(name, column, labels, texts)
        elif texts:
            yield from _lines(name)
        else:
            yield Planned(name)


def _files(place: str, texts: bool, tables: bool) -> Iterator[str]:
    wanted = (*(TABLE_SUFFIXES if tables else ()), *((".txt",) if texts else PICTURE_SUFFIXES))
    if "://" in place:
        return _remote_files(place, wanted)
    if Path(place).is_dir():
        return _folder(place, wanted)
    found = [place] if Path(place).is_file() else sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - also absolute
    if not found:
        raise SamplesError(f"{place}: expected a folder, a file or a glob that finds files; found nothing")
    return (name for name in found if Path(name).is_file())


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return base.lower().endswith(suffixes) and not base.startswith("._")  # files that macOS creates


def _folder(place: str, wanted: tuple[str, ...]) -> Iterator[str]:
    """List one folder after the other, so that millions of names are never in memory at once."""
    for folder, folders, names in os.walk(place):
        folders.sort()
        yield from (str(Path(folder, name)) for name in sorted(names) if _ends(name, wanted))


def _remote_files(place: str, wanted: tuple[str, ...]) -> Iterator[str]:
    import pyarrow.fs

    system, path = file_system(place)
    root = _split(place)[0]
    base = _system(root)[1].rstrip("/")
    info = system.get_file_info(path)
    if info.type == pyarrow.fs.FileType.NotFound:
        raise SamplesError(f"{place}: expected a folder or a file, found nothing")
    found = [info]
    if info.type == pyarrow.fs.FileType.Directory:
        found = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    names = sorted(item.path for item in found if item.is_file)
    return (f"{root}{name[len(base) :]}" for name in names if _ends(name, wanted))


def _lines(name: str) -> Iterator[Planned]:
    with Path(name).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Planned(f"{name}:{number}", text=line.rstrip(b"\r\n"))


def _parquet_rows(name: str, column: str | None, labels: str | None) -> Iterator[Planned]:
    import pyarrow.parquet

    system, path = file_system(name)
    with pyarrow.parquet.ParquetFile(path, filesystem=system) as table:
        _check_columns(name, table.schema_arrow.names, column, labels)
        if labels is None:
            yield from (Planned(f"{name}#{row}", table=name, row=row) for row in range(table.metadata.num_rows))
            return
        batches = table.iter_batches(columns=[labels])
        for row, value in enumerate(value for batch in batches for value in batch.column(0)):
            yield Planned(f"{name}#{row}", table=name, row=row, label=_string(value.as_py()))


def _csv_rows(name: str, column: str | None, labels: str | None, texts: bool) -> Iterator[Planned]:
    import pyarrow as pa
    import pyarrow.csv

    system, path = file_system(name)
    with system.open_input_stream(path) as stream, pyarrow.csv.open_csv(stream) as reader:
        _check_columns(name, reader.schema.names, column, labels)
        row = 0
        for batch in reader:
            values, said = (batch.column(c).cast(pa.string()).to_pylist() if c else () for c in (column, labels))
            for text, label in itertools.zip_longest(map(_string, values), map(_string, said)):
                yield Planned(f"{name}#{row}", text=text.encode(), label=label) if texts else Planned(text, label=label)
                row += 1


def _string(value: Any) -> str:
    return "" if value is None else str(value)


def _check_columns(name: str, names: list[str], column: str | None, labels: str | None) -> None:
    if column not in names:
        found = "none was given" if column is None else f"found no {column!r}"
        raise SamplesError(f"{name}: expected --column with one of {', '.join(names[:20])}; {found}")
    if labels is not None and labels not in names:
        raise SamplesError(f"{name}: expected --labels with one of {', '.join(names[:20])}; found no {labels!r}")
