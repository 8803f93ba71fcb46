"""Keep the native logs of TensorFlow and Ray off the terminal: they write to standard error, bypassing Python."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TextIO

from edge_runtime.temporary import TemporaryFolder


@contextlib.contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Hide what is written to standard error inside. Yields a function that returns it."""
    sys.stderr.flush()
    saved, level = os.dup(2), logging.getLogger("tensorflow").level
    guarded = faulthandler.is_enabled()
    if not guarded:  # if native code aborts the process, its last output would otherwise be lost
        faulthandler.enable(saved)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)

        def said() -> str:
            log.seek(0)
            return log.read().decode("utf-8", "replace")

        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            if not guarded:
                faulthandler.disable()
            os.close(saved)
            logging.getLogger("tensorflow").setLevel(level)


@contextlib.contextmanager
def own_temporary_files() -> Iterator[None]:
    """Keep what libraries write to the temporary folder inside, as TensorFlow does, in one of this process's own.

    The next run removes it if this process is killed. For commands: it changes a setting of the whole process.
    """
    before = tempfile.tempdir
    with TemporaryFolder() as tempfile.tempdir:
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def terminal(*, or_pipe: bool = False) -> Iterator[TextIO | None]:
    """Standard error for progress, where it is a terminal; stays usable while ``quiet`` holds the rest back.

    ``or_pipe``: also where it is not a terminal.
    """
    if not sys.stderr.isatty() and not or_pipe:
        yield None
        return
    try:
        copy = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    except (OSError, ValueError):  # standard error is not a real file
        yield sys.stderr
        return
    with copy:
        yield copy
