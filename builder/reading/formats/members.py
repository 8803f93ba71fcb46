"""The files of a folder or the members of a zip archive, by name: a download, packed or unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from builder.reading.formats.labels import MAX_LABEL_FILE
from builder.reading.formats.limits import MAX_BYTES, MAX_MEMBERS, check_archive, read_member
from builder.reading.formats.stored import LOADING_ERRORS, reason_of
from builder.support.errors import ModelFileError
from edge_runtime.files import read_file

Members = Mapping[str, Callable[[], bytes]]  # functions that read a file, by its path inside, with "/"
_DEPTH = 4  # folders within the folder; no download has more


def folder_members(folder: Path) -> Members:
    """Every file in ``folder`` and below. Raises ``ModelFileError`` where there are too many."""
    found: dict[str, Callable[[], bytes]] = {}
    pending = [(folder, "")]
    try:
        while pending:
            place, prefix = pending.pop()
            for item in sorted(place.iterdir()):
                name = f"{prefix}{item.name}"
                if item.is_dir() and not item.is_symlink() and name.count("/") < _DEPTH:
                    pending.append((item, f"{name}/"))
                elif item.is_file():
                    found[name] = _FileReader(item, folder)
                if len(found) > MAX_MEMBERS:
                    raise ModelFileError(f"{folder}: more than {MAX_MEMBERS} files; name the model's own folder")
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be read ({error.strerror})") from error
    return found


def archive_members(path: Path) -> Members:
    """Every member of the zip archive ``path``. Raises ``ModelFileError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except ModelFileError:
        raise
    except LOADING_ERRORS as error:
        raise ModelFileError(f"{path}: not a whole zip archive ({reason_of(error)}); copy it again") from error
    return {name.replace("\\", "/"): _MemberReader(path, name) for name in names if not name.startswith("__MACOSX/")}


class _FileReader:
    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder

    def __call__(self) -> bytes:
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ModelFileError(f"{self.folder}: {self.path.name} has more than {MAX_BYTES >> 30} GB")
            return self.path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{self.folder}: {self.path.name} cannot be read ({error.strerror})") from error


class _MemberReader:
    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __call__(self) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return read_member(archive, self.name, self.path)
        except ModelFileError:
            raise
        except LOADING_ERRORS as error:
            raise ModelFileError(f"{self.path}: not a whole zip archive ({reason_of(error)}); copy it again") from error


def file_beside(folder: Path, name: str) -> bytes | None:
    """A small file in a folder; None where there is none, or it cannot be read."""
    try:
        return read_file(folder / name, MAX_LABEL_FILE)
    except OSError:
        return None
