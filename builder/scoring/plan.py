"""The plan: all samples to be scored, in blocks, as Parquet. It is written once; a resumed run reads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from builder.scoring.samples import Planned
from builder.support.files import written

BLOCK = 256  # samples that are scored and written together
_BLOCKS_PER_FILE = 1024
_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("text", pa.binary()),
        ("table", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int64()),
    ]
)


def write_plan(folder: Path, samples: Iterable[Planned], *, block: int = BLOCK) -> int:
    """Write the plan to ``folder``; a block is a row group.

    Returns:
        The number of samples.
    """
    total, source = 0, iter(samples)
    for number in itertools.count():
        groups = itertools.islice(_groups(source, block), _BLOCKS_PER_FILE)
        first = next(groups, None)
        if first is None:
            return total
        with written(folder / f"{number:06d}.parquet") as draft, pyarrow.parquet.ParquetWriter(draft, _SCHEMA) as writer:
            for group in itertools.chain([first], groups):
                writer.write_table(_table(group))
                total += len(group)
    raise AssertionError("count() ended")


def blocks_of(folder: Path) -> list[int]:
    """The number of samples in each block of the plan, in order."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        metadata = pyarrow.parquet.read_metadata(path)
        found += [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return found


def read_block(folder: Path, block: int) -> list[Planned]:
    """The samples of one block."""
    number, group = divmod(block, _BLOCKS_PER_FILE)
    with pyarrow.parquet.ParquetFile(folder / f"{number:06d}.parquet") as file:
        return [Planned(**row) for row in file.read_row_group(group).to_pylist()]


def _groups(source: Iterator[Planned], block: int) -> Iterator[list[Planned]]:
    while group := list(itertools.islice(source, block)):
        yield group


def _table(group: list[Planned]) -> pa.Table:
    return pa.table(
        {
            "source": pa.array([sample.source for sample in group], pa.string()),
            "text": pa.array([sample.text for sample in group], pa.binary()),
            "table": pa.array([sample.table for sample in group], pa.string()).dictionary_encode(),
            "row": pa.array([sample.row for sample in group], pa.int64()),
        },
        schema=None,
    ).cast(_SCHEMA)
