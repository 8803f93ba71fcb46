"""``camera --record``: pictures of the scene as the camera sees it, to calibrate and to train with."""

from __future__ import annotations

import io
import os
import shutil
import time
from typing import Callable, List, Optional

import numpy as np
from PIL import Image

from edge_runtime.camera.capture import Capture, Frame
from edge_runtime.camera.sources import Shot
from edge_runtime.counting import count_of
from edge_runtime.preprocess import PICTURE_SUFFIXES, picture_of

DIFFERENT = 6.0  # of 255, mean difference of small grey copies: above a sensor's noise, below a hand that comes in
INTERVAL = 1.0  # seconds between pictures of a live source at least, unless --fps says otherwise
_SIDE = 16  # pixels of the small copies
_BOX = 4  # the number of a filter of Pillow: the mean of what falls on a pixel
_TICK = 0.5  # seconds


class Gallery:
    """Small grey copies of the saved pictures: float32 (pictures, pixels)."""

    def __init__(self) -> None:
        self._kept: List[np.ndarray] = []

    def takes(self, image: np.ndarray) -> bool:
        """Is ``image``, uint8 (1, height, width, channels), unlike all that was kept? Then it is kept too."""
        small = picture_of(image[0]).convert("L").resize((_SIDE, _SIDE), _BOX)
        grey = np.asarray(small, np.float32).ravel()
        if self._kept and float(np.abs(np.stack(self._kept) - grey).mean(1).min()) < DIFFERENT:
            return False
        self._kept.append(grey)
        return True


def record(capture: Capture, count: int, folder: str, *, stopped: Callable[[], bool], say: Callable[[str], None]) -> int:
    """Fill ``folder`` with ``count`` pictures that differ from each other; returns how many there were.

    Fewer only where the source ends or ``stopped`` says so. ``capture`` runs already. Raises ``OSError``.
    """
    os.makedirs(folder, exist_ok=True)
    gallery, kept = Gallery(), 0
    while kept < count and not capture.ended and not stopped():
        frame: Optional[Frame] = capture.take(_TICK)
        if frame is not None and gallery.takes(frame.image):
            kept += 1
            save(frame.shot, os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S')}-{kept:04d}"))
            if kept in (1, count) or kept % 10 == 0:
                say(f"{kept} of {count_of(count, 'pictures')} in {folder}")
    return kept


def save(shot: Shot, stem: str) -> str:
    """The picture as it came, where it came as a file or a JPEG; returns its path."""
    picture = shot.picture
    if isinstance(picture, str):
        path = stem + (os.path.splitext(picture)[1].lower() or PICTURE_SUFFIXES[0])
        shutil.copyfile(picture, path)
        return path
    data = picture if isinstance(picture, bytes) else _jpeg(picture)
    with open(stem + ".jpg", "xb") as file:
        file.write(data)
    return stem + ".jpg"


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
