"""``builder score``: a finished file on an archive."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from builder.support.errors import ConfigError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="A folder, a glob, a .parquet or .csv file, or s3:// and gs:// addresses.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of Parquet files to write.")
@click.option("--column", help="Column of a table: texts, or pictures as bytes or paths.")
@click.option("--head", "heads", multiple=True, metavar="NAME", help="Only this head; repeat for more. [default: all]")
@click.option("--joint", is_flag=True, help="The joint list too.")
@click.option("--features", is_flag=True, help="What the backbone makes of each sample too.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run stopped.")
@click.option("--jobs", type=click.IntRange(1), help="Workers. [default: one for each processor]")
@click.option("--address", help="A Ray cluster; without it Ray is started on this machine.")
def score(
    file: Path,
    data: str,
    output: Path,
    column: str | None,
    heads: tuple[str, ...],
    joint: bool,
    features: bool,
    resume: bool,
    jobs: int | None,
    address: str | None,
) -> None:
    """Run the finished FILE on every picture or text of an archive; the answers become Parquet.

    Rows are the device's own answers. What cannot be read has an error instead. Needs the extra `cluster`.
    """
    _check_installed()
    from builder.scoring.rows import wanted_of
    from builder.scoring.run import score as run

    shown = _Progress()
    done = run(
        file, data, output, wanted_of(file, heads, joint=joint, features=features), column=column, resume=resume,
        jobs=jobs, address=address, advance=shown,
    )  # fmt: skip
    shown.end()
    before = f", {done.before:,} of them by an earlier run" if done.before else ""
    broken = f"; {done.failed:,} could not be read, the column error says why" if done.failed else ""
    click.echo(f"{done.output}: {done.samples:,} rows{before}{broken}; {done.seconds:.1f} s")


def _check_installed() -> None:
    try:
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"score needs Ray and pyarrow, found no {error.name}: pip install 'polyhead[cluster]'"
        ) from error


class _Progress:
    """How many are done, how many a second, and how long the rest takes: one line that moves on a terminal, else one a
    minute.
    """

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._every = 0.5 if self._moving else 60.0
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int, total: int, now: int) -> None:
        moment = time.monotonic()
        if moment - self._shown < self._every or not now:
            return
        self._shown = moment
        rate = now / max(moment - self._start, 1e-9)
        left = int((total - done) / rate)
        line = f"{done:,} of {total:,}, {rate:,.0f} a second, {left // 3600}:{left % 3600 // 60:02}:{left % 60:02} left"
        click.echo(f"\r{line}    " if self._moving else line, err=True, nl=not self._moving)

    def end(self) -> None:
        """Leave the moving line."""
        if self._moving:
            click.echo("\r" + " " * 60 + "\r", err=True, nl=False)
