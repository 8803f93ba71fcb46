"""Replaces the model file in a running process, after the new file has passed a trial in a separate process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import Callable, Optional, Sequence, Tuple

from edge_runtime.bundle import packs_beside
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, said
from edge_runtime.files import open_file
from edge_runtime.temporary import TemporaryFolder

INTERVAL = 1.0  # seconds between looks at the file
CLOSE_TIMEOUT = 2.0  # seconds
_Fingerprint = Tuple[Tuple[str, int, int, int], ...]


def open_copy(
    path: str,
    *,
    interpreter: Optional[str] = None,
    num_threads: Optional[int] = None,
    head_packs: Optional[Sequence[str]] = None,
    isolate: bool = False,
    trusted_key: Optional[str] = None,
) -> MultiHeadClassifier:
    """Open a private copy of the file at ``path``; the rest as ``MultiHeadClassifier`` takes it.

    Interpreters map the file into memory: who overwrites it in place would change the model under their feet. The copy
    is without a name by the time this returns. Raises what ``MultiHeadClassifier`` does.
    """
    folder = TemporaryFolder()
    copy = os.path.join(folder.name, "model.tflite")
    try:
        with open_file(path) as file, open(copy, "wb") as target:
            shutil.copyfileobj(file, target)
        packs = packs_beside(path) if head_packs is None else head_packs
        opened = MultiHeadClassifier(
            copy,
            interpreter=interpreter,
            num_threads=num_threads,
            head_packs=packs,
            isolate=isolate,
            trusted_key=trusted_key,
        )
        _ = opened.file_digest  # remembered: later the copy is gone
        return opened
    except EdgeRuntimeError as error:
        raise type(error)(str(error).replace(copy, path)) from error
    finally:
        folder.cleanup()


class Reloader:
    """Watches ``path``. ``open_new`` opens what is there now; ``accept`` raises where it does not suit the caller.

    Both run in a thread. ``report`` is told of each new file, whether it takes over or is refused.
    """

    def __init__(
        self,
        path: str,
        open_new: Callable[[], MultiHeadClassifier],
        accept: Callable[[MultiHeadClassifier], object],
        report: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._open_new, self._accept, self._report = path, open_new, accept, report
        self._clock = clock
        self._known = self._last = _fingerprint(path)
        self._next_look = clock() + INTERVAL
        self._thread: Optional[threading.Thread] = None
        self._ready: Optional[MultiHeadClassifier] = None

    def poll(self) -> Optional[MultiHeadClassifier]:
        """The new file, open, once it has proved itself; costs nothing most of the time."""
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread = None
            ready, self._ready = self._ready, None
            return ready
        now = self._clock()
        if now < self._next_look:
            return None
        self._next_look = now + INTERVAL
        current, before = _fingerprint(self._path), self._last
        self._last = current
        if current is not None and current == before and current != self._known:  # twice the same: nobody is writing it
            self._known = current
            self._thread = threading.Thread(target=self._try, name="reload", daemon=True)
            self._thread.start()
        return None

    def close(self) -> None:
        """What proved itself and was never asked for is closed too."""
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()

    def _try(self) -> None:
        try:
            self._ready = self._opened()
        except (EdgeRuntimeError, OSError) as error:
            self._report(f"new model refused, the old one goes on: {said(error)}")
        except BaseException as error:  # nobody thought of it: a word for people, and a traceback
            self._report(f"new model refused, the old one goes on: {type(error).__name__}: {said(error)}")
            raise
        else:
            self._report(f"new model takes over: {self._path}")

    def _opened(self) -> MultiHeadClassifier:
        new = self._open_new()
        try:
            self._accept(new)
        except BaseException:
            new.close()
            raise
        return new


def _fingerprint(path: str) -> Optional[_Fingerprint]:
    """Of the file and of the head packs in its folder."""
    try:
        found = [(name, os.stat(name)) for name in (path, *packs_beside(path))]
    except OSError:
        return None
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found)
