"""The loop of ``edge-runtime camera``: frames in, lines out, and what else must be looked at now and then."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from edge_runtime.camera.camera import Camera, Seen
from edge_runtime.camera.frame_lines import (
    event_json,
    event_text,
    frame_json,
    frame_text,
    heads_document,
    labels_document,
    takeover_json,
)
from edge_runtime.camera.lines import Lines, say
from edge_runtime.camera.reload import Reloader, open_copy
from edge_runtime.camera.smoothing import Rule
from edge_runtime.camera.vitals import Rate, Thermometer, notify_systemd
from edge_runtime.counting import count_of
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.identity import model_document, model_text
from edge_runtime.versions import PREVIOUS

TICK = 0.5  # seconds at most between looks at signals, the model file and the watchdog
PULSE = 5.0  # seconds between signs of life to systemd


@dataclass(frozen=True)
class CameraOptions:
    """The options that the user chose."""

    file: str
    source: str
    heads: Sequence[str]
    joint: bool
    rule: Rule
    size: Optional[Tuple[int, int]]
    fps: Optional[float]
    loop: bool
    max_frames: Optional[int]
    lines: str  # "event" or "frame": what gets a line
    as_json: bool
    top_k: Optional[int]
    serve: Optional[str]
    viewers: int
    token_file: Optional[str]
    reload: bool
    head_packs: Sequence[str]
    interpreter: Optional[str]
    threads: Optional[int]
    isolate: bool
    trusted_key: Optional[str]


class Model:
    """The classifier that is open now; closed at the end, whichever it is then."""

    def __init__(self, options: CameraOptions) -> None:
        self._options = options
        self.classifier = self.open(isolate=options.isolate)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.classifier.close()

    def open(self, *, isolate: bool) -> MultiHeadClassifier:
        """Open the file, or a copy of it if the file may be replaced; see ``reload.open_copy``."""
        options = self._options
        packs = options.head_packs or None
        opening: Callable[..., MultiHeadClassifier] = open_copy if options.reload else MultiHeadClassifier
        return opening(
            options.file,
            interpreter=options.interpreter,
            num_threads=options.threads,
            head_packs=packs,
            isolate=isolate,
            trusted_key=options.trusted_key,
        )

    @property
    def document(self) -> Dict[str, Any]:
        """Who it is."""
        return model_document(self._options.file, self.classifier.metadata.identity, self.classifier.file_digest)

    def replace(self, new: MultiHeadClassifier) -> None:
        self.classifier.close()
        self.classifier = new


class Loop:
    """``page``: a ``LivePage`` or None. ``report`` is told what a person should know, once."""

    def __init__(
        self, options: CameraOptions, camera: Camera, model: Model, page: Any, report: Callable[[str], None]
    ) -> None:
        self._options, self._camera, self._model, self._page = options, camera, model, page
        self._lines = Lines(sys.stdout.fileno(), report)
        self._rate, self._temperature = Rate(), Thermometer()
        self._answered, self._started, self._next_pulse = 0, time.monotonic(), 0.0
        self._latest: Optional[Seen] = None
        self._report, self._identity = report, model.document
        self._replaced: Optional[Dict[str, Any]] = None  # who was there before, until a frame's line says so
        self._reloader = None
        if options.reload:
            self._reloader = Reloader(options.file, lambda: model.open(isolate=True), camera.heads_of, report)

    def run(self) -> None:
        """Until the source ends, the camera is stopped, or enough frames are answered."""
        say(f"model: {model_text(self._identity)}")
        notify_systemd("READY=1")
        try:
            while self._camera.running and self._answered != self._options.max_frames:
                seen = self._camera.next(timeout=TICK, top_k=self._options.top_k)
                now = time.monotonic()
                if seen is not None:
                    self._answer(seen, now)
                self._tick(now)
        finally:
            notify_systemd("STOPPING=1")
            if self._reloader is not None:
                self._reloader.close()
            self._summary()

    def _answer(self, seen: Seen, now: float) -> None:
        self._answered += 1
        self._rate.tick(now)
        self._latest = seen
        if self._page is not None:
            self._page.answered(now)
            self._page.hub.add_events(event.to_dict() for event in seen.events)
        if self._options.lines == "frame":
            self._lines.write(self._frame_line(seen, now))
        else:
            for event in seen.events:
                self._lines.write(event_json(event, self._identity) if self._options.as_json else event_text(event))

    def _frame_line(self, seen: Seen, now: float) -> str:
        rate, dropped = self._rate(now), self._camera.counts.dropped
        if self._options.as_json:
            model, self._replaced = {"model": self._identity, "replaces": self._replaced}, None
            return frame_json(seen, fps=rate, dropped=dropped, temperature=self._temperature(now), **model)
        return frame_text(seen, fps=rate, dropped=dropped)

    def _tick(self, now: float) -> None:
        if self._page is not None and self._page.hub.due(now):
            shot = None if self._latest is None else self._latest.frame.shot
            labels = partial(labels_document, self._camera.heads.latest())
            self._page.hub.publish(now, shot, self._state(now), labels)
        if now >= self._next_pulse and not self._camera.stalled:
            # Where a driver holds the reading thread no pulse goes out, and systemd starts the process anew.
            self._next_pulse = now + PULSE
            notify_systemd("WATCHDOG=1")
        new = None if self._reloader is None else self._reloader.poll()
        if new is not None:
            self._take_over(new)

    def _take_over(self, new: MultiHeadClassifier) -> None:
        """Between two frames; the log and the lines say what went and what came."""
        self._camera.use(new)
        self._model.replace(new)
        old, self._identity = self._identity, self._model.document
        file = self._options.file
        back = f"; edge-runtime rollback {file} goes back" if os.path.exists(file + PREVIOUS) else ""
        self._report(f"model: {model_text(self._identity)} in place of {model_text(old)}{back}")
        if self._options.as_json and self._options.lines == "event":
            self._lines.write(takeover_json(time.time(), self._identity, old))
        else:
            self._replaced = old

    def _state(self, now: float) -> Dict[str, Any]:
        """The document of ``/state.json``."""
        counts, latest = self._camera.counts, self._latest
        return {
            "model": os.path.basename(self._options.file),
            "identity": self._identity,
            "source": self._camera.source_name,
            "connected": self._camera.connected,
            "time": round(time.time(), 3),
            "frame": None if latest is None else latest.frame.number,
            "fps": round(self._rate(now), 2),
            "answered": self._answered,
            "captured": counts.captured,
            "dropped": counts.dropped,
            "broken": counts.broken,
            "blank": counts.blank,
            "temperature": self._temperature(now),
            "latency_ms": {} if latest is None else {k: round(ms, 3) for k, ms in latest.result.latency_ms.items()},
            "heads": heads_document(self._camera.heads),
        }

    def _summary(self) -> None:
        counts, seconds = self._camera.counts, max(time.monotonic() - self._started, 1e-9)
        rate = f"{self._answered / seconds:.1f} a second"
        say(
            f"{count_of(self._answered, 'frames')} answered in {seconds:.1f} s ({rate}); "
            f"{counts.captured} captured, {counts.dropped} dropped, {counts.broken} broken, {counts.blank} blank; "
            f"camera lost {count_of(counts.lost, 'times')}"
        )
