"""Multinomial logistic regression with a ridge penalty, cross-validated: the only fit that the joint head needs.

The problem is convex, so the order of classes and pictures does not change the solution. scikit-learn's version treats
two classes differently from three, and takes several times as long on directions of such unequal scale. scikit-learn is
imported where it is used, because the import takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

_STEPS = 400
_TOLERANCE = 1e-6  # of the gradient, relative to the first one
_NOTHING = 1e-12  # of the energy along the first principal direction
_DIRECTIONS = 512  # principal directions of the features that a fit uses; there are rarely more pictures


@dataclass(frozen=True)
class Linear:
    """Evidence ``features @ weights + bias``. ``weights``: (features, classes); ``bias``: (classes,)."""

    weights: np.ndarray
    bias: np.ndarray

    def evidence(self, features: np.ndarray) -> np.ndarray:
        """float64 (pictures, classes) of (pictures, features)."""
        found: np.ndarray = features @ self.weights + self.bias
        return found


def balanced_weights(classes: np.ndarray) -> np.ndarray:
    """Weights (pictures,) with which every class has the same total and the average is 1."""
    from sklearn.utils.class_weight import compute_sample_weight

    found: np.ndarray = compute_sample_weight("balanced", classes)
    return found


def log_loss(evidence: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log P(class), for ``evidence`` (pictures, classes)."""
    own = log_softmax(evidence, axis=1)[np.arange(len(classes)), classes]
    return float(-(weights * own).sum() / weights.sum())


def fit_logistic(features: np.ndarray, classes: np.ndarray, *, penalty: float, number: int) -> Linear:
    """Minimize the balanced sum of -log P(class) + ``penalty`` / 2 x the sum of squared weights; the bias is free.

    ``features``: (pictures, features). ``classes``: (pictures,), 0 to ``number`` - 1.
    """
    weights = balanced_weights(classes)
    mean = weights @ features / weights.sum()
    columns = np.column_stack([features - mean, np.ones(len(classes))])
    target = np.eye(number)[classes]
    ridge = np.append(np.full(features.shape[1], penalty), 0.0)[:, None]
    # The diagonal of Böhning's bound of the Hessian (1992): in units of its root, curvature is about equal in all
    # directions.
    units = 1 / np.sqrt(0.5 * (weights @ columns**2)[:, None] + ridge)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = units * flat.reshape(-1, number)
        likely = log_softmax(columns @ solution, axis=1)
        gradient = columns.T @ (weights[:, None] * (np.exp(likely) - target)) + ridge * solution
        value = 0.5 * (ridge * solution**2).sum() - (weights * (likely * target).sum(1)).sum()
        return float(value), (units * gradient).ravel()

    start = np.zeros(columns.shape[1] * number)
    tolerance = _TOLERANCE * np.abs(objective(start)[1]).max()
    options = {"maxiter": _STEPS, "gtol": tolerance, "ftol": 1e-13}
    with threadpool_limits(1):  # products this small take longer with two threads than with one
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    solution = units * found.x.reshape(-1, number)
    offset = solution[-1] - solution[-1].mean()
    return Linear(solution[:-1], offset - mean @ solution[:-1])


def principal(features: np.ndarray) -> np.ndarray:
    """(features, directions): the principal directions of the pictures. A fit in them has the same result, faster.

    Eigenvectors of the products, in a tenth of the time that singular values take. Directions in which no pictures differ
    are left out.
    """
    centred = (features - features.mean(0)).astype(np.float64)
    few = len(centred) < centred.shape[1]
    energy, vectors = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    kept = np.flatnonzero(energy > _NOTHING * max(energy[-1], 0.0))[: -_DIRECTIONS - 1 : -1]
    vectors = vectors[:, kept]
    return (centred.T @ vectors) / np.sqrt(energy[kept]) if few else vectors


def folds(groups: np.ndarray, classes: np.ndarray, number: int) -> np.ndarray:
    """(pictures,): the fold that holds the picture out. Pictures of one group are held out together; each class is spread
    over the folds as evenly as its groups allow.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros(len(classes), np.int64)
    # Classes are ordered by their first picture: the splitter breaks ties by order, and that of the heads must not
    # matter.
    _, first, place = np.unique(classes, return_index=True, return_inverse=True)
    if np.bincount(place).max() < number:  # every class has fewer pictures than folds
        return np.asarray(np.unique(groups, return_inverse=True)[1] % number)
    splitter = StratifiedGroupKFold(number)
    for fold, (_, left_out) in enumerate(splitter.split(np.zeros((len(classes), 1)), first[place], groups)):
        found[left_out] = fold
    return found


def out_of_fold(
    features: np.ndarray, classes: np.ndarray, fold: np.ndarray, *, penalty: float, number: int
) -> np.ndarray:
    """Evidence (pictures, ``number``) for each picture, from the fit that did not see it."""
    found = np.zeros((len(classes), number))
    for each in np.unique(fold):
        left_out = fold == each
        fit = fit_logistic(features[~left_out], classes[~left_out], penalty=penalty, number=number)
        found[left_out] = fit.evidence(features[left_out])
    return found


def cross_validated(
    features: np.ndarray, classes: np.ndarray, penalties: Sequence[float], *, number: int, folds_of: np.ndarray
) -> tuple[float, np.ndarray]:
    """The penalty with the least out-of-fold log loss, and its evidence (pictures, ``number``)."""
    weights = balanced_weights(classes)
    found = {p: out_of_fold(features, classes, folds_of, penalty=p, number=number) for p in penalties}
    best = min(found, key=lambda p: log_loss(found[p], classes, weights))
    return best, found[best]
