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
    """Prepare ``output``, or continue that of an earlier run.

    Args:
        output: A folder; it may be missing.
        request: The settings that decide the rows. They must be the same when a run is resumed.
        resume: Continue where an earlier run stopped.

    Returns:
        Whether its plan is complete: ``score.json`` is written after it.

    Raises:
        ConfigError: The folder is not empty and ``resume`` is off, or the earlier run had another request.
    """
    stored = _stored(output / REQUEST)
    if stored is None:
        strangers = [] if not output.exists() else [item.name for item in output.iterdir() if item.name != PLAN]
        if strangers:
            raise ConfigError(f"{output}: expected a new or empty folder, found {strangers[0]} in it")
        return False
    if not resume:
        raise ConfigError(f"{output}: holds an earlier result; add --resume to continue it, or choose another folder")
    other = next((key for key in request if stored.get(key) != request[key]), None)
    if other is not None:
        raise ConfigError(
            f"{output}: was begun with {other} {stored.get(other)!r:.200}, now {request[other]!r:.200}; a result has one "
            "request: choose another folder"
        )
    return True


def begin(output: Path, request: Mapping[str, Any], samples: int) -> None:
    """Write ``score.json``, which marks the plan as complete."""
    write_text(output / REQUEST, json.dumps({**request, "samples": samples}, indent=2, ensure_ascii=False) + "\n")


def written_blocks(output: Path) -> set[int]:
    """The numbers of the finished blocks. Removes remains of workers that died."""
    found = set()
    for item in output.iterdir():
        if item.name.startswith(DRAFT):
            item.unlink(missing_ok=True)
        elif item.name.startswith("part-"):
            found.add(int(item.stem.removeprefix("part-")))
    return found


def part(output: Path, block: int) -> Path:
    """The file with the rows of a block."""
    return output / _PART.format(block)


def write_part(output: Path, block: int, table: pa.Table) -> None:
    """Write a block atomically; two workers that write the same block write the same bytes."""
    with whole_file(part(output, block), shared=True) as file:
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
