"""A result that ``builder score`` wrote, read a block at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from builder.scoring.output import PLAN, REQUEST, part
from builder.scoring.plan import blocks_of
from builder.support.errors import ConfigError
from edge_runtime.counting import count_of


@dataclass(frozen=True)
class Result:
    """A complete folder of scores.

    Attributes:
        folder: Its path.
        request: The settings of the run; see ``run.score``.
        blocks: Its number of blocks.
    """

    folder: Path
    request: dict[str, Any]
    blocks: int

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(self.request["heads"])

    @property
    def schema(self) -> pa.Schema:
        return pyarrow.parquet.read_schema(part(self.folder, 0))

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the blocks, in the order of the plan."""
        for block in range(self.blocks):
            yield pyarrow.parquet.read_table(part(self.folder, block), columns=columns)


def open_result(folder: Path) -> Result:
    """Open a result. Raises ``ConfigError`` where ``folder`` has none, or an incomplete one."""
    try:
        request = json.loads((folder / REQUEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: expected a folder from builder score, found no {REQUEST} in it") from error
    blocks = len(blocks_of(folder / PLAN))
    missing = sum(not part(folder, block).is_file() for block in range(blocks))
    if missing:
        raise ConfigError(
            f"{folder}: {count_of(missing, 'blocks')} of {blocks:,} missing; continue with builder score --resume"
        )
    return Result(folder, request, blocks)
