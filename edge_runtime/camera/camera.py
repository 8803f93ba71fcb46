"""``Camera``: takes pictures from a source, runs the heads that are due, and gives an event when an answer changes.

The command ``edge-runtime camera`` uses it; read ``examples/camera.py`` first.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edge_runtime.camera.capture import Capture, Counts, Frame
from edge_runtime.camera.opening import open_source
from edge_runtime.camera.schedule import HeadPlan, parse_plans
from edge_runtime.camera.smoothing import DEFAULT_RULE, Decision, JointDecision, Rule
from edge_runtime.camera.sources import SourceOptions, shown_address
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import UnknownHeadError
from edge_runtime.inputs import picture_input
from edge_runtime.joint import judge
from edge_runtime.metadata import JOINT
from edge_runtime.results import Category, ClassificationResult, Classifications, top_categories

STALLED_AFTER = 45.0  # seconds without a sign of life; a camera that is lost gives one every 30 s at least

LatestScores = Tuple[str, Sequence[str], np.ndarray]


class Answer(NamedTuple):
    """The current answer of a head. ``category_name``: None if no label reaches the threshold. ``score``: smoothed."""

    category_name: Optional[str]
    score: float


class Event(NamedTuple):
    """A head changed its answer. ``time``: seconds since 1970, UTC."""

    time: float
    frame: int
    head_name: str
    category_name: Optional[str]
    score: float
    previous: Optional[str]

    def to_dict(self) -> Dict[str, Any]:
        return {**self._asdict(), "time": round(self.time, 3), "score": round(self.score, 4)}


class Seen(NamedTuple):
    """One frame that was answered. ``result`` holds the heads that ran on it, ``answers`` those of all heads so far."""

    frame: Frame
    time: float  # seconds since 1970, UTC, when it was answered
    result: ClassificationResult
    answers: Mapping[str, Answer]
    events: Tuple[Event, ...]


class Heads:
    """The heads of a classifier by schedule, the joint list as one of them, and what each has answered so far.

    Raises ``UnknownHeadError`` for the joint list of a file that has none.
    """

    def __init__(
        self, classifier: MultiHeadClassifier, plans: Sequence[HeadPlan], *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.classifier, self.plans = classifier, tuple(plans)
        self.answered = 0
        self._wall_clock = wall_clock
        self._labels = {head.head_name: head.labels for head in classifier.heads}
        self._joint = classifier.joint
        if self._joint is not None:
            self._labels[JOINT] = self._joint.labels
        elif any(plan.head_name == JOINT for plan in plans):
            raise UnknownHeadError("this file has no joint head; its builder's report says why")
        self._index = {name: index for index, name in enumerate(classifier.head_names)}
        self._decisions = {plan.head_name: Decision(plan.rule) for plan in plans}
        self._joint_decision: Optional[JointDecision] = None
        for plan in plans:
            if plan.head_name == JOINT and self._joint is not None:
                self._decisions[JOINT] = self._joint_decision = JointDecision(plan.rule, self._joint)
        self._answers: Dict[str, Answer] = {plan.head_name: Answer(None, 0.0) for plan in plans}

    def see(self, frame: Frame, *, top_k: Optional[int] = None) -> Seen:
        """Run the backbone, if any head is due, and the heads that are."""
        due = [plan.head_name for plan in self.plans if plan.due(self.answered)]
        self.answered += 1
        start = time.perf_counter()
        features = self.classifier.features_of(frame.image) if due else None
        computed = time.perf_counter()
        own = [name for name in due if name != JOINT]
        scores = {} if features is None else dict(zip(own, self.classifier.scores(features, own)))
        found = tuple(self._classifications(name, scores[name], top_k) for name in own)
        changed = {name for name in own if self._decisions[name].update(scores[name])}
        joint, decision = None, self._joint_decision
        if features is not None and decision is not None and JOINT in due:
            of_labels, of_heads = self.classifier.joint_scores(features)
            joint = judge(decision.info, of_labels, of_heads, top_k=top_k)
            if decision.update_joint(of_labels, of_heads):
                changed.add(JOINT)
        now = self._wall_clock()
        events = [event for name in due for event in self._answer(frame, now, name, name in changed)]
        end = time.perf_counter()
        latency = {
            "preprocess": frame.prepare_ms,
            "backbone": (computed - start) * 1000,
            "heads": (end - computed) * 1000,
        }
        return Seen(frame, now, ClassificationResult(found, latency, joint), dict(self._answers), tuple(events))

    def latest(self) -> List[LatestScores]:
        """For each head that has run its name, its labels and their smoothed scores, float32 (labels,).

        Later runs leave the arrays as they are, so that another thread may read them.
        """
        found = ((name, decision.smoothed) for name, decision in self._decisions.items())
        return [(name, self._labels[name], smoothed) for name, smoothed in found if smoothed is not None]

    def label_count(self, name: str) -> int:
        return len(self._labels[name])

    def smoothed(self, top_k: int) -> List[Tuple[str, Answer, Tuple[Category, ...]]]:
        """For each head its name, its answer and its best labels with their smoothed scores, best first."""
        rows: List[Tuple[str, Answer, Tuple[Category, ...]]] = []
        for name, decision in self._decisions.items():
            best = () if decision.smoothed is None else top_categories(decision.smoothed, self._labels[name], top_k=top_k)
            rows.append((name, self._answers[name], best))
        return rows

    def _classifications(self, name: str, scores: np.ndarray, top_k: Optional[int]) -> Classifications:
        return Classifications(self._index[name], name, top_categories(scores, self._labels[name], top_k=top_k))

    def _answer(self, frame: Frame, now: float, name: str, changed: bool) -> List[Event]:
        decision, previous = self._decisions[name], self._answers[name].category_name
        answer = None if decision.answer is None else self._labels[name][decision.answer]
        self._answers[name] = Answer(answer, decision.score)
        return [Event(now, frame.number, name, answer, decision.score, previous)] if changed else []


class Camera:
    """Classifies pictures from a camera as they arrive.

    Iterate over it: it gives a ``Seen`` for each frame that is answered, until the source ends or ``stop`` is called.

    Args:
        classifier: An open file.
        source: As ``edge-runtime camera --source`` takes it: a camera, an address, a video, a folder.
        heads: As ``--head`` takes them, ``"door:every=5"``; empty runs every head on every frame.
        joint: Whether to add the joint list, unless ``heads`` has it.
        rule: How scores become answers: smoothing, threshold, hysteresis, consensus.
        size: Width and height in pixels to request from the camera.
        fps: Largest number of frames per second.
        loop: Whether to start a video or a folder again at its end.
        keep_all: Whether to answer every frame of a source that is not live, instead of the newest. None: only if ``fps``
            is not given.
        show: Called to ask whether somebody watches the pictures.
        report: Called with a message when the camera is lost and when it is back.

    Raises:
        SourceError: The source cannot be opened to begin with.
    """

    def __init__(
        self,
        classifier: MultiHeadClassifier,
        source: str = "auto",
        *,
        heads: Sequence[str] = (),
        joint: bool = False,
        rule: Rule = DEFAULT_RULE,
        size: Optional[Tuple[int, int]] = None,
        fps: Optional[float] = None,
        loop: bool = False,
        keep_all: Optional[bool] = None,
        show: Callable[[], bool] = lambda: False,
        report: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._head_texts, self._with_joint, self._rule = tuple(heads), joint, rule
        self.heads = self.heads_of(classifier)
        self.source_name = shown_address(source)
        spec = picture_input(classifier.metadata.input)
        options = SourceOptions(spec, size, loop)
        first = open_source(source, options)
        self._capture = Capture(
            first,
            lambda: open_source(source, options),
            spec,
            keep_all=not first.live and fps is None if keep_all is None else keep_all,
            interval=1 / fps if fps else 0.0,
            show=show,
            report=report,
        )
        self._patience = STALLED_AFTER + (1 / fps if fps else 0.0)
        self._stopped = False
        self._capture.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Seen]:
        while self.running:
            seen = self.next(timeout=0.5)
            if seen is not None:
                yield seen

    @property
    def running(self) -> bool:
        failure = self._capture.failure
        if failure is not None:
            raise RuntimeError("the thread that reads the camera has ended") from failure
        return not self._stopped and not self._capture.ended

    @property
    def counts(self) -> Counts:
        return self._capture.counts

    @property
    def connected(self) -> bool:
        """False while the camera is lost."""
        return self._capture.connected

    @property
    def stalled(self) -> bool:
        """The driver holds the reading thread: only a new process helps."""
        return time.monotonic() - self._capture.last_sign > self._patience

    def next(self, *, timeout: float, top_k: Optional[int] = None) -> Optional[Seen]:
        """The answers for the newest frame; None if no frame arrived within ``timeout`` seconds."""
        frame = self._capture.take(timeout)
        return None if frame is None else self.heads.see(frame, top_k=top_k)

    def use(self, classifier: MultiHeadClassifier) -> None:
        """Use another file from the next frame on; all answers are reset.

        Raises:
            UnknownHeadError: The file lacks a head that is scheduled; nothing has changed.
        """
        spec = picture_input(classifier.metadata.input)
        self.heads = self.heads_of(classifier)
        self._capture.spec = spec

    def heads_of(self, classifier: MultiHeadClassifier) -> Heads:
        plans = parse_plans(self._head_texts, classifier.head_names, self._rule, joint=self._with_joint)
        return Heads(classifier, plans)

    def stop(self) -> None:
        """End the iteration after the current frame; a signal handler may call it."""
        self._stopped = True

    def close(self) -> bool:
        """Release the camera; False if its driver does not release it in time."""
        self._stopped = True
        return self._capture.stop()
