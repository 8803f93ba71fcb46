"""What is to be scored, one ``Planned`` after the other: files of a folder or a glob, lines of texts, rows of a table."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet

from builder.support.errors import SamplesError
from edge_runtime.preprocess import PICTURE_SUFFIXES

TABLE_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Planned:
    """One sample that is to be scored.

    Attributes:
        source: What the row of the result is called: a path, ``FILE:LINE`` of a text, or ``FILE#ROW`` of a table.
        text: The text itself, where the source is no Parquet file; None for a picture.
        table: The Parquet file that holds the sample; None where it is a file or a text.
        row: Its row there, from 0.
    """

    source: str
    text: bytes | None = None
    table: str | None = None
    row: int | None = None


def file_system(place: str) -> tuple[Any, str]:
    """The pyarrow file system of a path or an address such as ``s3://bucket/folder``, and the path in it.

    Raises ``SamplesError`` for an address of a kind that pyarrow does not know.
    """
    if "://" not in place:
        return pyarrow.fs.LocalFileSystem(), place
    try:
        found: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(place)
    except (pa.ArrowInvalid, OSError) as error:
        raise SamplesError(f"{place}: expected a path, or an address such as s3://bucket/folder; {error}") from error
    return found


def planned(place: str, *, texts: bool, column: str | None = None) -> Iterator[Planned]:
    """Every sample of a folder, a glob, a file, or a column of a table, in an order that does not change.

    Args:
        place: A path, a glob, or an address that pyarrow knows (``s3://``, ``gs://``).
        texts: Whether the file takes texts; then ``.txt`` files are read, a text a line.
        column: Of a Parquet or CSV file: texts, or pictures as bytes or as paths.

    Raises:
        SamplesError: Nothing is there, or a table has no such column.
    """
    for name in _files(place, texts):
        if name.lower().endswith(".parquet"):
            yield from _parquet_rows(name, column)
        elif name.lower().endswith(".csv"):
            yield from _csv_rows(name, column, texts)
        elif texts:
            yield from _lines(name)
        else:
            yield Planned(name)


def _files(place: str, texts: bool) -> Iterator[str]:
    if "://" in place:
        return _remote_files(place, texts)
    if Path(place).is_dir():
        return _folder(place, texts)
    found = [place] if Path(place).is_file() else sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - also absolute
    if not found:
        raise SamplesError(f"{place}: expected a folder, a file or a glob that finds files; found nothing")
    return (name for name in found if Path(name).is_file())


def _wanted(name: str, texts: bool) -> bool:
    suffixes = (*TABLE_SUFFIXES, *((".txt",) if texts else PICTURE_SUFFIXES))
    base = name.rsplit("/", 1)[-1]
    return base.lower().endswith(suffixes) and not base.startswith("._")


def _folder(place: str, texts: bool) -> Iterator[str]:
    """One folder after the other, so that a listing of millions is never held whole."""
    for folder, folders, names in os.walk(place):
        folders.sort()
        yield from (str(Path(folder, name)) for name in sorted(names) if _wanted(name, texts))


def _remote_files(place: str, texts: bool) -> Iterator[str]:
    system, path = file_system(place)
    scheme = place.split("://", 1)[0]
    info = system.get_file_info(path)
    if info.type == pyarrow.fs.FileType.NotFound:
        raise SamplesError(f"{place}: expected a folder or a file, found nothing")
    found = [info]
    if info.type == pyarrow.fs.FileType.Directory:
        found = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    names = sorted(item.path for item in found if item.is_file)
    return (f"{scheme}://{name}" for name in names if _wanted(name, texts))


def _lines(name: str) -> Iterator[Planned]:
    with Path(name).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Planned(f"{name}:{number}", text=line.rstrip(b"\r\n"))


def _parquet_rows(name: str, column: str | None) -> Iterator[Planned]:
    system, path = file_system(name)
    with pyarrow.parquet.ParquetFile(path, filesystem=system) as table:
        _check_column(name, column, table.schema_arrow.names)
        for row in range(table.metadata.num_rows):
            yield Planned(f"{name}#{row}", table=name, row=row)


def _csv_rows(name: str, column: str | None, texts: bool) -> Iterator[Planned]:
    system, path = file_system(name)
    with system.open_input_stream(path) as stream, pyarrow.csv.open_csv(stream) as reader:
        _check_column(name, column, reader.schema.names)
        row = 0
        for batch in reader:
            for value in batch.column(column).cast(pa.string()).to_pylist():
                text = str(value or "")
                yield Planned(f"{name}#{row}", text=text.encode()) if texts else Planned(text)
                row += 1


def _check_column(name: str, column: str | None, names: list[str]) -> None:
    if column not in names:
        found = "none was given" if column is None else f"found no {column!r}"
        raise SamplesError(f"{name}: expected --column with one of {', '.join(names[:20])}; {found}")
