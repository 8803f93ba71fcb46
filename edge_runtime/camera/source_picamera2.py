"""Raspberry Pi cameras through picamera2, which comes with the system: ``apt install python3-picamera2``.

The camera's hardware delivers two streams: one to look at, and a small one of the model's size, so that the CPU resizes
nothing. What picamera2 calls BGR888 is R, G, B in memory, the order that the model wants (its names count from the most
significant byte). The small stream can be RGB on a Pi 5; up to the Pi 4 it must be YUV420.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Optional, Tuple

import numpy as np
from PIL import Image

from edge_runtime.camera.sources import Shot, Source, SourceOptions
from edge_runtime.errors import SourceError
from edge_runtime.image_input import ImageInput

RGB, YUV = "BGR888", "YUV420"
SHOWN = (640, 480)  # what viewers see, unless a size is asked for
TIMEOUT = 5.0  # seconds without a picture; libcamera reports a dead sensor in its log only
_BROKEN = (RuntimeError, OSError, IndexError, TimeoutError, FutureTimeout)


class PiCamera(Source):
    """Camera ``number`` of the Pi."""

    def __init__(self, number: int, options: SourceOptions) -> None:
        self._name = f"picamera2:{number}"
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise SourceError(
                f"picamera2 cannot be imported ({error}); apt install python3-picamera2, and make the virtual "
                "environment with --system-site-packages"
            ) from error
        shown, self._small = stream_sizes(options.spec, options.size or SHOWN)
        try:
            self._camera = Picamera2(number)
        except _BROKEN as error:
            raise SourceError(
                f"{self._name}: no such camera ({_words(error)}); see rpicam-hello --list-cameras"
            ) from error
        try:
            self._format = self._start(shown)
        except _BROKEN as error:
            self._camera.close()
            raise SourceError(f"{self._name}: cannot be started ({_words(error)})") from error

    def read(self, *, show: bool) -> Optional[Shot]:
        request = self._request()
        try:
            small = request.make_array("lores")
            shown = request.make_array("main") if show else None
        except _BROKEN as error:
            raise SourceError(f"{self._name}: {_words(error)}") from error
        finally:
            request.release()  # the camera has few buffers, and stops when none comes back
        scaled = small if self._format == RGB else rgb_of_yuv420(small, self._small)
        return Shot(scaled if shown is None else shown, scaled)

    def skip(self) -> bool:
        self._request().release()
        return True

    def close(self) -> None:
        self._camera.stop()
        self._camera.close()

    def _start(self, shown: Tuple[int, int]) -> str:
        # A preview configuration is full-range BT.601, as JPEG is; that of a video would be limited in range.
        def configuration(small_format: str) -> Any:
            return self._camera.create_preview_configuration(
                main={"size": shown, "format": RGB}, lores={"size": self._small, "format": small_format}, buffer_count=4
            )

        small_format = RGB
        try:
            self._camera.configure(configuration(RGB))
        except RuntimeError as error:
            if "YUV" not in str(error):
                raise
            small_format = YUV
            self._camera.configure(configuration(YUV))
        self._camera.start()
        return small_format

    def _request(self) -> Any:
        try:
            return self._camera.capture_request(wait=False).get_result(timeout=TIMEOUT)
        except _BROKEN as error:
            reason = _words(error) or f"no picture for {TIMEOUT:.0f} s"
            raise SourceError(f"{self._name}: {reason}") from error


def stream_sizes(spec: ImageInput, shown: Tuple[int, int]) -> Tuple[Tuple[int, int], Tuple[int, int]]:
    """(width, height) of the stream to look at and of the small one, so that the hardware does what ``spec.fit`` says.

    Both streams show the same part of the scene: cropping is done by giving both the model's aspect, stretching by
    giving it to the small one only, padding by a small one that is as large as fits. Sides are even, as YUV420 wants.
    """
    width, height = shown
    if spec.fit == "crop":
        scale = min(width / spec.width, height / spec.height)
        width, height = round(spec.width * scale), round(spec.height * scale)
    small = (float(spec.width), float(spec.height))
    if spec.fit == "pad":
        scale = min(spec.width / width, spec.height / height)
        small = (width * scale, height * scale)
    even = [2 * max(1, round(side / 2)) for side in small]
    # The small stream must not exceed the other.
    return (2 * max(width // 2, even[0] // 2), 2 * max(height // 2, even[1] // 2)), (even[0], even[1])


def rgb_of_yuv420(planes: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """uint8 RGB (height, width, 3) of ``planes``, uint8 (height * 3 / 2, stride): Y, then U, then V at half the size.

    A row of ``planes`` is as long as the hardware likes (stride >= width), and holds two rows of U or of V.
    """
    width, height = size
    stride = planes.shape[1]
    chroma = planes[height : height * 3 // 2].reshape(2, height // 2, stride // 2)[:, :, : width // 2]
    bands = [Image.fromarray(np.ascontiguousarray(planes[:height, :width]))]
    bilinear: Any = 2  # Pillow's number for it; its name has moved
    bands += [Image.fromarray(np.ascontiguousarray(plane)).resize(size, bilinear) for plane in chroma]
    return np.asarray(Image.merge("YCbCr", bands).convert("RGB"))


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
