"""Score a source on Ray: read this first.

The plan assigns samples to blocks. Ray Data passes the numbers of missing blocks to actors. An actor opens the file once,
scores a block on one thread, and writes it atomically under the block's name. So an existing block is complete, the block
of a killed worker is scored again, and no row is lost or repeated.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.scoring import output as results
from builder.scoring.plan import BLOCK, blocks_of, read_block, write_plan
from builder.scoring.rows import Scorer, Wanted
from builder.scoring.samples import planned
from builder.support.errors import SamplesError
from builder.support.side_by_side import cluster
from edge_runtime.bundle import read_metadata
from edge_runtime.identity import file_digest
from edge_runtime.text import TextInput

_MOST_TASKS = 4096  # of Ray Data; each scores the same number of blocks, one after the other


@dataclass(frozen=True)
class Scored:
    """The result of a run.

    Attributes:
        output: The folder.
        samples: Number of rows in it.
        before: Number of rows that an earlier run had written.
        failed: Number of rows of this run with an error instead of answers.
        seconds: Wall time of this run's scoring.
    """

    output: Path
    samples: int
    before: int
    failed: int
    seconds: float


def score(
    file: Path,
    data: str,
    output: Path,
    wanted: Wanted,
    *,
    column: str | None = None,
    resume: bool = False,
    jobs: int | None = None,
    address: str | None = None,
    block: int = BLOCK,
    advance: Callable[[int, int, int], None] = lambda done, total, now: None,
) -> Scored:
    """Run ``file`` on every sample of ``data``, with results as Parquet in ``output``.

    Args:
        file: A finished file. On a cluster every worker must see it, ``data`` and ``output`` under the same paths.
        data: See ``samples.planned``.
        output: A folder; see ``output.py``.
        wanted: The columns; see ``rows.schema_of``.
        column: The column of a table with the samples.
        resume: Continue an earlier run in ``output``.
        jobs: Number of workers; None: one for each processor of the cluster.
        address: Address of a Ray cluster; None starts Ray on this machine and ends it afterwards.
        block: Samples that are scored and written together.
        advance: Called with the number of samples done, their total, and the number done by this run.

    Raises:
        SamplesError: Nothing to score was found.
        ConfigError: ``output`` holds something else.
        BundleError: ``file`` is not a finished file.
    """
    texts = isinstance(read_metadata(os.fspath(file)).input, TextInput)
    request = {
        "file": file_digest(os.fspath(file)), "data": data, "column": column, "heads": list(wanted.heads),
        "joint": wanted.joint, "features": wanted.features, "block": block,
    }  # fmt: skip
    plan = output / results.PLAN
    if not results.open_output(output, request, resume=resume):
        samples = write_plan(plan, planned(data, texts=texts, column=column), block=block)
        if samples == 0:
            raise SamplesError(f"{data}: expected {'texts' if texts else 'pictures'}, found none")
        results.begin(output, request, samples)
    sizes = blocks_of(plan)
    there = results.written_blocks(output)
    left = [number for number in range(len(sizes)) if number not in there]
    total, before = sum(sizes), sum(sizes[number] for number in there)
    failed, now, start = 0, 0, time.perf_counter()
    settings = {"file": os.fspath(file.absolute()), "output": output.absolute(), "wanted": wanted, "column": column}
    for done in _on_ray(left, settings, jobs, address) if left else ():
        now, failed = now + done["samples"], failed + done["failed"]
        advance(before + now, total, now)
    return Scored(output, total, before, failed, time.perf_counter() - start)


class Worker:
    """What an actor of Ray Data runs: a batch of block numbers in, their counts out."""

    def __init__(self, file: str, output: Path, wanted: Wanted, column: str | None) -> None:
        self._scorer, self._output = Scorer(file, wanted, column), output

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = [self._score(int(number)) for number in batch["id"]]
        return {"samples": [samples for samples, _ in counts], "failed": [failed for _, failed in counts]}

    def _score(self, block: int) -> tuple[int, int]:
        samples = read_block(self._output / results.PLAN, block)
        table = self._scorer.table(samples)
        results.write_part(self._output, block, table)
        return len(samples), len(samples) - table.column("error").null_count


def _on_ray(
    blocks: list[int], settings: dict[str, Any], jobs: int | None, address: str | None
) -> Iterator[dict[str, Any]]:
    """The counts of each block, as it finishes."""
    import ray

    with cluster(jobs=jobs, address=address):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = min(jobs or int(ray.cluster_resources().get("CPU", 1)), len(blocks))
        items = [{"id": number} for number in blocks]
        dataset = ray.data.from_items(items, override_num_blocks=min(len(blocks), _MOST_TASKS))
        counted = dataset.map_batches(
            Worker, fn_constructor_kwargs=settings, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )  # fmt: skip
        yield from counted.iter_rows()
