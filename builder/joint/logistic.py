"""Multinomial logistic regression with a ridge penalty, by L-BFGS: the only fit that the joint head needs.

Convex, so that there is one answer, whatever the order of the classes or of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_MEMORY = 12  # pairs of steps that L-BFGS keeps
_STEPS = 400
_TOLERANCE = 1e-6  # of the gradient, relative to the first one
_DIRECTIONS = 512  # principal directions of the features that a fit looks at; more pictures than that are rarely at hand

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Linear:
    """Evidence ``features @ weights + bias``. ``weights``: (features, classes); ``bias``: (classes,)."""

    weights: np.ndarray
    bias: np.ndarray

    def evidence(self, features: np.ndarray) -> np.ndarray:
        """float64 (pictures, classes) of (pictures, features)."""
        found: np.ndarray = features @ self.weights + self.bias
        return found


def log_softmax(evidence: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    shifted = evidence - evidence.max(-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def balanced_weights(classes: np.ndarray) -> np.ndarray:
    """(pictures,): every class counts the same in sum, and a picture 1 on average."""
    counts = np.bincount(classes)
    found: np.ndarray = len(classes) / (np.count_nonzero(counts) * counts[classes])
    return found


def log_loss(evidence: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log P(class), for ``evidence`` (pictures, classes)."""
    own = log_softmax(evidence)[np.arange(len(classes)), classes]
    return float(-(weights * own).sum() / weights.sum())


def fit_logistic(features: np.ndarray, classes: np.ndarray, *, penalty: float, number: int) -> Linear:
    """Minimize the balanced sum of -log P(class) + ``penalty`` / 2 x the sum of squared weights; the bias is free.

    ``features``: (pictures, features). ``classes``: (pictures,), 0 to ``number`` - 1.
    """
    weights = balanced_weights(classes)
    mean = weights @ features / weights.sum()
    basis, scores, energy = _principal(np.sqrt(weights)[:, None] * (features - mean))
    inner = scores / np.sqrt(weights)[:, None]
    target = np.zeros((len(classes), number))
    target[np.arange(len(classes)), classes] = 1
    columns = np.column_stack([inner, np.ones(len(classes))])
    ridge = np.append(np.full(len(energy), penalty), 0.0)[:, None]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(-1, number)
        likely = log_softmax(columns @ solution)
        gradient = columns.T @ (weights[:, None] * (np.exp(likely) - target)) + ridge * solution
        value = -(weights * (likely * target).sum(1)).sum() + 0.5 * (ridge * solution**2).sum()
        return float(value), gradient.ravel()

    # Böhning's bound of the Hessian (1992) is diagonal here, and the first guess of its inverse.
    curvature = 0.5 * np.append(energy, weights.sum())[:, None] + ridge
    start = np.zeros(columns.shape[1] * number)
    found = minimize(objective, start, np.repeat(1 / curvature.ravel(), number)).reshape(-1, number)
    slopes = basis @ found[:-1]
    offset = found[-1] - found[-1].mean()
    return Linear(slopes, offset - mean @ slopes)


def minimize(objective: Objective, start: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """L-BFGS (Nocedal 1980) with a backtracking line search; ``scale``: first guess of the inverse Hessian's diagonal."""
    x, (value, gradient) = start, objective(start)
    enough = _TOLERANCE * np.sqrt((gradient**2 * scale).sum()) + 1e-12
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(_STEPS):
        if np.sqrt((gradient**2 * scale).sum()) <= enough:
            break
        direction = -_times_inverse_hessian(gradient, pairs, scale)
        slope, length = float(gradient @ direction), 1.0
        while True:
            candidate = x + length * direction
            new_value, new_gradient = objective(candidate)
            if new_value <= value + 1e-4 * length * slope or length < 1e-9:
                break
            length /= 2
        step, change = candidate - x, new_gradient - gradient
        if step @ change > 1e-12 * np.sqrt((step @ step) * (change @ change)):
            pairs = [*pairs[1 - _MEMORY :], (step, change)]
        x, value, gradient = candidate, new_value, new_gradient
    return x


def folds(groups: np.ndarray, classes: np.ndarray, number: int) -> np.ndarray:
    """(pictures,): which fold leaves the picture out. Pictures of one group are left out together; each class is spread
    over the folds, large groups first.
    """
    found = np.zeros(len(classes), np.int64)
    for each in np.unique(classes):
        own, load = np.flatnonzero(classes == each), np.zeros(number)
        _, first, place, sizes = np.unique(groups[own], return_index=True, return_inverse=True, return_counts=True)
        fold = np.zeros(len(sizes), np.int64)
        for group in np.lexsort((first, -sizes)):
            fold[group] = load.argmin()
            load[fold[group]] += sizes[group]
        found[own] = fold[place]
    return found


def out_of_fold(
    features: np.ndarray, classes: np.ndarray, fold: np.ndarray, *, penalty: float, number: int
) -> np.ndarray:
    """Evidence (pictures, ``number``) for each picture by the fit that did not see it."""
    found = np.zeros((len(classes), number))
    for each in np.unique(fold):
        left_out = fold == each
        fit = fit_logistic(features[~left_out], classes[~left_out], penalty=penalty, number=number)
        found[left_out] = fit.evidence(features[left_out])
    return found


def choose_penalty(
    features: np.ndarray, classes: np.ndarray, penalties: Sequence[float], *, number: int, folds_of: np.ndarray
) -> float:
    """The penalty whose out-of-fold log loss is least."""
    weights = balanced_weights(classes)
    losses = {
        p: log_loss(out_of_fold(features, classes, folds_of, penalty=p, number=number), classes, weights)
        for p in penalties
    }
    return min(losses, key=lambda p: losses[p])


def _principal(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(basis (columns, r), scores (rows, r), energies (r,)): ``matrix = scores @ basis.T``, least directions dropped."""
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    kept = singular > 1e-7 * max(float(singular[0]), 1e-30)
    kept[_DIRECTIONS:] = False
    return right[kept].T, left[:, kept] * singular[kept], singular[kept] ** 2


def _times_inverse_hessian(
    gradient: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]], scale: np.ndarray
) -> np.ndarray:
    """The two-loop recursion."""
    result: np.ndarray = gradient.copy()
    factors = []
    for step, change in reversed(pairs):
        factor = (step @ result) / (step @ change)
        factors.append(factor)
        result = result - factor * change
    result = scale * result
    for (step, change), factor in zip(pairs, reversed(factors), strict=True):
        result = result + step * (factor - (change @ result) / (step @ change))
    return result
