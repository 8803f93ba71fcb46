"""The most confident wrong answers of a file."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.judging.labelled import Labelled
from builder.scoring.samples import Planned

MOST_SHOWN = 24  # of each head and of the joint list


@dataclass(frozen=True)
class Wrong:
    """``score``: the probability of the wrong answer."""

    score: float
    source: str
    truth: str
    answer: str
    sample: Planned

    @property
    def lines(self) -> tuple[str, ...]:
        """What the page says of it."""
        return self.source, f"{self.truth}: answered {self.answer}", f"{self.score:.3f}"

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "truth": self.truth, "answer": self.answer, "score": round(self.score, 4)}


class Gallery:
    """The most confident of any number of wrong answers."""

    def __init__(self) -> None:
        self._found: list[tuple[float, str, Wrong]] = []

    def add(
        self,
        samples: Sequence[Labelled],
        answers: np.ndarray,
        truth: np.ndarray,
        scores: np.ndarray,
        labels: Sequence[str],
    ) -> None:
        """``answers``, ``truth``: int (n,), indices of ``labels``. ``scores``: (n,) of the answers."""
        for i in np.flatnonzero(answers != truth).tolist():
            sample, score = samples[i].sample, float(scores[i])
            wrong = Wrong(score, sample.source, labels[int(truth[i])], labels[int(answers[i])], sample)
            entry = (score, sample.source, wrong)
            (heapq.heappush if len(self._found) < MOST_SHOWN else heapq.heappushpop)(self._found, entry)

    @property
    def surest(self) -> list[Wrong]:
        """In falling order."""
        return [wrong for _, _, wrong in sorted(self._found, key=lambda entry: (-entry[0], entry[1]))]
