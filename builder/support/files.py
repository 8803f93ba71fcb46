"""The one writer: at a path stands the older thing or the new one, whole, whenever the process ends.

What is written grows as a draft beside its place, under a name that nobody can guess; it is on the disk before it is
renamed. A lock is held on the place meanwhile, so that a draft which nobody holds is of a process that died: the next
one that writes there removes it.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.support.errors import BuilderError, ConfigError
from builder.support.locks import held
from builder.support.places import beside, check_folder, check_place
from edge_runtime.errors import EdgeRuntimeError

PATIENCE = 60.0  # seconds; to change a finished file takes less
_TOKEN = re.compile("[0-9a-f]{16}")
_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD: of Linux's renameat2


@dataclass(frozen=True)
class Output:
    """A place that is locked for this process.

    ``path``: as the user spells it. ``real``: behind links; there it is written. ``found``: what stood there when the
    lock was taken, by device, inode, size and time; None where nothing did.
    """

    path: Path
    real: Path
    found: tuple[int, ...] | None

    @contextmanager
    def draft(self, *, was_read: bool = False) -> Iterator[Path]:
        """A new file beside the place, with its suffix, that takes the place when the block ends well.

        ``was_read``: what stood there was read, and the new file is made of it. Raises ``ConfigError`` where another
        program, which knows no locks, has put something else there since.
        """
        draft = self._free_name()
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with named_as(self.path, draft):
                yield draft
            if was_read and _identity(self.real) != self.found:
                raise ConfigError(
                    f"{self.path}: another program changed it meanwhile; nothing was written, run this again"
                )
            if self.real.exists():
                draft.chmod(stat.S_IMODE(self.real.stat().st_mode))
            _sync(draft)
            draft.replace(self.real)
            _sync(self.real.parent)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def draft_folder(self) -> Iterator[Path]:
        """As ``draft``, for a folder; what stood there stays until the new one is in its place."""
        draft = self._free_name()
        draft.mkdir()
        try:
            with named_as(self.path, draft):
                yield draft
            for item in (*draft.rglob("*"), draft):
                _sync(item)
            _swap(draft, self.real, beside(self.real, "old"))
            _sync(self.real.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _free_name(self) -> Path:
        return beside(self.real, secrets.token_hex(8) + self.real.suffix)


@contextmanager
def locked(path: Path, *, wait: float = PATIENCE) -> Iterator[Output]:
    """Hold ``path`` for the whole of a change, from before it is read until it is written.

    Args:
        path: A file or folder that is to be written; a link is followed. Its parent folders are made.
        wait: For how long to wait, in seconds, where another process holds it.

    Raises:
        ConfigError: Another process holds it, or what stands there is no file and no folder.
        OSError: The folder cannot be written.
    """
    real = check_place(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    with held(beside(real, "lock"), path, wait):
        _remove_what_died(real)
        yield Output(path, real, _identity(real))


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft that becomes the file at ``path`` when the block ends well; see ``Output.draft``. Raises as ``locked``."""
    with locked(path) as output, output.draft() as draft:
        yield draft


@contextmanager
def written_folder(path: Path, *, mark: str | None = None) -> Iterator[Path]:
    """A draft that becomes the folder at ``path`` when the block ends well. Raises as ``locked``.

    ``ConfigError`` where something is there already, but for an older one with the file ``mark`` in it: files of another
    time must not mix with these.
    """
    with locked(path) as output:
        check_folder(path, mark=mark)
        with output.draft_folder() as draft:
            yield draft


def write_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all. Raises as ``locked``."""
    with written(path) as draft:
        draft.write_text(text, "utf-8", errors="backslashreplace")  # as JSON writes halves of characters too


def _remove_what_died(real: Path) -> None:
    """Under the lock, what is beside ``real`` and belongs to it was left by a process that did not end well."""
    old, start = beside(real, "old"), beside(real, "").name
    if old.exists() and not real.exists():
        old.rename(real)
    for left in [item for item in real.parent.iterdir() if item.name.startswith(start)]:
        ending = left.name[len(start) :].removesuffix(real.suffix)
        if ending == "old" or _TOKEN.fullmatch(ending):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)


@contextmanager
def named_as(path: Path, draft: Path) -> Iterator[None]:
    """What an error says of ``draft`` it says of ``path``: nobody knows the other name, and it is gone by then."""
    try:
        yield
    except (BuilderError, EdgeRuntimeError) as error:
        if str(draft) not in str(error):
            raise
        raise type(error)(str(error).replace(str(draft), str(path))) from error
    except OSError as error:
        if error.filename is None or not os.fsdecode(error.filename).startswith(str(draft)):
            raise
        raise OSError(error.errno, error.strerror, os.fsdecode(error.filename).replace(str(draft), str(path))) from error


def _identity(real: Path) -> tuple[int, ...] | None:
    try:
        found = real.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(draft: Path, real: Path, old: Path) -> None:
    """``draft`` takes the place of the folder ``real``, and is the older one then; at one stroke where the system can."""
    if not real.exists() or not any(real.iterdir()):
        draft.rename(real)
        return
    if _exchanged(draft, real):
        return
    real.rename(old)
    try:
        draft.rename(real)
    except OSError:
        old.rename(real)
        raise
    old.rename(draft)


def _exchanged(draft: Path, real: Path) -> bool:
    """Two folders get each other's names; False where the system has no such call."""
    if not sys.platform.startswith("linux"):  # Windows has no such library to open
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(draft), os.fsencode(real)
    return hasattr(libc, "renameat2") and libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
