"""Weights with which a layer gives, on the inputs it gets on the device, what it gives in float on its float inputs.

Ridge regression towards the float weights (Hoerl and Kennard 1970). How hard it pulls is chosen for each layer, for
each channel of a depthwise one, by what it leaves on pictures that were held out: few places and many taps fit noise.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve

PULLS = (0.05, 0.5, 2.0, 8.0, 32.0, 128.0)  # in units of an input's mean energy; beside them, no refit at all
_HELD_OUT = 4  # every fourth sample


class Refit:
    """What depends on a layer's inputs alone: products of them, from which all that is asked for follows.

    ``signal``, ``device``: float32 (groups, rows, taps), in float and on the device, each with a mean of 0. ``owners``:
    (rows,) the sample that each row is of.
    """

    def __init__(self, signal: np.ndarray, device: np.ndarray, owners: np.ndarray) -> None:
        held_out = owners % _HELD_OUT == _HELD_OUT - 1
        there, seen = ([x[:, rows] for x in (device, signal)] for rows in (held_out, ~held_out))
        self._there = products(there[0], there[0]), products(*there)
        self._seen = products(seen[0], seen[0]), products(*seen)
        self.gram = self._there[0] + self._seen[0]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """``weights`` (groups, taps, outputs), refitted."""
        there, seen = (cross @ weights for _, cross in (self._there, self._seen))
        pulls, left = np.zeros(len(weights)), self._left(weights, there)
        for pull in PULLS:
            error = self._left(_ridge(self._seen[0], seen, weights, np.full(len(weights), pull)), there)
            pulls, left = np.where(error < left, pull, pulls), np.minimum(error, left)
        fitted = pulls > 0
        best = weights.copy()
        if fitted.any():
            best[fitted] = _ridge(self.gram[fitted], (there + seen)[fitted], weights[fitted], pulls[fitted])
        return best

    def _left(self, weights: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Squared error (groups,) of ``weights`` on the held-out samples, but for what does not depend on them."""
        error: np.ndarray = np.sum(weights * (self._there[0] @ weights - 2 * there), axis=(1, 2))
        return error


def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 ``a.T @ b`` of each group; one by one, since a batch of transposed matrices does not reach BLAS."""
    found = np.empty((len(a), a.shape[2], b.shape[2]))
    for result, x, y in zip(found, a, b, strict=True):
        result[:] = x.T @ y
    return found


def energy(gram: np.ndarray) -> np.ndarray:
    """Mean energy of an input (groups, 1, 1)."""
    return np.asarray(np.maximum(np.mean(np.diagonal(gram, axis1=1, axis2=2), axis=1), 1e-12)[:, None, None])


def _ridge(gram: np.ndarray, moments: np.ndarray, weights: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """``pulls``: (groups,)."""
    ridge = pulls[:, None, None] * energy(gram)
    left, right = gram + ridge * np.eye(gram.shape[1]), moments + ridge * weights
    if len(gram) > 1:
        return np.asarray(np.linalg.solve(left, right))
    return np.asarray(solve(left[0], right[0], assume_a="pos", check_finite=False, overwrite_a=True))[None]
