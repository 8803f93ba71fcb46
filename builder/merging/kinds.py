"""Whether a file gives another kind of answer than its original, such as a second softmax: top labels do not show it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import softmax

_RANGE, _SUM = 0.02, 0.05  # outside 0..1, and of a sum from 1: more than rounding to int8 explains
_FAR = 0.05  # mean difference of a probability from which on the kind of difference is examined
_CLOSER = 0.25  # share of the difference that may remain where one is a function of the other
_LEAST = 1 / 256  # the step of an int8 probability
_FEW, _MANY = 8, 64  # values: with fewer no function is sought; from so many on any monotone one


def difference_in_kind(original: np.ndarray, found: np.ndarray) -> str | None:
    """Describe how ``found`` is another kind of answer than ``original``; None where it is not.

    Both: probabilities, float32 (samples, labels). Detected are values outside 0..1, probabilities of which only one side
    adds up to 1, a softmax of probabilities, and any other monotone function of them.
    """
    if original.shape != found.shape:
        return f"the original gives {original.shape[1]} probabilities, the file {found.shape[1]}"
    if not np.isfinite(found).all():
        return "the file answers with NaN or infinity"
    if found.min() < -_RANGE or found.max() > 1 + _RANGE:
        return f"the file's answers run from {found.min():.2g} to {found.max():.2g}: they are no probabilities"
    theirs, ours = (_adds_up(values) for values in (original, found))
    if theirs != ours and original.shape[1] > 1:
        one, other = ("add up to 1", "do not")
        return f"the original's probabilities {one if theirs else other}, the file's {one if ours else other}"
    return _function_of(original, found)


def _adds_up(values: np.ndarray) -> bool:
    """Within what rounding each probability to a step of 1/256 can change the sum."""
    return bool(np.all(np.abs(values.sum(1, dtype=np.float64) - 1) < max(_SUM, values.shape[1] / 256)))


def _function_of(original: np.ndarray, found: np.ndarray) -> str | None:
    apart = float(np.abs(original - found).mean(dtype=np.float64))
    if apart < _FAR or original.size < _FEW:
        return None
    raised = np.exp(original - original.max(1, keepdims=True))
    if np.abs(raised / raised.sum(1, keepdims=True) - found).mean() < _CLOSER * apart:
        return "the file's probabilities are a softmax of the original's: softmax is applied twice"
    if min(float(np.abs(guess - found).mean()) for guess in _functions(original, found)) < _CLOSER * apart:
        return f"the file's probabilities are a monotone function of the original's, {apart:.2f} away on average"
    return None


def _functions(original: np.ndarray, found: np.ndarray) -> Iterator[np.ndarray]:
    """Functions of ``original`` fitted to ``found``: a softmax of another temperature, and, given many values, the best
    monotone one. Differences that come from rounding fit neither.
    """
    theirs, ours = _odds(original), _odds(found)
    yield softmax(theirs * (np.vdot(theirs, ours) / max(float(np.vdot(theirs, theirs)), 1e-12)), axis=1)
    if original.size >= _MANY:
        order = original.ravel().argsort(kind="stable")
        rising = np.empty(original.size)
        rising[order] = isotonic_regression(found.ravel()[order].astype(np.float64)).x
        yield rising.reshape(original.shape)


def _odds(values: np.ndarray) -> np.ndarray:
    """Log probabilities minus their mean in each sample: a temperature only scales them."""
    logs = np.log(np.maximum(values, _LEAST, dtype=np.float64))
    return np.asarray(logs - logs.mean(1, keepdims=True))
