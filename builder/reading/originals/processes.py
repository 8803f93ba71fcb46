"""One process for each framework, kept for the next job: to start TensorFlow costs three seconds, a tiny model none.

It ends with its parent, when its standard input is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
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
    """One original to be loaded and run.

    ``make``: writes what the child process needs into a folder and returns the request. It is called shortly before the
    job runs, so that the copies of 200 models are not on the disk at once. ``seconds``: its time limit.
    """

    make: Callable[[Path], Mapping[str, Any]] | None  # None once it has ended, for it holds the samples
    seconds: float
    request: Mapping[str, Any] = field(default_factory=dict)
    answer: np.ndarray | Exception | None = None  # before it has ended: what its ``make`` raised
    ended: threading.Event = field(default_factory=threading.Event)

    def end(self, answer: np.ndarray | Exception | None) -> None:
        self.answer, self.make = answer, None
        self.ended.set()


class FrameworkProcess:
    """Runs jobs in the order of submission, in the background; ``result`` waits for one of them.

    ``stays``: it waits for further jobs when it has none left.
    """

    def __init__(self, framework: str, *, stays: bool = True) -> None:
        self._framework, self._stays = framework, stays
        self._lock = threading.RLock()  # of all that follows
        self._child: _Child | None = None
        self._unfinished: list[Job] = []
        self._thread: threading.Thread | None = None  # that runs them; it ends with the last

    def start(self) -> None:
        """Start the process, so that it imports TensorFlow in the background."""
        with self._lock:
            self._started()

    @property
    def jobs(self) -> int:
        """The number of jobs that have not ended."""
        return len(self._unfinished)

    def submit(self, job: Job) -> Job:
        with self._lock:
            self._started()
            self._unfinished.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return job

    def result(self, job: Job) -> np.ndarray:
        """Wait for a job and return its answers. Raises ``OriginalError``, or what its ``make`` raised."""
        job.ended.wait()
        if isinstance(job.answer, Exception):
            raise job.answer
        assert job.answer is not None
        return job.answer

    def abandon(self, jobs: Sequence[Job]) -> None:
        """Cancel jobs; a running one is ended, so that the next build need not wait for it."""
        if not all(job.ended.is_set() for job in jobs):
            self.end()

    def end(self) -> None:
        """End the process, cancel all jobs and remove their files."""
        with self._lock:
            thread, child, self._child = self._thread, self._child, None
            for job in self._unfinished:
                job.end(OriginalError("process", "it was cancelled"))
        if child is not None:
            child.end()
        if thread is not None:
            thread.join()

    def _started(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._framework)
        return self._child

    def _work(self) -> None:
        """Run jobs until none is left. While one runs, the files of the next are written."""
        ready = self._next(None)
        while ready is not None:
            job, folder = ready
            child = self._sent(job)
            ready = self._next(job)
            answer = job.answer if child is None else self._answer(job, child)
            if folder is not None:
                folder.cleanup()
            with self._lock:
                self._unfinished.remove(job)
            job.end(answer)
            ready = ready or self._next(None)

    def _next(self, running: Job | None) -> tuple[Job, TemporaryFolder | None] | None:
        """The job behind the running one, with its files. The thread ends where there is neither."""
        with self._lock:
            job = next((one for one in self._unfinished if one is not running), None)
            if job is None and running is None:
                self._thread = None
                if self._child is not None and not self._stays:
                    self._child.end()
                    self._child = None
            if job is None:
                return None
        folder = None
        try:
            folder, make = TemporaryFolder(), job.make
            job.request = make(Path(folder.name)) if make is not None else {}
        except Exception as error:  # noqa: BLE001  it is raised where the answers are asked for
            job.answer = error
        return job, folder

    def _sent(self, job: Job) -> _Child | None:
        with self._lock:
            if job.answer is not None:  # its files could not be written, or it was cancelled
                return None
            child = self._started()
        child.send(job.request)
        return child

    def _answer(self, job: Job, child: _Child) -> np.ndarray | Exception:
        try:
            told = child.receive(job.seconds)
            return OriginalError(told["step"], told["reason"]) if told else np.load(job.request["output"])
        except Exception as error:  # noqa: BLE001  an error here must not leave anybody waiting
            with self._lock:
                self._child = None if self._child is child else self._child
            child.end()
            reason = f"{type(error).__name__}: {error}"
            return error if isinstance(error, OriginalError) else OriginalError("process", reason)


class _Child:
    """A process of one framework."""

    def __init__(self, framework: str) -> None:
        self._log: Any = tempfile.TemporaryFile()  # noqa: SIM115  it is kept as long as the process
        # TensorFlow writes code there, and removes it only in a process that exits normally.
        self._folder = TemporaryFolder()
        paths = [str(_HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child", framework, self._folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8",
            env={
                **os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths),
                **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name),
            },
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self.process, self._lines), daemon=True).start()

    def send(self, request: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended; ``receive`` reports that
            self.process.stdin.write(json.dumps(dict(request)) + "\n")
            self.process.stdin.flush()

    def receive(self, seconds: float) -> Mapping[str, Any]:
        """What it answers within ``seconds``. Raises ``OriginalError``."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise OriginalError("process", f"not finished after {seconds:.0f} seconds") from None
        if not line:
            raise OriginalError("process", self._last_words())
        told: Mapping[str, Any] = json.loads(line)
        return told

    def end(self) -> None:
        """End it and remove its files; to be called again does no harm."""
        self.process.kill()
        self.process.wait()
        for stream in filter(None, (self.process.stdin, self.process.stdout, self._log)):
            with contextlib.suppress(OSError):  # pending data can no longer be sent
                stream.close()
        self._folder.cleanup()

    def _last_words(self) -> str:
        self.process.wait(_LAST_WORDS)
        code = self.process.returncode
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}, perhaps because memory ran out"
        self._log.seek(0)
        said = " ".join(self._log.read()[-2000:].decode("utf-8", "replace").split())
        return f"its process ended with {code}: {said[-300:]}"


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except (OSError, ValueError):  # closed under it
        pass
    lines.put("")


_PROCESSES: dict[str, list[FrameworkProcess]] = {}
_MANY = 16  # jobs: for fewer, to start a further process does not pay
_MOST = 2  # processes of a framework, each with the memory of a base's activations


def process_of(framework: str) -> FrameworkProcess:
    """The first process for ``framework``, shared by all builds in this process."""
    return _PROCESSES.setdefault(framework, [FrameworkProcess(framework)])[0]


def process_for_a_job(framework: str) -> FrameworkProcess:
    """The first process; where it has many jobs, the one with the fewest, of as many as there are processors."""
    first, processes = process_of(framework), _PROCESSES[framework]
    if first.jobs < _MANY:
        return first
    if len(processes) < min(_MOST, os.cpu_count() or 1):
        processes.append(FrameworkProcess(framework, stays=False))
    return min(processes, key=lambda one: one.jobs)


def end_all(owner: int | None = None) -> None:
    """End all processes. ``owner``: only in the process of this number, and not in a copy of it."""
    if owner in (None, os.getpid()):
        for process in itertools.chain(*_PROCESSES.values()):
            process.end()


atexit.register(end_all, os.getpid())
