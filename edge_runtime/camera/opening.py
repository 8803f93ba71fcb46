"""From what the user calls a camera to the source that reads it; each is imported only when it is used."""

from __future__ import annotations

import os

from edge_runtime.camera.sources import PictureFolder, Source, SourceOptions
from edge_runtime.errors import SourceError
from edge_runtime.preprocess import PICTURE_SUFFIXES


def open_source(address: str, options: SourceOptions) -> Source:
    """Open what ``address`` names.

    ``picamera2`` or ``picamera2:1``; ``0`` or ``/dev/video0`` (V4L2); a folder of pictures, a picture, a video file;
    ``http://`` or ``https://`` (MJPEG); ``rtsp://`` and whatever else OpenCV opens; ``auto``: picamera2 where it is
    installed, else ``/dev/video0``. Raises ``SourceError``.
    """
    kind, _, rest = address.partition(":")
    if address == "auto":
        address = kind = "picamera2" if _has_picamera2() else "0"
    if kind == "picamera2":
        from edge_runtime.camera.source_picamera2 import PiCamera

        return PiCamera(_camera_number(address, rest), options)
    if kind in ("http", "https"):
        from edge_runtime.camera.source_mjpeg import MjpegStream

        return MjpegStream(address)
    if os.path.isdir(address) or address.lower().endswith(PICTURE_SUFFIXES):
        return PictureFolder(address, loop=options.loop)
    from edge_runtime.camera.source_opencv import OpenCvSource

    return OpenCvSource(address, options)


def _has_picamera2() -> bool:
    import importlib.util

    return importlib.util.find_spec("picamera2") is not None


def _camera_number(address: str, text: str) -> int:
    if text and not text.isdecimal():
        raise SourceError(f"{address}: expected picamera2 or picamera2:NUMBER, found {text!r} for the number")
    return int(text or 0)
