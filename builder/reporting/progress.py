"""Progress on a terminal, silence in a pipe, and how long each stage took."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Stages:
    """Used once for a build: ``with stages("load", 3) as advance: ...``.

    ``terminal``: None shows nothing. ``seconds``: wall time of each stage so far, all precisions together.
    """

    def __init__(self, terminal: TextIO | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=terminal or io.StringIO()),
            transient=True,
            disable=terminal is None,
        )
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str, total: int = 1) -> Iterator[Callable[[], None]]:
        start = time.perf_counter()
        with self._progress if not self._progress.live.is_started else contextlib.nullcontext():
            task = self._progress.add_task(name, total=total)
            yield lambda: self._progress.advance(task)
            self._progress.update(task, completed=total)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
