"""Fakes for the camera tests: hardware, clock and interpreter. Imports no TensorFlow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from edge_runtime.camera.capture import Capture, Frame
from edge_runtime.camera.sources import Shot, Source
from edge_runtime.errors import SourceError
from edge_runtime.image_input import ImageInput
from edge_runtime.joint import JointInfo
from edge_runtime.metadata import HeadInfo, Metadata, SeamTensor
from tests.laws import joint_table

SPEC = ImageInput(32, 32)


def pixels(seed: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Noise, which is never blank: uint8 (height, width, 3) for ``size`` (width, height)."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


class Script(Source):
    """A source that follows ``steps``: an array or bytes are a shot, an exception is raised; then it ends."""

    def __init__(self, steps: Iterable[Any], *, live: bool = True, before: Callable[[int], None] | None = None) -> None:
        self.steps, self.live = list(steps), live
        self.reads = self.skips = self.closed = 0
        self.shown: list[bool] = []
        self._before = before

    def read(self, *, show: bool) -> Shot | None:
        if self._before is not None:
            self._before(self.reads)
        self.reads += 1
        self.shown.append(show)
        if not self.steps:
            return None
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return Shot(step)

    def skip(self) -> bool:
        self.skips += 1
        if self.steps:
            self.steps.pop(0)
        return bool(self.steps)

    def scores(self, features: np.ndarray, heads: Iterable[str]) -> tuple[np.ndarray, ...]:
        return tuple(self.head_scores(features, head) for head in heads)

    def close(self) -> None:
        self.closed += 1


class Clock:
    """A clock whose time passes only when a test sets it, or when something waits."""

    def __init__(self, limit: float = 1e9) -> None:
        self.now, self.waits, self._limit = 0.0, [], limit

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """As ``threading.Event.wait``. Returns True (stopped) once ``limit`` seconds have passed."""
        self.waits.append(seconds)
        self.now += seconds
        return self.now > self._limit


def gone(reason: str = "unplugged") -> SourceError:
    return SourceError(f"camera: {reason}")


def drain(capture: Capture) -> list[Frame]:
    """All frames of a running capture, taken as fast as they come."""
    frames, until = [], time.monotonic() + 20
    while not capture.ended and time.monotonic() < until:
        frame = capture.take(0.1)
        if frame is not None:
            frames.append(frame)
    return frames


class CountingClassifier:
    """A stand-in for ``MultiHeadClassifier`` with given scores, which counts the runs.

    ``scores``: by head, the scores of its runs in order; the last ones repeat. ``joint``: those of the joint list, for
    the labels of all heads and none.
    """

    def __init__(
        self,
        scores: dict[str, Sequence[Sequence[float]]],
        spec: ImageInput = SPEC,
        joint: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self.head_names = tuple(scores)
        labels = {name: tuple(f"{name} {i}" for i in range(len(rows[0]))) for name, rows in scores.items()}
        heads = tuple(HeadInfo(name, labels[name]) for name in scores)
        self.metadata = Metadata(spec, "digest", (SeamTensor("features", (4,)),), heads)
        self.heads = heads
        self.backbone_runs = self.closed = 0
        self.runs: dict[str, list[int]] = {name: [] for name in scores}  # by head: the frames that it ran on, from 0
        self._scores = scores
        self.joint: JointInfo | None = None
        if joint is not None:
            self.joint = JointInfo.from_json(joint_table(self.metadata), self.head_names)
            self._scores, self.runs["joint"] = {**scores, "joint": joint}, []

    def features_of(self, image: np.ndarray) -> np.ndarray:
        assert image.shape == (1, self.metadata.input.height, self.metadata.input.width, 3)
        self.backbone_runs += 1
        return np.zeros((1, 4), np.int8)

    def head_scores(self, features: np.ndarray, head: str) -> np.ndarray:
        rows = self._scores[head]
        row = rows[min(len(self.runs[head]), len(rows) - 1)]
        self.runs[head].append(self.backbone_runs - 1)
        return np.asarray(row, np.float32)

    def scores(self, features: np.ndarray, heads: Iterable[str]) -> tuple[np.ndarray, ...]:
        return tuple(self.head_scores(features, head) for head in heads)

    def close(self) -> None:
        self.closed += 1

    def joint_scores(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self.head_scores(features, "joint")
        ends = np.cumsum([0, *(len(head.labels) for head in self.heads), 1])
        return scores, np.asarray([scores[a:b].sum() for a, b in itertools.pairwise(ends)], np.float32)


def frame(number: int = 1, spec: ImageInput = SPEC) -> Frame:
    shot = Shot(pixels(number))
    return Frame(number, 0.0, shot, shot.tensor(spec), spec, 1.0)
