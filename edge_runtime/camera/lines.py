"""Lines for pipes and files: each is written whole or not at all, and a full disk ends nothing."""

from __future__ import annotations

import os
import stat
import sys
from typing import Callable

from edge_runtime.counting import count_of
from edge_runtime.escape import printable


class Lines:
    """Writes to the file descriptor ``fd``, unbuffered: a reader sees each line as soon as it is written.

    Where writing fails, lines are lost and counted; ``report`` is told once, and once when it works again. Only a reader
    that has gone (``BrokenPipeError``) is left to the caller.
    """

    def __init__(self, fd: int, report: Callable[[str], None]) -> None:
        self.lost = 0
        self._fd, self._report = fd, report
        self._failing = 0  # lines lost in a row
        self._torn = False  # the last line ended in the middle, and could not be taken back

    def write(self, text: str) -> None:
        line = printable(text).encode("utf-8") + b"\n"
        try:
            self._write(b"\n" + line if self._torn else line)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._failing:
                self._report(f"output: {error.strerror}; lines are lost until it works again")
            self._failing += 1
            self.lost += 1
            return
        self._torn = False
        if self._failing:
            self._report(f"output works again after {count_of(self._failing, 'lost lines')}")
            self._failing = 0

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            if done:
                self._take_back(done)
            raise

    def _take_back(self, count: int) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._torn = True
            return
        end = os.lseek(self._fd, 0, os.SEEK_CUR) - count
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)


def say(message: str) -> None:
    """A line for people, on stderr; that it cannot be written is no reason to stop."""
    try:
        sys.stderr.write(printable(message) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
