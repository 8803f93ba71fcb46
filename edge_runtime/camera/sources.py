"""The sources of pictures: one protocol, and the addresses that name a source.

Each source lives in a module of its own that imports its library when it is opened, so that a device needs only the one
it uses.
"""

from __future__ import annotations

import abc
import os
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple, Union
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from edge_runtime.errors import SourceError
from edge_runtime.folders import pictures_in
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import PICTURE_SUFFIXES, encoded_tensor, image_tensor

CAMERA_SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080))  # what practically every camera can deliver


class Shot(NamedTuple):
    """One picture as a source gave it.

    ``picture``: uint8 RGB (height, width, 3), or the bytes of a JPEG as the camera sent them, or the path of a file.
    ``scaled``: the same scene, RGB, scaled by the camera's hardware to the model's size; None where it cannot.
    """

    picture: Union[np.ndarray, bytes, str]
    scaled: Optional[np.ndarray] = None

    @property
    def name(self) -> Optional[str]:
        return self.picture if isinstance(self.picture, str) else None

    def tensor(self, spec: ImageInput) -> np.ndarray:
        """The backbone's input: uint8 ``spec.shape``. Raises ``PictureError`` for what is torn or no picture."""
        if self.scaled is not None:
            return image_tensor(self.scaled, spec)
        if isinstance(self.picture, bytes):
            return encoded_tensor(self.picture, spec, name="a frame")
        return image_tensor(self.picture, spec)


class Source(abc.ABC):
    """Something that gives one picture after the other. Opening is constructing; only one thread reads.

    ``live``: pictures come when they come, and those that nobody takes are lost. A folder or a file is not live: it
    waits to be read, and ends.
    """

    live = True

    @abc.abstractmethod
    def read(self, *, show: bool) -> Optional[Shot]:
        """The next picture; None at the end. ``show``: somebody watches, so ``picture`` should be worth seeing.

        Waits for it, some seconds at most. Raises ``SourceError`` where the source is gone.
        """

    def skip(self) -> bool:
        """Pass over a picture, cheaper than reading it; False at the end."""
        return self.read(show=False) is not None

    def close(self) -> None:  # noqa: B027  # most need not close anything
        """Let go of the camera. Called once, by the thread that read."""


@dataclass(frozen=True)
class SourceOptions:
    """What a source may need to know about its reader.

    ``spec``: the picture that the model takes. ``size``: (width, height) asked of the camera; None: the smallest that
    covers the model's. ``loop``: begin again at the end of a folder or file.
    """

    spec: ImageInput
    size: Optional[Tuple[int, int]] = None
    loop: bool = False

    @property
    def camera_size(self) -> Tuple[int, int]:
        """(width, height) to ask of a camera: few pixels cost little to carry, decode and resize."""
        if self.size:
            return self.size
        fits = (s for s in CAMERA_SIZES if s[0] >= self.spec.width and s[1] >= self.spec.height)
        return next(fits, CAMERA_SIZES[-1])


def shown_address(address: str) -> str:
    """``address`` without the user and the password that it may hold: messages end in logs."""
    parts = urlsplit(address) if "://" in address else None
    if parts is None or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


class PictureFolder(Source):
    """Every picture in a folder and its sub-folders, by name; or a single picture."""

    live = False

    def __init__(self, path: str, *, loop: bool = False) -> None:
        self._paths = [path] if os.path.isfile(path) else pictures_in(path)
        self._next, self._loop = 0, loop
        if not self._paths:
            wanted = f"pictures ({', '.join(s[1:] for s in PICTURE_SUFFIXES[:4])}, ...)"
            found = "a folder without any" if os.path.isdir(path) else "no such file or folder"
            raise SourceError(f"{path}: expected {wanted}, found {found}")

    def read(self, *, show: bool) -> Optional[Shot]:
        if self._next == len(self._paths):
            if not self._loop:
                return None
            self._next = 0
        self._next += 1
        return Shot(self._paths[self._next - 1])
