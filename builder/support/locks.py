"""A lock file beside an output. It is released when its process ends, in whatever way."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.support.errors import ConfigError

_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)  # some network file systems do not support locks


@contextmanager
def held(lock: Path, path: Path, wait: float) -> Iterator[None]:
    """Hold the file ``lock``, which exists only while it is held.

    Args:
        lock: The lock file.
        path: What is locked, as the user spells it.
        wait: How long to wait for another process that holds it, in seconds.

    Raises:
        ConfigError: Another process holds it, or this one already does.
    """
    deadline, handle = time.monotonic() + wait, None
    while handle is None:
        handle = _acquired(lock, path, deadline)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _acquired(lock: Path, path: Path, deadline: float) -> int | None:
    """The open lock file; None where it was held or has just been removed, to try again."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode("ascii", "replace")
        os.close(handle)
        if holder == str(os.getpid()) or time.monotonic() > deadline:
            raise ConfigError(
                f"{path}: process {holder or '?'} is writing it; run this again when that has ended, "
                "or choose another output"
            ) from None
        time.sleep(0.05)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise
    if not _is_there(lock, handle):  # its holder removed it: this handle is stale
        os.close(handle)
        return None
    os.truncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def _is_there(lock: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False
