"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from builder.support.errors import ConfigError


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name on the same disk with the same suffix; whatever happens, nothing is left there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill beside ``path``, whose place it takes when the block ends well; else nothing is left of it.

    Raises ``ConfigError`` where something is there already: files of another time must not mix with these.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        found = "a folder with files in it" if path.is_dir() else "a file"
        raise ConfigError(f"{path}: expected a new or empty folder to write, found {found}; remove it or choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.mkdir()
    try:
        yield draft
        draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
