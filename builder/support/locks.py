"""A lock beside a place that is to be written. It goes with the process that holds it, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.support.errors import ConfigError

_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)  # some network file systems: there a place cannot be held


@contextmanager
def held(lock: Path, path: Path, wait: float) -> Iterator[None]:
    """Hold the file ``lock``, which is there only while somebody does.

    Args:
        lock: The name of the lock.
        path: What is locked, as the user spells it.
        wait: For how long to wait, in seconds, where another process holds it.

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
    """The lock, open; None where it was held or went meanwhile, which is to be tried again."""
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
    if not _is_there(lock, handle):  # whoever held it took it along: this one is nobody's
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
