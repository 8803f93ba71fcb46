"""Check where outputs can be written, before the work."""

from __future__ import annotations

import os
import secrets
import zlib
from pathlib import Path

from builder.support.errors import ConfigError
from edge_runtime.escape import has_halves


def check_place(path: Path) -> Path:
    """``path`` with links resolved. Raises ``ConfigError`` where no file or folder can be written there."""
    real = Path(os.path.realpath(path))
    if has_halves(str(real)):
        raise ConfigError(f"{path}: expected a name in UTF-8 to write; choose another output")
    if real.is_symlink():
        raise ConfigError(f"{path}: expected a place to write, found a link to itself")
    if real.exists() and not real.is_file() and not real.is_dir():
        raise ConfigError(f"{path}: expected a place to write, found a device, a pipe or a socket; choose another output")
    return real


def check_file(path: Path) -> None:
    """Check that a file can be written at ``path``. Raises ``ConfigError``."""
    real = check_place(path)
    if real.is_dir():
        raise ConfigError(f"{path}: expected a file to write, found a folder")
    _check_writable(path, real)


def check_folder(path: Path, *, mark: str | None = None) -> None:
    """Check that a folder can be written: it is new, empty, or an older one with the file ``mark`` in it.

    Raises ``ConfigError``.
    """
    real = check_place(path)
    older = mark is not None and (real / mark).is_file()
    if real.exists() and not older and not (real.is_dir() and not any(real.iterdir())):
        found = "a folder with files in it" if real.is_dir() else "a file"
        older_one = "" if mark is None else f", or an older one to replace (with {mark} in it)"
        raise ConfigError(
            f"{path}: expected a new or empty folder to write{older_one}, found {found}; remove it or choose another"
        )
    _check_writable(path, real)


def report_folder(output: Path) -> Path:
    """``NAME.report``, the folder for the report of ``output``, beside the file with links resolved."""
    return (Path(os.path.realpath(output)) if output.is_symlink() else output).with_suffix(".report")


def _check_writable(path: Path, real: Path) -> None:
    """Check by creating and removing a file in the nearest existing folder."""
    folder = next(parent for parent in real.parents if parent.exists())
    probe = folder / beside(real, secrets.token_hex(8)).name
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{path}: its folder cannot be written ({error.strerror}); choose another output") from error


def beside(real: Path, ending: str) -> Path:
    """A hidden name beside ``real``, reserved for it."""
    return real.with_name(f".{real.stem[:40]}.{zlib.crc32(os.fsencode(real.name)):08x}.{ending}")
