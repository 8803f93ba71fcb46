"""One process for each framework, kept for the next job: to start TensorFlow costs three seconds, a tiny model none.

It ends with its parent, when its standard input is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.temporary import TemporaryFolder

_HERE = Path(__file__).parents[3]
_LAST_WORDS = 30  # seconds in which a process that has closed its output must end
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONSAFEPATH": "1"}


class OriginalError(Exception):
    """The framework could not load or run a model. ``step``: ``load``, ``run``, or ``process`` where the process died."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


@dataclass(eq=False)
class Job:
    """One original to be loaded and run. ``seconds``: its time limit."""

    request: Mapping[str, Any]
    folder: TemporaryFolder
    seconds: float
    answer: np.ndarray | OriginalError | None = field(default=None)

    def done(self, end: Mapping[str, Any]) -> None:
        if end:
            self.answer = OriginalError(end["step"], end["reason"])
        else:
            self.answer = np.load(self.request["output"])
        self.folder.cleanup()


class FrameworkProcess:
    """Runs jobs in the order of submission; ``result`` waits for one of them."""

    def __init__(self, framework: str) -> None:
        self._framework = framework
        self._process: subprocess.Popen[str] | None = None
        self._log: Any = None
        self._folder: TemporaryFolder | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting: list[Job] = []

    def start(self) -> None:
        """Start the process, so that it imports TensorFlow in the background."""
        if self._process is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  it is kept as long as the process
            # TensorFlow writes code there, and removes it only in a process that exits normally.
            self._folder = TemporaryFolder()
            paths = [str(_HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.child", self._framework, self._folder.name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8",
                env={
                    **os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths),
                    **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name),
                },
            )  # fmt: skip
            self._lines = queue.SimpleQueue()
            threading.Thread(target=_read, args=(self._process, self._lines), daemon=True).start()

    def submit(self, job: Job) -> Job:
        self.start()
        self._waiting.append(job)
        self._send(job)
        return job

    def result(self, job: Job) -> np.ndarray:
        """Wait for a job and return its answers. Raises ``OriginalError``."""
        while job.answer is None:
            first = self._waiting[0]
            try:
                line = self._lines.get(timeout=first.seconds)
            except queue.Empty:
                self._lost(f"not finished after {first.seconds:.0f} seconds")
                continue
            if not line:
                self._lost(self._last_words())
                continue
            self._waiting.pop(0).done(json.loads(line))
        if isinstance(job.answer, OriginalError):
            raise job.answer
        return job.answer

    def abandon(self, jobs: Sequence[Job]) -> None:
        """Cancel jobs; a running one is ended, so that the next build need not wait for it."""
        if any(job in self._waiting for job in jobs):
            self.end()

    def end(self) -> None:
        """End the process and remove its files."""
        if self._process is not None and self._folder is not None:
            self._process.kill()
            self._process.wait()
            for stream in filter(None, (self._process.stdin, self._process.stdout, self._log)):
                with contextlib.suppress(OSError):  # pending data can no longer be sent
                    stream.close()
            self._folder.cleanup()
            self._process = self._folder = None
        for job in self._waiting:
            job.folder.cleanup()
        self._waiting = []

    def _send(self, job: Job) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died; ``result`` reports that
            self._process.stdin.write(json.dumps(dict(job.request)) + "\n")
            self._process.stdin.flush()

    def _last_words(self) -> str:
        assert self._process is not None
        self._process.wait(_LAST_WORDS)
        code = self._process.returncode
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}, perhaps because memory ran out"
        self._log.seek(0)
        said = " ".join(self._log.read()[-2000:].decode("utf-8", "replace").split())
        return f"its process ended with {code}: {said[-300:]}"

    def _lost(self, reason: str) -> None:
        """Fail the first job, which ended the process; the others get a new process."""
        first, *others = self._waiting
        self._waiting = []
        self.end()
        first.done({"step": "process", "reason": reason})
        for job in others:
            self.submit(job)


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except (OSError, ValueError):  # closed under it
        pass
    lines.put("")


_PROCESSES: dict[str, FrameworkProcess] = {}


def process_of(framework: str) -> FrameworkProcess:
    """The process for ``framework``, shared by all builds in this process."""
    if framework not in _PROCESSES:
        _PROCESSES[framework] = FrameworkProcess(framework)
    return _PROCESSES[framework]


def _end_all(owner: int) -> None:
    if os.getpid() == owner:  # and not in a copy of this process
        for process in _PROCESSES.values():
            process.end()


atexit.register(_end_all, os.getpid())
