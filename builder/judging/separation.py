"""How well pictures of heads are separated from pictures of none, counted in bins so that memory does not grow."""

from __future__ import annotations

import numpy as np

_SHIFT = 14  # of the bits of a float32: bins 0.2 % wide, near 0 and near 1
_HALF = int(np.float32(0.5).view(np.uint32)) >> _SHIFT
_BINS = 2 * _HALF + 1


class Separation:
    """The separation by scores from 0 to 1 that should be high for pictures of a head and low for those of none."""

    def __init__(self) -> None:
        self._known, self._strange = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)

    def add(self, scores: np.ndarray, strange: np.ndarray) -> None:
        """Count scores (n,); ``strange``, bool (n,): which belong to none."""
        places = _place(scores)
        self._known += np.bincount(places[~strange], minlength=_BINS)
        self._strange += np.bincount(places[strange], minlength=_BINS)

    @property
    def auroc(self) -> float:
        """How often a picture of a head scores above one of none; those of one bin count half."""
        below = np.cumsum(self._strange) - self._strange
        above = (self._known * (below + self._strange / 2)).sum()
        return float(above / (self._known.sum() * self._strange.sum()))

    @property
    def fpr_at_95_tpr(self) -> float:
        """Share of the pictures of none that pass where 95 % of those of the heads do."""
        rank = int(0.05 * (self._known.sum() - 1))
        bar = int(np.searchsorted(np.cumsum(self._known), rank, side="right"))
        return float(self._strange[bar:].sum() / self._strange.sum())


def _place(scores: np.ndarray) -> np.ndarray:
    """The bin of each score, as fine near 1 as near 0."""
    near = np.minimum(scores, 1 - scores).astype(np.float32).clip(0, 0.5).view(np.uint32).astype(np.int64) >> _SHIFT
    return np.asarray(np.where(scores < 0.5, near, 2 * _HALF - near))
