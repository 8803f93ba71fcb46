"""Metrics by counting: accuracy with its interval, confusion, and calibration of probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder.support.interval import wilson_interval

BINS = 15  # of equal width, as in Guo et al. 2017, arXiv 1706.04599
_SIMULATIONS = 200


@dataclass(frozen=True)
class Accuracy:
    """``interval``: 95 % (Wilson). ``calibration_error``: expected calibration error of the top probability: the mean
    difference between confidence and accuracy over bins, weighted by their samples (Guo et al. 2017).
    ``calibration_floor``: the mean error of as many perfectly calibrated answers with the same probabilities.
    """

    pictures: int
    right: int
    interval: tuple[float, float]
    mean_probability: float
    calibration_error: float
    calibration_floor: float

    @property
    def share(self) -> float:
        return self.right / self.pictures

    def to_json(self) -> dict[str, object]:
        """Figures rounded to four places."""
        return {
            "pictures": self.pictures,
            "right": self.right,
            "accuracy": round(self.share, 4),
            "interval": [round(v, 4) for v in self.interval],
            "mean_probability": round(self.mean_probability, 4),
            "calibration_error": round(self.calibration_error, 4),
            "calibration_floor": round(self.calibration_floor, 4),
        }


@dataclass(frozen=True)
class LabelRates:
    """``precision``: the share of the answers with this label that is right, None without such answers. ``recall``: the
    share of the samples with this label that is answered with it, None without such samples.
    """

    label: str
    samples: int
    found: int
    right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.right / self.samples if self.samples else None

    def to_json(self) -> dict[str, object]:
        """Figures rounded to four places."""
        rates = {"precision": self.precision, "recall": self.recall}
        counts = {"label": self.label, "samples": self.samples, "found": self.found, "right": self.right}
        return {**counts, **{name: None if rate is None else round(rate, 4) for name, rate in rates.items()}}


class Table:
    """A confusion matrix, counted block by block."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._pairs: Counter[int] = Counter()  # with many labels, most pairs never occur

    def add(self, found: np.ndarray, truth: np.ndarray) -> None:
        """Count answers and true labels, int (n,) each."""
        pairs, counts = np.unique(truth * len(self.labels) + found, return_counts=True)
        self._pairs.update(dict(zip(pairs.tolist(), counts.tolist(), strict=True)))

    @property
    def counts(self) -> np.ndarray:
        """int (labels, labels): rows are true labels, columns are answers."""
        counts = np.zeros((len(self.labels), len(self.labels)), np.int64)
        if self._pairs:
            counts.flat[list(self._pairs)] = list(self._pairs.values())
        return counts

    def rates(self) -> list[LabelRates]:
        """Precision and recall of each label."""
        size = len(self.labels)
        true, found, right = (np.zeros(size, np.int64) for _ in range(3))
        for pair, count in self._pairs.items():
            row, column = divmod(pair, size)
            true[row] += count
            found[column] += count
            right[row] += count * (row == column)
        rows = zip(self.labels, true.tolist(), found.tolist(), right.tolist(), strict=True)
        return [LabelRates(*row) for row in rows]


class Reliability:
    """The difference between the probability of answers and their accuracy, counted block by block.

    Its memory does not grow, and the result does not depend on the blocks.
    """

    def __init__(self) -> None:
        self._bins = np.zeros((BINS, 3))  # number of answers, sum of their confidence, number of right ones
        self._chance = np.zeros((_SIMULATIONS, BINS))  # right answers in simulations of calibrated answers
        self._rng = np.random.default_rng(0)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Count answers: their probabilities (n,), and whether they are right (n,)."""
        confidence = confidence.astype(np.float64)
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        np.add.at(self._bins, place, np.stack([np.ones(len(right)), confidence, right], axis=1))
        lucky = self._rng.random((len(right), _SIMULATIONS), np.float32) < confidence[:, None]
        for b in np.unique(place).tolist():
            self._chance[:, b] += lucky[place == b].sum(0)

    @property
    def answers(self) -> int:
        return int(self._bins[:, 0].sum())

    @property
    def right(self) -> int:
        return int(self._bins[:, 2].sum())

    @property
    def mean_probability(self) -> float:
        return float(self._bins[:, 1].sum() / self.answers)

    @property
    def curve(self) -> np.ndarray:
        """(bins, 3): number of answers, mean confidence and accuracy of each bin that has any."""
        bins = self._bins[self._bins[:, 0] > 0]
        return np.asarray(np.concatenate([bins[:, :1], bins[:, 1:] / bins[:, :1]], axis=1))

    @property
    def error(self) -> float:
        """Mean difference between confidence and accuracy over the bins, weighted by their answers."""
        return float(np.abs(self._bins[:, 1] - self._bins[:, 2]).sum() / self.answers)

    @property
    def floor(self) -> float:
        """The error by chance: its mean if each answer were right with exactly its own probability."""
        return float(np.abs(self._bins[:, 1] - self._chance).sum(1).mean() / self.answers)


class Counts:
    """Answers of one list of labels, block by block."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.table, self.reliability = Table(labels), Reliability()

    def add(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """Count answers. ``scores``: (n, labels). ``truth``: (n,) indices of labels."""
        found = scores.argmax(1)
        self.table.add(found, truth)
        self.reliability.add(scores.max(1), found == truth)

    @property
    def accuracy(self) -> Accuracy:
        seen = self.reliability
        interval = wilson_interval(seen.right, seen.answers)
        return Accuracy(seen.answers, seen.right, interval, seen.mean_probability, seen.error, seen.floor)


def judge(scores: np.ndarray, truth: np.ndarray) -> Accuracy:
    """The accuracy of ``scores`` (samples, labels), given ``truth`` (samples,), indices of labels."""
    return counted(scores, truth).accuracy


def counted(scores: np.ndarray, truth: np.ndarray) -> Counts:
    """All counts of ``scores`` (samples, labels), given ``truth`` (samples,)."""
    counts = Counts([str(i) for i in range(scores.shape[1])])
    counts.add(scores, truth)
    return counts


def reliability(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """The reliability of answers given at once; (n,) each."""
    found = Reliability()
    found.add(confidence, right)
    return found
