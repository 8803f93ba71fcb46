"""Progress: one bar on a terminal, a line for each stage in a pipe, and the time that each stage took."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# The words that a user reads; a stage that is missing here is shown by its own name.
WORDS = {
    "read": "reading the models",
    "samples": "reading the samples",
    "find": "finding what the models share",
    "merge": "merging the models",
    "convert": "converting to TensorFlow Lite",
    "equalize": "preparing the float network",
    "calibrate": "measuring activation ranges",
    "compare": "comparing calibration and verification samples",
    "originals": "running the original models",
    "quantize": "quantizing",
    "noise": "measuring the noise of each operator",
    "plan": "choosing the operators that stay in float",
    "round": "learning how to round the weights",
    "joint": "fitting the joint list",
    "link": "writing the file",
    "verify": "verifying the finished file",
    "serve": "writing the SavedModel",
    "features": "computing features",
    "train": "training",
}


class Stages:
    """The stages of one build: ``with stages("read", 3) as advance: ...``.

    ``seconds``: wall time of each stage so far, summed over all precisions. ``precision``: the precision to which the
    next stages belong; empty where they belong to all.
    """

    def __init__(self, stream: TextIO | None, *, verbose: bool = False) -> None:
        """``stream``: a terminal gets a bar, anything else a line for each stage; None shows nothing. ``verbose``: a
        terminal gets the lines too, and each line has the time that its stage took.
        """
        terminal = stream is not None and stream.isatty()
        self._lines = stream if not terminal else None
        self._verbose, self._inside = verbose, False
        self._task: TaskID | None = None
        self.precision = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream if terminal else io.StringIO()),
            transient=True,
            disable=not terminal,
            # Otherwise rich shows what libraries print above the bar, although ``quiet`` holds it back.
            redirect_stdout=verbose,
            redirect_stderr=verbose,
        )
        self._terminal = terminal
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str, total: int = 1) -> Iterator[Callable[[], None]]:
        before = f"{self.precision}: " if self.precision else ""
        words, start = f"{before}{WORDS.get(name, name)}", time.perf_counter()
        if not self._verbose:
            self._say(words)
        outermost, self._inside = not self._inside, True
        try:
            with self._progress if outermost else contextlib.nullcontext():
                yield self._begun(words, total) if outermost else lambda: None
        finally:
            self._inside = not outermost
        seconds = time.perf_counter() - start
        if self._verbose:
            self._say(f"{words}: {seconds:.1f} s")
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _begun(self, words: str, total: int) -> Callable[[], None]:
        """Start the bar of an outermost stage. Returns the function that advances it."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        task = self._progress.add_task(words, total=total)
        self._task = task
        return lambda: self._progress.advance(task)

    def _say(self, line: str) -> None:
        if self._lines is not None:
            print(line, file=self._lines, flush=True)
        elif self._terminal and self._verbose:
            self._progress.console.print(line, markup=False, highlight=False)
