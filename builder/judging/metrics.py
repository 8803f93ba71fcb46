"""How good answers are, by counting: accuracy with its interval, confusion, calibration of the probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from builder.judging.interval import wilson_interval

BINS = 15  # of equal width, as in Guo et al. 2017, arXiv 1706.04599
_SIMULATIONS = 200


@dataclass(frozen=True)
class Accuracy:
    """``interval``: 95 % (Wilson). ``calibration_error``: expected calibration error of the top probability;
    ``calibration_floor``: what perfectly calibrated answers of the same probabilities, as few, show in the mean.
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


def judge(scores: np.ndarray, truth: np.ndarray) -> Accuracy:
    """``scores``: (pictures, labels). ``truth``: (pictures,) indices of labels."""
    confidence, right = scores.max(1), scores.argmax(1) == truth
    return Accuracy(
        len(truth),
        int(right.sum()),
        wilson_interval(int(right.sum()), len(truth)),
        float(confidence.mean()),
        calibration_error(confidence, right),
        calibration_floor(confidence),
    )


def reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(bins, 3): pictures, mean confidence and share right of each bin that has any."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows = [(np.sum(own), confidence[own].mean(), right[own].mean()) for b in range(BINS) if np.any(own := place == b)]
    return np.array(rows, np.float64).reshape(-1, 3)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of confidence from the share that is right, over the bins, by their pictures."""
    count, claimed, found = reliability(confidence, right).T
    return float((count * np.abs(claimed - found)).sum() / count.sum())


def calibration_floor(confidence: np.ndarray) -> float:
    """The error that chance alone makes: its mean where each answer is right with just the probability it claims."""
    rng = np.random.default_rng(0)
    draws = [calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(_SIMULATIONS)]
    return float(np.mean(draws))


def confusion(found: np.ndarray, truth: np.ndarray, labels: int) -> np.ndarray:
    """int (labels, labels): rows are true, columns found."""
    counts = np.zeros((labels, labels), np.int64)
    np.add.at(counts, (truth, found), 1)
    return counts
