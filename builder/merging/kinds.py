"""Do the probabilities of a file and of its original differ in kind? The top label alone would not tell."""

from __future__ import annotations

import numpy as np

_RANGE, _SUM = 0.02, 0.05  # beyond 0 and 1, and from 1 in a sum: more than int8 rounds
_FAR = 0.05  # mean difference of a probability, from which on the shape of the difference is looked at
_CLOSER = 0.25  # of the difference: what is left where one is a function of the other
_TOGETHER = 0.98  # correlation, of ranks (Spearman) or of log odds, of what rises and falls together
_LEAST = 1 / 256  # the step of an int8 probability
_FEW = 8  # values, of which no function is told


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
    if max(_correlation(_ranks(original), _ranks(found)), _correlation(_odds(original), _odds(found))) > _TOGETHER:
        return (
            f"the file's probabilities are another function of the same answer, {apart:.2f} away in the mean: "
            "they rise and fall together"
        )
    return None


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.ravel().argsort(kind="stable").argsort(kind="stable")


def _odds(values: np.ndarray) -> np.ndarray:
    """Logarithms around their mean in each sample: a temperature is a factor there."""
    logs = np.log(np.maximum(values, _LEAST))
    return np.asarray(logs - logs.mean(1, keepdims=True)).ravel()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
