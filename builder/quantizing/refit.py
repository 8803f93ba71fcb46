"""Weights with which a layer gives, on the inputs it gets on the device, what it gives in float on its float inputs.

Ridge regression towards the float weights (Hoerl and Kennard 1970). How hard it pulls is chosen for each layer, for
each channel of a depthwise one, by what it leaves on pictures that were held out: few places and many taps fit noise.
"""

from __future__ import annotations

import numpy as np

PULLS = (0.05, 0.5, 2.0, 8.0, 32.0, 128.0)  # in units of an input's mean energy; beside them, no refit at all
_HELD_OUT = 4  # every fourth sample


class Refit:
    """What depends on a layer's inputs alone.

    ``signal``, ``device``: (groups, rows, taps), in float and on the device, each with a mean of 0. ``owners``: (rows,)
    the sample that each row is of.
    """

    def __init__(self, signal: np.ndarray, device: np.ndarray, owners: np.ndarray) -> None:
        self._signal, self._device = signal, device
        self._held_out = owners % _HELD_OUT == _HELD_OUT - 1
        self.gram = products(device, device)
        held_out = device[:, self._held_out]
        self._held_out_gram = products(held_out, held_out)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """``weights`` (groups, taps, outputs), refitted."""
        outputs = np.stack([x @ w for x, w in zip(self._signal, weights.astype(np.float32), strict=True)])
        moments = products(self._device, outputs)
        there = products(self._device[:, self._held_out], outputs[:, self._held_out])
        gram, seen = self.gram - self._held_out_gram, moments - there
        best, left = weights, self._left(weights, there)
        for pull in PULLS:
            error = self._left(_ridge(gram, seen, weights, pull), there)
            if np.any(error < left):
                whole = _ridge(self.gram, moments, weights, pull)
                best = np.where((error < left)[:, None, None], whole, best)
                left = np.minimum(error, left)
        return best

    def _left(self, weights: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Squared error (groups,) of ``weights`` on the held-out samples, but for what does not depend on them."""
        error: np.ndarray = np.sum(weights * (self._held_out_gram @ weights - 2 * there), axis=(1, 2))
        return error


def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 ``a.T @ b`` of each group; one by one, since a batch of transposed matrices does not reach BLAS."""
    return np.stack([x.T @ y for x, y in zip(a, b, strict=True)]).astype(np.float64)


def energy(gram: np.ndarray) -> np.ndarray:
    """Mean energy of an input (groups, 1, 1)."""
    return np.asarray(np.maximum(np.mean(np.diagonal(gram, axis1=1, axis2=2), axis=1), 1e-12)[:, None, None])


def _ridge(gram: np.ndarray, moments: np.ndarray, weights: np.ndarray, pull: float) -> np.ndarray:
    ridge = pull * energy(gram)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(gram.shape[1]), moments + ridge * weights))
