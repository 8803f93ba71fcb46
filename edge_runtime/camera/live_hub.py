"""Between the loop and those who watch it: the newest state, handed to each viewer as fast as the viewer takes it.

The loop puts a reference here and goes on; pictures are encoded by the threads of the viewers, once for all of them, and
not at all while nobody watches.
"""

from __future__ import annotations

import io
import json
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Mapping, Optional

import numpy as np
from PIL import Image

from edge_runtime.camera.sources import Shot
from edge_runtime.escape import printable
from edge_runtime.preprocess import FORMATS

MAX_RATE = 10.0  # states a second
MAX_EVENTS = 50  # that a new viewer is shown
SHOWN_SIDE = 960  # pixels; larger pictures are made smaller before they are sent
JPEG_QUALITY = 80


class Snapshot:
    """One state. ``sequence``: from 1. ``document``: of ``/state.json``. ``labels``: makes that of ``/labels.json``."""

    def __init__(
        self, sequence: int, shot: Optional[Shot], document: Mapping[str, Any], labels: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.sequence, self.document, self.labels = sequence, document, labels
        self._shot, self._lock = shot, threading.Lock()
        self._encoded: Optional[bytes] = None

    def json(self) -> bytes:
        return encoded(self.document)

    def jpeg(self) -> Optional[bytes]:
        """The picture; None where there is none, or a file that was there no longer is."""
        with self._lock:
            if self._encoded is None and self._shot is not None:
                self._encoded = encode(self._shot)
            return self._encoded


class Hub:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._latest: Optional[Snapshot] = None
        self._events: Deque[Dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._event_count = 0
        self._next_due = 0.0
        self.watching = 0  # viewers of the picture
        self.closed = False

    def due(self, now: float) -> bool:
        """Is it time for the next state? ``now``: seconds on the monotonic clock."""
        return now >= self._next_due

    def add_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        with self._changed:
            for event in events:
                self._event_count += 1
                self._events.append({"id": self._event_count, **event})

    def publish(
        self,
        now: float,
        shot: Optional[Shot],
        document: Mapping[str, Any],
        labels: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """``labels`` is called by the thread of a viewer that asks, and by nobody else."""
        self._next_due = now + 1 / MAX_RATE
        with self._changed:
            sequence = 1 if self._latest is None else self._latest.sequence + 1
            self._latest = Snapshot(sequence, shot, {**document, "events": list(self._events)}, labels)
            self._changed.notify_all()

    @property
    def latest(self) -> Optional[Snapshot]:
        return self._latest

    def newer(self, sequence: int, timeout: float) -> Optional[Snapshot]:
        """The newest state if it is newer than ``sequence``; waits for it; None after ``timeout`` seconds."""
        with self._changed:
            if not self.closed and (self._latest is None or self._latest.sequence <= sequence):
                self._changed.wait(timeout)
            latest = self._latest
        return latest if latest is not None and latest.sequence > sequence else None

    def enter(self) -> None:
        with self._changed:
            self.watching += 1

    def leave(self) -> None:
        with self._changed:
            self.watching -= 1

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def encoded(document: Mapping[str, Any]) -> bytes:
    """The state as JSON."""
    return printable(json.dumps(document, ensure_ascii=False, separators=(",", ":"))).encode()


def encode(shot: Shot) -> Optional[bytes]:
    """A JPEG of what ``shot`` shows. What a camera sent as JPEG stays as it is."""
    picture = shot.picture
    if isinstance(picture, bytes):
        return picture
    try:
        if isinstance(picture, np.ndarray):
            image = Image.fromarray(picture)
        else:
            with Image.open(picture, formats=tuple(FORMATS)) as file:
                file.draft("RGB", (SHOWN_SIDE, SHOWN_SIDE))
                image = file.convert("RGB")
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    except Exception:  # noqa: BLE001 - Pillow's decoders raise anything, and the page goes on without this one
        return None
    return buffer.getvalue()
