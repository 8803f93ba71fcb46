"""Temporary folders and drafts that the next process removes where the process that made them was killed.

Each is locked while its process lives, and the system releases a lock however a process ends: what nobody holds, nobody
needs. Systems without such locks (Windows, some network file systems) keep what a killed process left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import threading
import weakref
from typing import Callable, Dict, Optional, Tuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FOLDER = "polyhead-process-"  # how the folder begins in which a process keeps its temporary folders
_RANDOM = "[a-z0-9_]{8}"  # the rest of a name that ``tempfile`` makes
_HOW = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_guard = threading.RLock()  # the garbage collector may remove a folder in the thread that makes one
_shared: Dict[Tuple[int, str], Tuple[str, Optional[int]]] = {}  # by process and place: its folder, and who holds it


class TemporaryFolder:
    """An empty folder in the system's temporary folder, removed with its object or with its process.

    ``name``: its path. Raises ``OSError``.
    """

    def __init__(self) -> None:
        key = (os.getpid(), _place())
        self.name = _made(key)
        self._remove = weakref.finalize(self, _removed, self.name, key)

    def cleanup(self) -> None:
        """Remove it now."""
        self._remove()

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        self.cleanup()


def claimed(make: Callable[[], str]) -> Tuple[str, Optional[int]]:
    """The path that ``make`` makes, locked, and the handle that holds it; None where the system has no locks.

    Until it is locked, it looks like one left behind: if another process removed it, one more is made.
    """
    while True:
        path = make()
        if fcntl is None:
            return path, None
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, _HOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            except OSError:  # no locks here
                return path, handle
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return path, handle
            os.close(handle)


def new_file(folder: str, prefix: str) -> str:
    """The path of a new, empty file, its owner's alone."""
    handle, path = tempfile.mkstemp(prefix=prefix, dir=folder)
    os.close(handle)
    return path


def remove_left_behind(folder: str, prefix: str) -> None:
    """Remove from ``folder`` what begins with ``prefix``, is this user's and is held by no process."""
    if fcntl is None:
        return
    name = re.compile(re.escape(prefix) + _RANDOM)
    with contextlib.suppress(OSError):
        for found in [one.path for one in os.scandir(folder) if name.fullmatch(one.name)]:
            with contextlib.suppress(OSError):  # a link, another user's, held, or gone
                _remove_if_free(found)


def _remove_if_free(path: str) -> None:
    handle = os.open(path, _HOW)
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    finally:
        os.close(handle)


def _place() -> str:
    """Where the system has its temporary files, also while a folder in this process's own stands for that."""
    chosen = tempfile.gettempdir()
    own = (place for (_, place), (folder, _) in _shared.items() if chosen.startswith(folder + os.sep))
    return next(own, chosen)


def _made(key: Tuple[int, str]) -> str:
    """A temporary folder in this process's own, which is made first where there is none."""
    with _guard:
        while True:
            if key not in _shared:
                remove_left_behind(key[1], FOLDER)
                _shared[key] = claimed(lambda: tempfile.mkdtemp(prefix=FOLDER, dir=key[1]))
            try:
                return tempfile.mkdtemp(prefix="", dir=_shared[key][0])
            except (FileNotFoundError, KeyError):  # removed meanwhile, by the last of its folders or by a cleaner of /tmp
                _forget(key)


def _removed(path: str, key: Tuple[int, str], *, again: bool = True) -> None:
    """Remove a temporary folder and, behind the last, the folder that held them all. ``again``: where that fails, once
    more when the process ends.
    """
    if key[0] != os.getpid():  # in a copy of the process that made it
        return
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path) and again:  # Windows keeps a file that is mapped
        atexit.register(_removed, path, key, again=False)
        return
    with _guard, contextlib.suppress(OSError, KeyError):
        os.rmdir(_shared[key][0])
        _forget(key)


def _forget(key: Tuple[int, str]) -> None:
    _, handle = _shared.pop(key, (None, None))
    if handle is not None:
        os.close(handle)
