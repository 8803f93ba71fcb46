"""GPTQ: round the weights of a layer one tap after the other, and compensate the error of each in those that are left.

Frantar et al. 2022, arXiv 2210.17323, after the optimal brain surgeon, Hassibi and Stork 1993. Here every integer
is one of the two beside the float weight (as in AdaRound: Nagel et al. 2020, arXiv 2004.10568): moving
farther would overfit the calibration pictures.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dtrtri

LIMIT = 127  # weights are symmetric: -127..127
BLOCK = 128  # taps whose errors are propagated at once; affects speed, not the result


def neighbours(weights: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers next to ``weights`` (groups, taps, outputs) in units of ``steps`` (groups, outputs): below, above."""
    places = weights / steps[:, None]
    return np.clip(np.floor(places), -LIMIT, LIMIT), np.clip(np.ceil(places), -LIMIT, LIMIT)


def inverse_factor(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which taps are rounded, (groups, taps), by decreasing diagonal of the Hessian (groups, taps, taps),
    and the upper Cholesky factor of its inverse in that order.
    """
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    hessian = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    # A Cholesky factor from the last row up is upper, R R' = hessian, and its inverse U has U'U = hessian^-1.
    lower = np.linalg.cholesky(hessian[:, ::-1, ::-1])
    return order, np.stack([_inverse(upper) for upper in lower[:, ::-1, ::-1]])


def _inverse(upper: np.ndarray) -> np.ndarray:
    inverse, failed = dtrtri(np.asfortranarray(upper))
    assert not failed  # a Cholesky factor has no zero on its diagonal
    return np.asarray(inverse)


def gptq(
    weights: np.ndarray,
    steps: np.ndarray,
    between: tuple[np.ndarray, np.ndarray],
    order: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Round ``weights`` (groups, taps, outputs) to multiples of ``steps`` (groups, outputs).

    ``between``: the least and the greatest integer allowed for each weight, shaped as ``weights``. ``order``, ``upper``:
    from ``inverse_factor``. Returns the integers, shaped as ``weights``.
    """
    left, low, high = (np.take_along_axis(values, order[:, :, None], 1) for values in (weights, *between))
    integers, taps = np.empty_like(left), left.shape[1]
    for start in range(0, taps, BLOCK):
        end = min(start + BLOCK, taps)
        errors = np.empty_like(left[:, start:end])
        for i in range(start, end):
            integers[:, i] = np.clip(np.rint(left[:, i] / steps), low[:, i], high[:, i])
            errors[:, i - start] = (left[:, i] - integers[:, i] * steps) / upper[:, i, i, None]
            left[:, i + 1 : end] -= upper[:, i, i + 1 : end, None] * errors[:, i - start, None]
        left[:, end:] -= np.matmul(upper[:, start:end, end:].transpose(0, 2, 1), errors)
    return np.take_along_axis(integers, np.argsort(order, axis=1)[:, :, None], 1)
