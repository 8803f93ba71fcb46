"""The progress of a long run, on standard error."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import click


class Progress:
    """Samples done, samples a second and the time left: one line that is rewritten on a terminal, else a line a minute.

    Call it with (samples done, samples in all, samples done by this run).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._moving = self._stream.isatty()
        self._every = 0.5 if self._moving else 60.0
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int, total: int, now: int) -> None:
        moment = time.monotonic()
        if moment - self._shown < self._every or not now:
            return
        self._shown = moment
        rate = now / max(moment - self._start, 1e-9)
        left = int((total - done) / rate)
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        line = f"{done:,} of {total:,}, {speed} a second, {left // 3600}:{left % 3600 // 60:02}:{left % 60:02} left"
        click.echo(f"\r{line}    " if self._moving else line, file=self._stream, nl=not self._moving)

    def end(self) -> None:
        """Clear the line on a terminal."""
        if self._moving:
            click.echo("\r" + " " * 60 + "\r", file=self._stream, nl=False)
