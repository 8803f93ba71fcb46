"""The state of the device and the loop: frames per second, temperature, messages to the service manager."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections import deque
from typing import Deque, Optional

THERMAL = "/sys/class/thermal/thermal_zone0/temp"  # thousandths of a degree Celsius; the processor's on a Pi

_M_ARENA_MAX = -8  # mallopt(3)


def keep_memory_flat() -> bool:
    """Let the threads of this process share two heaps; False where the C library knows no such thing.

    glibc gives a heap to almost every thread, up to 8 for each core, and what threads leave behind in each adds up over
    weeks: resident memory creeps though nothing leaks.
    """
    if not sys.platform.startswith("linux"):  # Windows has no such library to open, macOS no such call
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2))
    except (OSError, AttributeError):
        return False


class Rate:
    """Events per second over the last ``window`` seconds, on a clock that never jumps."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._times: Deque[float] = deque(maxlen=1000)

    def tick(self, now: float) -> None:
        self._times.append(now)

    def __call__(self, now: float) -> float:
        while self._times and now - self._times[0] > self._window:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(now - self._times[0], 1e-9)


class Thermometer:
    """The processor's temperature in degrees Celsius, read every ``interval`` seconds; None where there is none."""

    def __init__(self, path: str = THERMAL, interval: float = 5.0) -> None:
        self._path, self._interval = path, interval
        self._read_at: Optional[float] = None
        self._value: Optional[float] = None

    def __call__(self, now: float) -> Optional[float]:
        if self._read_at is None or now - self._read_at >= self._interval:
            self._read_at, self._value = now, self._read()
        return self._value

    def _read(self) -> Optional[float]:
        try:
            with open(self._path, encoding="ascii") as file:
                return round(int(file.read()) / 1000, 1)
        except (OSError, ValueError):
            return None


def notify_systemd(message: str) -> bool:
    """Tell systemd ``READY=1``, ``WATCHDOG=1`` or ``STOPPING=1`` (sd_notify(3)); False where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address[0] == "@":  # an abstract socket's name begins with a zero byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(message.encode("ascii"), address)
    except OSError:
        return False
    return True
