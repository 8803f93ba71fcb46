"""``benchmark`` and ``features``: the time that a file takes on this device, and the features of its backbone."""

from __future__ import annotations

import json
from typing import Optional, Sequence

import click

from edge_runtime.benchmark import benchmark as run_benchmark
from edge_runtime.counting import count_of
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError
from edge_runtime.escape import printable
from edge_runtime.folders import expanded
from edge_runtime.options import (
    file_argument,
    interpreter_option,
    isolate_option,
    json_option,
    threads_option,
    trusted_key_option,
)


@click.command()
@file_argument
@click.argument("pictures", metavar="PICTURE|FOLDER...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE.npz|FILE.parquet", required=True, type=click.Path(dir_okay=False))
@interpreter_option
@threads_option
@isolate_option
@trusted_key_option
def features(
    file: str,
    pictures: Sequence[str],
    output: str,
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> None:
    """Write the backbone's features of pictures to one file.

    They serve to train or to evaluate heads, or to search.
    An .npz file holds arrays and is made in memory; a .parquet file is written block by block and needs pyarrow.
    A picture that cannot be read is reported, skipped and counted; the exit code is then 2.
    """
    from edge_runtime.feature_file import check_output, write_features

    check_output(output)
    paths, broken = list(expanded(pictures)), 0

    def leave_out(error: PictureError) -> None:
        nonlocal broken
        broken += 1
        click.echo(printable(f"error: {error}"), err=True)

    with MultiHeadClassifier(
        file, interpreter=interpreter, num_threads=threads, head_packs=(), isolate=isolate, trusted_key=trusted_key
    ) as classifier:
        count = write_features(classifier, paths, output, leave_out)
    click.echo(
        printable(f"{output}: features of {count_of(count, 'pictures')}" + (f", {broken} left out" if broken else ""))
    )
    click.get_current_context().exit(2 if broken else 0)


@click.command()
@file_argument
@click.option("--runs", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--profile", is_flag=True, help="Each step of a camera's frame.")
@click.option("--operators", is_flag=True, help="Each kind of operator; FILE is what builder probe wrote.")
@json_option
@interpreter_option
@threads_option
@isolate_option
@trusted_key_option
def benchmark(
    file: str,
    runs: int,
    profile: bool,
    operators: bool,
    as_json: bool,
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> None:
    """Measure the time of each part of a classification."""
    options = {"interpreter": interpreter, "num_threads": threads, "isolate": isolate, "trusted_key": trusted_key}
    if operators:
        from edge_runtime import probe

        if isolate or trusted_key:
            raise EdgeRuntimeError("--operators runs a probe, which nobody signs; leave --isolate and --trusted-key out")
        found = probe.operator_times(file, runs=runs, interpreter=interpreter, num_threads=threads)
        lines = [json.dumps(found)] if as_json else probe.times_lines(file, found)
        click.echo("\n".join(map(printable, lines)))
        return
    if profile:
        from edge_runtime import profiling

        steps = profiling.profile(file, runs=runs, **options)
        click.echo(json.dumps(steps) if as_json else profiling.text(file, steps))
        return
    document = run_benchmark(file, runs=runs, **options)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(
        f"{printable(file)}: {count_of(document['heads'], 'heads')}, {document['interpreter']}, {count_of(runs, 'runs')}"
    )
    click.echo(f"open to first answer  {document['open_to_first_answer_ms']:9.2f} ms")
    for name, ms in document["latency_ms"].items():
        click.echo(f"{name.replace('_', ' '):20s}  {ms['median']:9.3f} ms  ({ms['p5']:.3f} to {ms['p95']:.3f})")
