"""The folder of a result: ``score.json`` (what was asked for), ``plan/``, and one Parquet file for each block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from builder.support.errors import ConfigError
from builder.support.files import write_text
from edge_runtime.errors import reason
from edge_runtime.files import DRAFT, whole_file

REQUEST, PLAN = "score.json", "plan"
_PART = "part-{:08d}.parquet"


def open_output(output: Path, request: Mapping[str, Any], *, resume: bool) -> bool:
    """Make ``output`` ready, or find it as an earlier run left it.

    Args:
        output: A folder; it may be missing.
        request: What decides the rows. It must be the same when a run goes on.
        resume: Go on where an earlier run stopped.

    Returns:
        Whether its plan is whole, since ``score.json`` is written behind it.

    Raises:
        ConfigError: Something is there and ``resume`` is not asked for, or what is there was asked for otherwise.
    """
    stored = _stored(output / REQUEST)
    if stored is None:
        strangers = [] if not output.exists() else [item.name for item in output.iterdir() if item.name != PLAN]
        if strangers:
            raise ConfigError(f"{output}: expected a folder that is not there or empty, found {strangers[0]} in it")
        return False
    if not resume:
        raise ConfigError(f"{output}: holds an earlier result; add --resume to go on with it, or choose another folder")
    other = next((key for key in request if stored.get(key) != request[key]), None)
    if other is not None:
        raise ConfigError(
            f"{output}: was begun with {other} {stored.get(other)!r:.200}, now {request[other]!r:.200}; a result is of "
            "one request, choose another folder"
        )
    return True


def begin(output: Path, request: Mapping[str, Any], samples: int) -> None:
    """Write ``score.json``: from now on the plan is whole."""
    write_text(output / REQUEST, json.dumps({**request, "samples": samples}, indent=2, ensure_ascii=False) + "\n")


def written_blocks(output: Path) -> set[int]:
    """The numbers of the blocks that are there. Removes what a worker that died left behind."""
    found = set()
    for item in output.iterdir():
        if item.name.startswith(DRAFT):
            item.unlink(missing_ok=True)
        elif item.name.startswith("part-"):
            found.add(int(item.stem.removeprefix("part-")))
    return found


def part(output: Path, block: int) -> Path:
    """Where the rows of a block are."""
    return output / _PART.format(block)


def write_part(output: Path, block: int, table: pa.Table) -> None:
    """Whole or not at all, also where two workers write the same block: both write the same bytes."""
    with whole_file(part(output, block)) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected the request of an earlier run, found {reason(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected the request of an earlier run as a table, found {found!r:.60}")
    return found
