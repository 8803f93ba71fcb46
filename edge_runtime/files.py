"""Reads and writes files: no pipes, no devices, nothing beyond a limit, and nothing half written."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import IO, Any, Iterator, Set

DRAFT = ".edge-runtime-"  # how the names of drafts begin
_SWEPT: Set[str] = set()  # folders that this process has rid of drafts of the dead

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Windows has neither of the first two, and would change line ends without the last, which nobody else has.
_HOW = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_file(path: Any) -> IO[bytes]:
    """Open the file at ``path`` (str or PathLike) to read bytes. It never blocks, as opening a pipe would.

    Raises ``OSError``, also for anything that is not a file.
    """
    _check(path, os.stat(path))
    handle = os.open(path, _HOW)
    try:
        _check(path, os.fstat(handle))  # another may have taken its place
        return os.fdopen(handle, "rb")
    except OSError:
        os.close(handle)
        raise


def read_file(path: Any, most: int) -> bytes:
    """Read a file of at most ``most`` bytes. Raises ``OSError``."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, most) + 1)  # what it asks for, Python takes at once
        if len(data) > size:  # it grew, or is of a kind that tells no size
            data += file.read(max(most + 1 - len(data), 0))
    if len(data) > most:
        raise OSError(errno.EFBIG, f"expected at most {most:,} bytes, found more", os.fspath(path))
    return data


@contextlib.contextmanager
def draft_beside(path: Any, *, shared: bool = False) -> Iterator[str]:
    """An empty file in the folder of ``path``, its owner's alone; gone at the end unless it was renamed.

    The first draft of this process in a folder removes those that killed processes left there, unless the folder is
    ``shared`` with other machines, which a lock need not reach.
    """
    from edge_runtime import temporary  # imports random and hashes: most only read

    folder = os.path.dirname(os.path.abspath(path))
    if not shared and folder not in _SWEPT:
        temporary.remove_left_behind(folder, DRAFT)
        _SWEPT.add(folder)
    draft, handle = temporary.claimed(lambda: temporary.new_file(folder, DRAFT))
    try:
        yield draft
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def whole_file(path: Any, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which takes the place of ``path`` when the block ends well; else nothing changes.

    Of two that write at once the later stays, whole. ``shared``: as in ``draft_beside``. Raises ``OSError``.
    """
    with draft_beside(path, shared=shared) as draft:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check(path: Any, found: os.stat_result) -> None:
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(errno.EINVAL, f"expected a file, found {name}; give the path of a file", os.fspath(path))
