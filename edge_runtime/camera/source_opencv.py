"""V4L2 cameras, video files and network streams, through OpenCV."""

from __future__ import annotations

import os
import sys
from typing import Any, List, Optional, Tuple

import numpy as np

from edge_runtime.camera.sources import Shot, Source, SourceOptions, shown_address
from edge_runtime.errors import SourceError

TIMEOUT_MS = 5000  # of a network stream, to open and to read; FFmpeg's own is half a minute
INSTALL = "pip install 'polyhead[camera]', or apt install python3-opencv"


class OpenCvSource(Source):
    """``address``: a number or a device in ``/dev``, the path of a video, or an address that FFmpeg reads."""

    def __init__(self, address: str, options: SourceOptions) -> None:
        self._cv2 = _import_cv2()
        self._name = shown_address(address)
        self._address, self._loop = address, options.loop
        numbered = address.isdecimal()
        # Elsewhere than on Linux a camera has a number and no file.
        self._number = int(address) if numbered and not sys.platform.startswith("linux") else None
        self._device = "" if self._number is not None else f"/dev/video{address}" if numbered else _device(address)
        self.live = numbered or bool(self._device) or "://" in address
        if not self.live and not os.path.isfile(address):
            raise SourceError(
                f"{self._name}: no such file or folder; sources are a camera (picamera2, 0, /dev/video0), a folder, "
                "a picture, a video, or an address (http, https, rtsp)"
            )
        self._capture = self._open(options.camera_size)

    def read(self, *, show: bool) -> Optional[Shot]:
        self._check_device()
        found, frame = self._call(self._capture.read)
        if not found and not self.live and self._loop:
            self._capture.release()
            self._capture = self._open((0, 0))
            found, frame = self._call(self._capture.read)
        if not found or not isinstance(frame, np.ndarray):
            self._check_end()
            return None
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            return Shot(frame)  # what this is not, preparation says
        return Shot(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB))

    def skip(self) -> bool:
        self._check_device()
        found = bool(self._call(self._capture.grab))
        if not found:
            self._check_end()
        return found

    def close(self) -> None:
        self._capture.release()

    def _open(self, size: Tuple[int, int]) -> Any:
        cv2, device = self._cv2, self._device
        try:
            if device or self._number is not None:
                if self._number is not None:
                    capture = cv2.VideoCapture(self._number)
                else:
                    capture = cv2.VideoCapture(os.path.realpath(device), cv2.CAP_V4L2)  # udev's names are links
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
                capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's own queue makes pictures old
            elif self.live:
                capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, *_timeouts(cv2))
            else:
                capture = cv2.VideoCapture(self._address)
        except cv2.error as error:
            raise SourceError(f"{self._name}: OpenCV cannot open it: {' '.join(str(error).split())}") from error
        if not capture.isOpened():
            capture.release()
            what = "camera" if device or self._number is not None else "stream" if self.live else "video"
            raise SourceError(
                f"{self._name}: OpenCV opens no {what} here; is it connected, and not used by another program?"
            )
        return capture

    def _call(self, method: Any) -> Any:
        try:
            return method()
        except self._cv2.error as error:
            raise SourceError(f"{self._name}: {' '.join(str(error).split())}") from error

    def _check_device(self) -> None:
        """Some versions of OpenCV give the last picture again and again when a camera is unplugged."""
        if self._device and not os.path.exists(self._device):
            raise SourceError(f"{self._name}: {self._device} is gone")

    def _check_end(self) -> None:
        """A video ends; a camera does not."""
        if self.live:
            raise SourceError(f"{self._name}: no more pictures")


def _device(address: str) -> str:
    return address if address.startswith("/dev/") else ""


def _timeouts(cv2: Any) -> Tuple[List[int], ...]:
    """For ``VideoCapture``; OpenCV before 4.5.2 has none and keeps its half a minute."""
    names = ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC")
    if not all(hasattr(cv2, name) for name in names):
        return ()
    return ([setting for name in names for setting in (getattr(cv2, name), TIMEOUT_MS)],)


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise SourceError(f"this source needs OpenCV, which cannot be imported ({error}); {INSTALL}") from error
    return cv2
