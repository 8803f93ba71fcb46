"""Which pictures calibrate and which verify, brought to the device's pixels by the device's own code."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builder.errors import PicturesError
from edge_runtime.errors import PictureError
from edge_runtime.metadata import ImageInput
from edge_runtime.preprocess import PICTURE_SUFFIXES, image_tensor

MAX_CALIBRATION_PICTURES = 200
MIN_PICTURES = 2
MAX_BROKEN_SHARE = 0.1  # more broken pictures than this and the folder is not what the user thinks it is
_HELD_OUT_SHARE = 5  # a fifth


@dataclass(frozen=True)
class Picture:
    """One file. ``head`` is the name of the sub-folder it lies in, where that is the name of a head."""

    path: Path
    head: str | None
    digest: str  # of the file's bytes: the same picture under two names is one picture


@dataclass(frozen=True)
class PictureSet:
    """``pixels``: uint8 (pictures, height, width, 3), RGB, as the device sees them; ``sources`` in the same order."""

    sources: tuple[Picture, ...]
    pixels: np.ndarray
    broken: tuple[str, ...] = ()

    def of_head(self, head: str) -> np.ndarray:
        """Indices of the pictures that are this head's: those in its own folder, or all where it has none."""
        own = [i for i, picture in enumerate(self.sources) if picture.head == head]
        return np.asarray(own or range(len(self.sources)), np.int64)


def collect(
    calibration_data: Path, verification_data: Path | None, heads: Sequence[str], spec: ImageInput
) -> tuple[PictureSet, PictureSet]:
    """The pictures that calibrate and those that verify. No picture is in both, whatever it is called.

    ``heads``: names of the folders whose pictures belong to one. Raises ``PicturesError`` for a folder that is missing,
    empty, or has more broken pictures than a few.
    """
    everything = find_pictures(calibration_data, heads)
    if verification_data is None:
        verification = [p for p in everything if int(p.digest[:8], 16) % _HELD_OUT_SHARE == 0]
    else:
        verification = find_pictures(verification_data, heads)
    held_out = {p.digest for p in verification}
    calibration = [p for p in everything if p.digest not in held_out]
    if not verification:
        raise PicturesError(f"{calibration_data}: too few pictures to set a fifth aside; add pictures")
    return (
        read_pictures(draw_evenly(calibration, MAX_CALIBRATION_PICTURES), spec, calibration_data),
        read_pictures(verification, spec, verification_data or calibration_data),
    )


def find_pictures(folder: Path, heads: Sequence[str]) -> list[Picture]:
    """Every picture below ``folder`` once, in the order of their content, so that names and places change nothing."""
    if not folder.is_dir():
        raise PicturesError(f"{folder}: no such folder; expected pictures ({', '.join(PICTURE_SUFFIXES)}) in it")
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
    if not paths:
        raise PicturesError(f"{folder}: expected pictures ({', '.join(PICTURE_SUFFIXES)}), found none")
    found: dict[str, Picture] = {}
    for path in paths:
        head = next((part for part in path.relative_to(folder).parts[:-1] if part in heads), None)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(digest, Picture(path, head, digest))
    return sorted(found.values(), key=lambda p: p.digest)


def draw_evenly(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """At most ``most`` pictures, taken from the folders in turn, so that a large folder does not outweigh a small one."""
    folders: dict[Path, list[Picture]] = {}
    for picture in sorted(pictures, key=lambda p: p.digest):
        folders.setdefault(picture.path.parent, []).append(picture)
    turns = itertools.zip_longest(*(folders[key] for key in sorted(folders, key=lambda k: folders[k][0].digest)))
    return [p for turn in turns for p in turn if p is not None][:most]


def read_pictures(pictures: Sequence[Picture], spec: ImageInput, folder: Path) -> PictureSet:
    """Read ``pictures`` as the device would. A few broken ones are left out and named; many are an error."""
    sources, tensors, broken = [], [], []
    for picture in pictures:
        try:
            tensors.append(image_tensor(picture.path, spec))
            sources.append(picture)
        except PictureError as error:
            broken.append(str(error))
    if len(sources) < MIN_PICTURES or len(broken) > MAX_BROKEN_SHARE * len(pictures):
        named = f": {'; '.join(broken[:5])}" if broken else ""
        raise PicturesError(
            f"{folder}: expected at least {MIN_PICTURES} pictures that can be read and at most "
            f"{MAX_BROKEN_SHARE:.0%} that cannot, found {len(sources)} and {len(broken)}{named}"
        )
    return PictureSet(tuple(sources), np.concatenate(tensors), tuple(broken))
