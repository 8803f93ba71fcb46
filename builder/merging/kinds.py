"""Do the probabilities of a file and of its original differ in kind? The top label alone would not tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import softmax

_RANGE, _SUM = 0.02, 0.05  # beyond 0 and 1, and from 1 in a sum: more than int8 rounds
_FAR = 0.05  # mean difference of a probability, from which on the shape of the difference is looked at
_CLOSER = 0.25  # of the difference: what is left where one is a function of the other
_LEAST = 1 / 256  # the step of an int8 probability
_FEW, _MANY = 8, 64  # values: of which no function is told, and of which any may be


def difference_in_kind(original: np.ndarray, found: np.ndarray) -> str | None:
    """In words how ``found`` is another kind of answer than ``original``; None where it is not.

    Both: probabilities, float32 (samples, labels). Seen are: a range that probabilities do not have, a sum of 1 that one
    has and the other has not, a softmax of what was probabilities already, and any other monotone function of them.
    """
    if original.shape != found.shape:
        return f"the original gives {original.shape[1]} probabilities, the file {found.shape[1]}"
    if not np.isfinite(found).all():
        return "the file answers with what is no number"
    if found.min() < -_RANGE or found.max() > 1 + _RANGE:
        return f"the file's answers run from {found.min():.2g} to {found.max():.2g}, and are no probabilities"
    theirs, ours = (_adds_up(values) for values in (original, found))
    if theirs != ours and original.shape[1] > 1:
        one, other = ("add up to 1", "do not")
        return f"the original's probabilities {one if theirs else other}, the file's {one if ours else other}"
    return _function_of(original, found)


def _adds_up(values: np.ndarray) -> bool:
    """Within what rounding each of them to a step of 1/256 can move a sum."""
    return bool(np.all(np.abs(values.sum(1, dtype=np.float64) - 1) < max(_SUM, values.shape[1] / 256)))


def _function_of(original: np.ndarray, found: np.ndarray) -> str | None:
    apart = float(np.abs(original - found).mean(dtype=np.float64))
    if apart < _FAR or original.size < _FEW:
        return None
    raised = np.exp(original - original.max(1, keepdims=True))
    if np.abs(raised / raised.sum(1, keepdims=True) - found).mean() < _CLOSER * apart:
        return "the file's probabilities are a softmax of the original's: a softmax stands there twice"
    if min(float(np.abs(guess - found).mean()) for guess in _functions(original, found)) < _CLOSER * apart:
        return (
            f"the file's probabilities are another function of the same answer, {apart:.2f} away in the mean: "
            "they rise and fall together"
        )
    return None


def _functions(original: np.ndarray, found: np.ndarray) -> Iterator[np.ndarray]:
    """What functions of ``original`` come nearest to ``found``: a softmax of another temperature, and of many values any
    that rises. What rounding moves lies beside both.
    """
    theirs, ours = _odds(original), _odds(found)
    yield softmax(theirs * (np.vdot(theirs, ours) / max(float(np.vdot(theirs, theirs)), 1e-12)), axis=1)
    if original.size >= _MANY:
        order = original.ravel().argsort(kind="stable")
        rising = np.empty(original.size)
        rising[order] = isotonic_regression(found.ravel()[order].astype(np.float64)).x
        yield rising.reshape(original.shape)


def _odds(values: np.ndarray) -> np.ndarray:
    """Logarithms around their mean in each sample: a temperature is a factor there."""
    logs = np.log(np.maximum(values, _LEAST, dtype=np.float64))
    return np.asarray(logs - logs.mean(1, keepdims=True))
