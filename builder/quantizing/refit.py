"""Refit a layer's weights so that its output on the device's inputs matches its float output on float inputs.

Ridge regression towards the float weights (Hoerl and Kennard 1970). The penalty is chosen for each layer, or each channel
of a depthwise one, by the error on held-out pictures: few positions and many taps would fit noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

PULLS = (0.05, 0.5, 2.0, 8.0, 32.0, 128.0)  # penalties, in units of an input's mean energy; no refit at all is tried too
_HELD_OUT = 4  # every fourth sample


def held_out(owners: np.ndarray) -> np.ndarray:
    """bool (rows,): whether a row's sample is one that chooses the penalty. ``owners``: its index, (rows,)."""
    return np.asarray(owners % _HELD_OUT == _HELD_OUT - 1)


class Refit:
    """The products of a layer's inputs that every refit of its weights needs.

    ``signal``, ``device``: float32 (groups, rows, taps), in float and on the device, each with mean 0. ``owners``:
    (rows,) the index of each row's sample. Nothing is copied where the rows that are ``held_out`` are the last ones.
    """

    def __init__(self, signal: np.ndarray, device: np.ndarray, owners: np.ndarray) -> None:
        chosen = held_out(owners)
        first = len(chosen) - np.count_nonzero(chosen)
        last = bool(chosen[first:].all())
        parts = (slice(first, None), slice(first)) if last else (chosen, ~chosen)
        there, seen = ([x[:, rows] for x in (device, signal)] for rows in parts)
        self._there = products(there[0], there[0]), products(*there)
        gram = products(seen[0], seen[0])
        self.gram = self._there[0] + gram
        self._seen: OfRows | OfProducts
        self._all: OfRows | OfProducts
        if signal.shape[1] < signal.shape[2]:  # few rows, as of the features that a dense layer reads
            self._seen, self._all = OfRows(seen[0], seen[1], gram), OfRows(device, signal, self.gram)
        else:
            cross = products(*seen)
            # To choose a penalty half the digits suffice, in half the time.
            self._seen = OfProducts(gram.astype(np.float32), cross.astype(np.float32))
            self._all = OfProducts(self.gram, self._there[1] + cross)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """``weights`` (groups, taps, outputs), refitted."""
        there = self._there[1] @ weights
        pulls, left, everything = np.zeros(len(weights)), self._left(weights, there), np.arange(len(weights))
        for pull in PULLS:
            error = self._left(self._seen.ridge(weights, np.full(len(weights), pull), everything), there)
            pulls, left = np.where(error < left, pull, pulls), np.minimum(error, left)
        fitted = np.flatnonzero(pulls)
        best = weights.copy()
        if len(fitted):
            best[fitted] = self._all.ridge(weights[fitted], pulls[fitted], fitted)
        return best

    def _left(self, weights: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Squared error (groups,) of ``weights`` on held-out samples, without the terms that do not depend on them."""
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


@dataclass(frozen=True)
class OfProducts:
    """``gram``, ``cross``: (groups, taps, taps), of the device's inputs with themselves and with the signal."""

    gram: np.ndarray
    cross: np.ndarray

    def ridge(self, weights: np.ndarray, pulls: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """``weights``, ``pulls``: of ``groups``, (groups,)."""
        left, dtype = self.gram[groups], self.gram.dtype
        ridge, weights = (pulls[:, None, None] * energy(left)).astype(dtype), weights.astype(dtype, copy=False)
        right = self.cross[groups] @ weights + ridge * weights
        diagonal = np.arange(left.shape[1])
        left[:, diagonal, diagonal] += ridge[:, 0]
        if len(left) > 1:
            return np.asarray(np.linalg.solve(left, right))
        return np.asarray(solve(left[0], right[0], assume_a="pos", check_finite=False, overwrite_a=True))[None]


@dataclass(frozen=True)
class OfRows:
    """As ``OfProducts``, with one equation for each row, not each tap. ``device``, ``signal``: (groups, rows, taps)."""

    device: np.ndarray
    signal: np.ndarray
    gram: np.ndarray

    def ridge(self, weights: np.ndarray, pulls: np.ndarray, groups: np.ndarray) -> np.ndarray:
        device = self.device[groups].astype(np.float64)
        ridge = pulls[:, None, None] * energy(self.gram[groups])
        missing = (self.signal[groups] - device) @ weights
        left = device @ device.transpose(0, 2, 1) + ridge * np.eye(device.shape[1])
        return np.asarray(weights + device.transpose(0, 2, 1) @ np.linalg.solve(left, missing))
