"""Turns noisy scores into an answer that changes only when the scene changes.

For each head and each of its runs t, with scores p_t (labels,):

1. s_t = smoothing * s_(t-1) + (1 - smoothing) * p_t, s_0 = p_0 (exponential smoothing, Brown 1956);
2. the candidate is the label with the largest s_t if that reaches ``threshold``, else none;
3. hysteresis: the present answer stays the candidate while its s_t is above ``threshold - hysteresis`` and no other label
   is above it by more than ``hysteresis``;
4. consensus: the answer becomes what was the candidate in ``agree`` of the last ``of`` runs; until then it stays.

The joint list is smoothed the same way, P(head) beside the labels; its candidate is what ``joint.judge`` answers of the
smoothed numbers, so that a scene that stays gets the answer that ``classify --joint`` gives.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Deque, Optional

import numpy as np

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.joint import JointInfo, judge

THRESHOLD = 0.5  # a head's, where the user says nothing


@dataclass(frozen=True)
class Rule:
    """The settings that turn scores into an answer; see the module. Raises ``EdgeRuntimeError`` for an invalid value."""

    smoothing: float = 0.5  # the weight of the past, in [0, 1)
    threshold: Optional[float] = None  # a probability; None: ``THRESHOLD`` for a head, the file's for the joint list
    hysteresis: float = 0.1  # a difference of probabilities
    agree: int = 2
    of: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise EdgeRuntimeError(f"smoothing: expected 0 or more and less than 1, found {self.smoothing:g}")
        for name in ("threshold", "hysteresis"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise EdgeRuntimeError(f"{name}: expected 0 to 1, found {value:g}")
        if not 1 <= self.agree <= self.of <= 1000 or 2 * self.agree <= self.of:
            raise EdgeRuntimeError(f"consensus: expected K/N with K more than half of N, found {self.agree}/{self.of}")


DEFAULT_RULE = Rule()


class Decision:
    """The answer of one head over time."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._weight, self._rest = np.float32(rule.smoothing), np.float32(1 - rule.smoothing)
        self._threshold = THRESHOLD if rule.threshold is None else rule.threshold
        self.smoothed: Optional[np.ndarray] = None  # float32 (labels,)
        self.answer: Optional[int] = None  # index of the label; None: nothing is sure enough
        self._candidates: Deque[Optional[int]] = deque(maxlen=rule.of)

    def update(self, scores: np.ndarray) -> bool:
        """Take the scores of one run, float32 (labels,); has the answer changed?"""
        past = self.smoothed
        self.smoothed = scores if past is None else self._weight * past + self._rest * scores
        candidate = self._candidate()
        self._candidates.append(candidate)
        if candidate == self.answer or self._candidates.count(candidate) < self.rule.agree:
            return False
        self.answer = candidate
        return True

    @property
    def score(self) -> float:
        """The smoothed score of the answer; where there is none, the largest there is."""
        if self.smoothed is None:
            return 0.0
        return float(self.smoothed.max() if self.answer is None else self.smoothed[self.answer])

    def _candidate(self) -> Optional[int]:
        smoothed, rule = self.smoothed, self.rule
        if smoothed is None:
            return None
        best = int(smoothed.argmax())
        if self.answer is not None:
            kept = smoothed[self.answer]
            if kept > self._threshold - rule.hysteresis and smoothed[best] - kept <= rule.hysteresis:
                return self.answer
        return best if smoothed[best] >= self._threshold else None


class JointDecision(Decision):
    """The answer of the joint list over time; None: a picture of no head."""

    def __init__(self, rule: Rule, info: JointInfo) -> None:
        super().__init__(rule)
        self.info = info.with_thresholds(rule.threshold)
        # What the answer that is there must reach.
        self._keeping = self.info._replace(threshold=self.info.threshold - rule.hysteresis)
        self._heads: Optional[np.ndarray] = None  # smoothed, float32 (heads and none,)

    def update_joint(self, scores: np.ndarray, heads: np.ndarray) -> bool:
        """Take what the signature ``joint`` gave, float32 (labels,) and (heads and none,); has the answer changed?"""
        past = self._heads
        self._heads = heads if past is None else self._weight * past + self._rest * heads
        return self.update(scores)

    def _candidate(self) -> Optional[int]:
        scores, heads = self.smoothed, self._heads
        if scores is None or heads is None:
            return None
        if self.answer is not None:
            best = judge(self._keeping, scores, heads, top_k=1).best
            if best is not None and best.score - scores[self.answer] <= self.rule.hysteresis:
                return self.answer
        best = judge(self.info, scores, heads, top_k=1).best
        return None if best is None else best.index
