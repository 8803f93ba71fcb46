"""Find candidates for classifiers in a folder: files, archives and folders, one for each download."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite")
SAVED_MODEL = "saved_model.pb"
_DEPTH = 4  # folders within the folder


def sources(folder: Path) -> Iterator[Path]:
    """Every path that may be a classifier, in order; for a download with one model, its folder."""
    yield from _within(folder, _DEPTH, top=True)


def _within(folder: Path, depth: int, *, top: bool = False) -> Iterator[Path]:
    items = [item for item in sorted(folder.iterdir()) if not item.name.startswith((".", "__MACOSX"))]
    models = [item for item in items if item.is_file() and _is_model(item)]
    if any(item.name == SAVED_MODEL for item in items):
        yield folder
        return
    download = len(models) == 1 and any(item.name in _BESIDE for item in items)
    again = [item for item in items if download and item.name.endswith("savedmodel")]  # the same model once more
    yield from [folder] if download and not top and not again else models
    for item in items:
        inner = item.is_dir() and not item.is_symlink() and not item.name.endswith(".report") and depth > 0
        if inner and item not in again:
            yield from _within(item, depth - 1)


_BESIDE = ("labels.txt", "labelmap.txt", "classes.json")


def _is_model(path: Path) -> bool:
    """Whether an archive contains a model."""
    if path.suffix.lower() != ".zip":
        return path.suffix.lower() in MODEL_SUFFIXES
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((*MODEL_SUFFIXES, SAVED_MODEL)) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return True  # a broken archive is reported where it is read
