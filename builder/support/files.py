"""Atomic writing: a path holds the old or the new content, complete, whenever the process ends.

Content is written to a draft beside its path, under a random name, and synced to disk before it is renamed. A lock is
held on the path meanwhile, so that a draft without a lock belongs to a process that died: the next writer removes it.
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

PATIENCE = 60.0  # seconds; changing a finished file takes less
_TOKEN = re.compile("[0-9a-f]{16}")
_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD: of Linux's renameat2


@dataclass(frozen=True)
class Output:
    """An output path that this process has locked.

    ``path``: as the user spells it. ``real``: with links resolved, where it is written. ``found``: the file there when
    the lock was taken, by device, inode, size and time; None where there was none.
    """

    path: Path
    real: Path
    found: tuple[int, ...] | None

    @contextmanager
    def draft(self, *, was_read: bool = False) -> Iterator[Path]:
        """A draft beside the path, with its suffix, that replaces it when the block succeeds.

        ``was_read``: whether the new file depends on the old one. Raises ``ConfigError`` where another program, which
        ignores locks, has changed it since.
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
        """As ``draft``, for a folder; the old one stays until the new one is in place."""
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
        path: A file or folder to be written; links are followed. Parent folders are created.
        wait: How long to wait for another process that holds it, in seconds.

    Raises:
        ConfigError: Another process holds it, or it is neither a file nor a folder.
        OSError: The folder cannot be written.
    """
    real = check_place(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    with held(beside(real, "lock"), path, wait):
        _remove_what_died(real)
        yield Output(path, real, _identity(real))


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft that becomes the file at ``path`` when the block succeeds; see ``Output.draft``. Raises as ``locked``."""
    with locked(path) as output, output.draft() as draft:
        yield draft


@contextmanager
def written_folder(path: Path, *, mark: str | None = None) -> Iterator[Path]:
    """A draft that becomes the folder at ``path`` when the block succeeds. Raises as ``locked``.

    Also raises ``ConfigError`` where something exists already, except an older folder with the file ``mark`` in it: old
    and new files must not mix.
    """
    with locked(path) as output:
        check_folder(path, mark=mark)
        with output.draft_folder() as draft:
            yield draft


def write_text(path: Path, text: str) -> None:
    """Write text atomically as UTF-8. Raises as ``locked``."""
    with written(path) as draft:
        draft.write_text(text, "utf-8", errors="backslashreplace")  # JSON may contain lone surrogates


def _remove_what_died(real: Path) -> None:
    """Remove drafts beside ``real``: under the lock, they were left by processes that died."""
    old, start = beside(real, "old"), beside(real, "").name
    if old.exists() and not real.exists():
        old.rename(real)
    for left in [item for item in real.parent.iterdir() if item.name.startswith(start)]:
        ending = left.name[len(start) :].removesuffix(real.suffix)
        if ending == "old" or _TOKEN.fullmatch(ending):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)


@contextmanager
def named_as(path: Path, draft: Path) -> Iterator[None]:
    """Make errors about ``draft`` name ``path`` instead, since the draft is internal and removed."""
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
    """Swap ``draft`` with the folder ``real``, atomically where the system supports it."""
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
    """Exchange two folders; False where the system has no such call."""
    if not sys.platform.startswith("linux"):  # Windows has no such library to open
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(draft), os.fsencode(real)
    return hasattr(libc, "renameat2") and libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
