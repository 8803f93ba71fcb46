"""The pictures in a folder."""

from __future__ import annotations

import os
from typing import Iterable, Iterator, List

from edge_runtime.errors import PictureError
from edge_runtime.preprocess import PICTURE_SUFFIXES


def pictures_in(folder: str) -> List[str]:
    """Paths of the pictures in ``folder`` and its sub-folders, by name."""
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith("._")  # what macOS leaves beside files
    )


def expanded(paths: Iterable[str]) -> Iterator[str]:
    """``paths``, with the pictures in each folder in its place. Raises ``PictureError`` for a folder without any."""
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        found = pictures_in(path)
        if not found:
            wanted = ", ".join(suffix[1:] for suffix in PICTURE_SUFFIXES)
            raise PictureError(f"{path}: expected a folder with pictures ({wanted}), found none in it")
        yield from found
