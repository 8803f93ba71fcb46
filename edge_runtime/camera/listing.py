"""Lists the cameras, each with the name that ``--source`` takes."""

from __future__ import annotations

import os
import sys
from typing import List, NamedTuple

V4L2 = "/sys/class/video4linux"


class Found(NamedTuple):
    """``source``: what ``--source`` takes. ``name``: what its maker calls it."""

    source: str
    name: str


def cameras(sysfs: str = V4L2) -> List[Found]:
    """Those of picamera2 and of V4L2; nothing where neither is (Windows and macOS: OpenCV knows no names)."""
    return [*_pi_cameras(), *_v4l2_cameras(sysfs)]


def advice() -> str:
    """Return advice for the case that no camera was found."""
    if sys.platform.startswith("linux"):
        return "no camera found: is it plugged in, and may you read /dev/video0 (group video)?"
    return "cameras have no names here; try --source 0, --source 1 and so on"


def _pi_cameras() -> List[Found]:
    try:
        from picamera2 import Picamera2
    except ImportError:
        return []
    known = Picamera2.global_camera_info()
    return [Found(f"picamera2:{number}", str(camera.get("Model", "?"))) for number, camera in enumerate(known)]


def _v4l2_cameras(sysfs: str) -> List[Found]:
    try:
        nodes = sorted(os.listdir(sysfs), key=lambda name: (len(name), name))
    except OSError:
        return []
    found = []
    for node in nodes:
        # A camera has several nodes; pictures come from its first. The Pi's own processors are nodes too, and no cameras.
        if node.startswith("video") and _read(os.path.join(sysfs, node, "index")) in ("0", ""):
            name = _read(os.path.join(sysfs, node, "name"))
            if not name.startswith(("bcm2835-", "pispbe", "rpi-")):
                found.append(Found(f"/dev/{node}", name or "?"))
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
