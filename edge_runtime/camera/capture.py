"""A thread that reads and prepares pictures beside the interpreter: the newest wins, a lost camera is opened again."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

import numpy as np

from edge_runtime.camera.sources import Shot, Source
from edge_runtime.errors import EdgeRuntimeError, SourceError
from edge_runtime.image_input import ImageInput

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds between attempts to open a lost camera: 1, 2, 4, ... 30
BROKEN_IN_A_ROW = 50  # frames, after which a camera counts as lost
BLANK_IN_A_ROW = 50  # frames, after which a person is told
BLANK_CONTRAST = 8  # of 255: a frame with less is no picture (a dead sensor, a closed lid, a night without light)


class Frame(NamedTuple):
    """A picture that is ready for the backbone.

    ``number``: from 1, of all pictures that the source gave. ``captured``: when, on the monotonic clock, in seconds.
    ``image``: uint8 (1, height, width, channels) as ``spec`` wants it.
    """

    number: int
    captured: float
    shot: Shot
    image: np.ndarray
    spec: ImageInput
    prepare_ms: float


@dataclass
class Counts:
    """The counts of one run: ``captured = answered or waiting + dropped + broken + blank``. Each has one writer."""

    captured: int = 0
    dropped: int = 0  # replaced by a newer one before anybody took them
    broken: int = 0  # torn or no picture
    blank: int = 0
    lost: int = 0  # times that the camera went away


class Capture:
    """``source``: already open; ``reopen`` opens it again when it is lost, and raises ``SourceError`` until it can.

    ``keep_all``: wait for each frame to be taken rather than replace it. ``interval``: seconds between frames at least.
    ``report``: told once when the camera goes and once when it is back. ``pause``: waits so many seconds or until the
    capture is stopped, and tells whether it was; tests put a clock of their own here.
    """

    def __init__(
        self,
        source: Source,
        reopen: Callable[[], Source],
        spec: ImageInput,
        *,
        keep_all: bool = False,
        interval: float = 0.0,
        show: Callable[[], bool] = lambda: False,
        report: Callable[[str], None] = lambda message: None,
        pause: Optional[Callable[[float], bool]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec  # whoever changes the model changes this; frames that are under way keep the old one
        self.counts = Counts()
        self.connected = True
        self.failure: Optional[BaseException] = None  # what ended the thread, where nobody thought of it
        self.last_sign = clock()  # of life: a picture, or an attempt to get the camera back
        self._source, self._reopen = source, reopen
        self._keep_all, self._interval, self._next_due = keep_all, interval, 0.0
        self._show, self._report, self._clock = show, report, clock
        self._stop = threading.Event()
        self._pause = self._stop.wait if pause is None else pause
        self._changed = threading.Condition()
        self._waiting: Optional[Frame] = None
        self._ended = False
        self._broken_in_a_row = self._blank_in_a_row = 0
        self._lost_since, self._delay = 0.0, FIRST_DELAY
        self._thread = threading.Thread(target=self.run, name="capture", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> bool:
        """Ask the thread to end and let go of the camera; False where a driver holds it longer than ``timeout``."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """No frame will come any more."""
        with self._changed:
            return self._ended and self._waiting is None

    def take(self, timeout: float) -> Optional[Frame]:
        """The newest frame, once; None where none came in ``timeout`` seconds, or one for another ``spec``."""
        with self._changed:
            if self._waiting is None and not self._ended:
                self._changed.wait(timeout)
            frame, self._waiting = self._waiting, None
            self._changed.notify_all()
            if frame is not None and frame.spec != self.spec:  # prepared for the model before this one
                self.counts.dropped += 1
                return None
            return frame

    def run(self) -> None:
        """The thread's body."""
        source: Optional[Source] = self._source
        try:
            while source is not None:
                try:
                    reason = self._read(source)
                finally:
                    self._close(source)
                source = None if reason is None else self._open_again(reason)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self, source: Source) -> Optional[str]:
        """Until the end or until stopped: None. Until the camera is lost: why."""
        self._broken_in_a_row = 0
        while not self._stop.is_set():
            try:
                shot = source.read(show=self._show()) if self._wait_until_due(source) else None
            except SourceError as error:
                return str(error)
            except Exception as error:  # a driver's, that nobody thought of: the next frame may be whole
                self._count(broken=error)
                if not source.live and self._broken_in_a_row >= BROKEN_IN_A_ROW:  # nothing else would end it
                    raise
            else:
                if shot is None:
                    return None
                self._receive(shot)
            if source.live and self._broken_in_a_row >= BROKEN_IN_A_ROW:
                return f"{BROKEN_IN_A_ROW} broken frames in a row"
        return None

    def _wait_until_due(self, source: Source) -> bool:
        """Hold the rate down: a camera's frames are passed over, a file waits. False at the end."""
        if not self._interval:
            return True
        while source.live and self._clock() < self._next_due and not self._stop.is_set():
            if not source.skip():
                return False
            self.last_sign = self._clock()
        if not source.live and self._clock() < self._next_due and self._pause(self._next_due - self._clock()):
            return False
        # Frames keep their beat; after a long pause (a suspended process, a lost camera) it begins anew, without a burst.
        now = self._clock()
        self._next_due = (self._next_due if now - self._next_due < self._interval else now) + self._interval
        return True

    def _receive(self, shot: Shot) -> None:
        if not self.connected:  # only a picture proves it: some cameras open and give none
            self.connected, self._delay = True, FIRST_DELAY
            self._report(f"camera back after {self._clock() - self._lost_since:.0f} s")
        start, spec = self._clock(), self.spec
        try:
            image = shot.tensor(spec)
        except Exception as error:  # noqa: BLE001 - mostly a PictureError; whatever it is, it is one frame's
            self._count(broken=error)
            return
        self._count()
        if is_blank(image):
            self._count_blank()
            return
        self._blank_in_a_row = 0
        self._put(Frame(self.counts.captured, start, shot, image, spec, (self._clock() - start) * 1000))

    def _count(self, broken: Optional[Exception] = None) -> None:
        self.last_sign = self._clock()
        self.counts.captured += 1
        if broken is None:
            self._broken_in_a_row = 0
            return
        self._broken_in_a_row += 1
        self.counts.broken += 1
        if self.counts.broken == 1:
            self._report(f"a broken frame was skipped; further ones are only counted ({_words(broken)})")

    def _count_blank(self) -> None:
        self.counts.blank += 1
        self._blank_in_a_row += 1
        if self._blank_in_a_row == BLANK_IN_A_ROW:
            self._report(
                f"{BLANK_IN_A_ROW} frames without contrast: darkness, or a dead camera; answers stay as they are"
            )

    def _put(self, frame: Frame) -> None:
        with self._changed:
            while self._keep_all and self._waiting is not None and not self._stop.is_set():
                self._changed.wait(0.5)
            if self._waiting is not None:
                self.counts.dropped += 1
            self._waiting = frame
            self._changed.notify_all()

    def _open_again(self, reason: str) -> Optional[Source]:
        """A new source, after as many attempts as it takes; None when stopped."""
        if self.connected:
            self.connected = False
            self.counts.lost += 1
            self._lost_since = self._clock()
            self._report(f"camera lost: {reason}; trying again until it is back")
        while not self._pause(self._delay):
            self.last_sign = self._clock()
            self._delay = min(2 * self._delay, LONGEST_DELAY)
            try:
                return self._reopen()
            except SourceError:
                continue
            except Exception as error:  # noqa: BLE001 - as long as it takes, whatever a driver says meanwhile
                self._report(f"camera cannot be opened: {_words(error)}; trying again")
        return None

    def _close(self, source: Source) -> None:
        try:
            source.close()
        except Exception as error:  # noqa: BLE001 - it is gone for us; another may be opened
            self._report(f"camera does not close: {_words(error)}")


def _words(error: Exception) -> str:
    """One line; with the kind of error where it is none of ours."""
    said = " ".join(str(error).split())
    return said if isinstance(error, EdgeRuntimeError) else f"{type(error).__name__}: {said}"


def is_blank(image: np.ndarray) -> bool:
    """Has ``image``, uint8 (1, height, width, ...), less contrast than a picture has? Every 64th pixel is looked at."""
    some = image[0, ::8, ::8].copy()
    return int(some.max()) - int(some.min()) < BLANK_CONTRAST
