"""The router: P(head | picture), learned only from which head a picture belongs to.

Two kinds of evidence are added up for each head: how much the features look like those of its pictures (logistic
regression on the features), and how strongly the head itself answers (its energy, the log-sum-exp of its logits: Liu et
al. 2020, arXiv 2010.03759). How far each is to be trusted is fitted on pictures that the regression did not see.
Pictures of no head, where there are any, are one more class whose energy is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from builder.joint.logistic import (
    Linear,
    balanced_weights,
    choose_penalty,
    fit_logistic,
    folds,
    log_loss,
    log_softmax,
    minimize,
    out_of_fold,
)

PENALTIES = (0.05, 0.01, 0.002)  # of a squared weight, for each feature of unit spread
FOLDS = 5
_ALIKE = 0.8  # cosine from which two pictures of a head are nearly one: frames of a film, a picture saved twice
_FLOOR = 0.3  # of the mean spread, added to each feature's: what hardly moves must not be blown up
_PRIOR = (1.0, 0.4)  # trust in the regression and in the energies before any picture was seen
_PULL = 0.02  # towards that, per picture; it matters where there are few
_STEPS = 127  # the regression's weights are stored as int8


@dataclass(frozen=True)
class Evidence:
    """What the finished heads made of the pictures the router learns from.

    ``features``: float (pictures, features), as the device sees them. ``logits``: for each head (pictures, labels).
    ``classes``: (pictures,) the index of the head that each belongs to, or the number of heads where it is none's.
    """

    features: np.ndarray
    logits: tuple[np.ndarray, ...]
    classes: np.ndarray

    def part(self, chosen: np.ndarray) -> Evidence:
        """Some of the pictures."""
        return Evidence(self.features[chosen], tuple(z[chosen] for z in self.logits), self.classes[chosen])

    def only_heads(self, heads: Sequence[int]) -> Evidence:
        """As if there were only these heads; the pictures of others are none's."""
        place = np.full(len(self.logits) + 1, len(heads))
        place[list(heads)] = np.arange(len(heads))
        return Evidence(self.features, tuple(self.logits[h] for h in heads), place[self.classes])


@dataclass(frozen=True)
class Router:
    """P(classes) = softmax(steps * (features @ weights) + bias + gains * energies); float32 arrays.

    ``weights``: integers -127..127 (features, classes). ``widths``: what each head's logits are divided by before their
    energy is taken. ``gains``: (heads,). Classes are the heads in order, then none where ``none``.
    """

    weights: np.ndarray
    steps: np.ndarray
    bias: np.ndarray
    widths: np.ndarray
    gains: np.ndarray
    none: bool

    def evidence(self, features: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (pictures, classes) before the softmax."""
        found = features.astype(np.float64) @ self.weights * self.steps + self.bias
        found[:, : len(self.gains)] += self.gains * energies(logits, self.widths)
        return np.asarray(found)

    def probabilities(self, features: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (pictures, classes); rows sum to 1."""
        found: np.ndarray = np.exp(log_softmax(self.evidence(features, logits)))
        return found


@dataclass(frozen=True)
class FittedRouter:
    """``held_out``: P (pictures, classes) of every picture by a router whose regression did not see it."""

    router: Router
    held_out: np.ndarray
    penalty: float
    trust: tuple[float, float]  # in the regression, in the energies
    one_scene: tuple[int, ...]  # classes whose pictures are all nearly the same: nothing of them could be held out


def pooled(features: np.ndarray) -> np.ndarray:
    """(pictures, channels) of features (pictures, ..., channels): a map of features is averaged over its places."""
    found: np.ndarray = features.reshape(len(features), -1, features.shape[-1]).mean(1)
    return found


def energies(logits: Sequence[np.ndarray], widths: np.ndarray) -> np.ndarray:
    """float64 (pictures, heads): log-sum-exp of each head's logits over its width."""
    columns = []
    for z, width in zip(logits, widths, strict=True):
        scaled = z.astype(np.float64) / width
        top = scaled.max(1, keepdims=True)
        columns.append((top + np.log(np.exp(scaled - top).sum(1, keepdims=True)))[:, 0])
    return np.stack(columns, axis=1)


def fit_router(evidence: Evidence, *, fit_energies: bool = True) -> FittedRouter:
    """Requires a picture or more of every head. ``fit_energies``: False leaves the features alone (for comparison)."""
    heads, classes = len(evidence.logits), evidence.classes
    number = heads + int(np.any(classes == heads))
    spread = evidence.features.std(0)
    spread = spread + _FLOOR * spread.mean() + 1e-12
    features = evidence.features / spread
    groups, one_scene = _left_out_together(features, classes)
    fold = folds(groups, classes, FOLDS)
    penalties = [p * features.shape[1] for p in PENALTIES]
    penalty = choose_penalty(features, classes, penalties, number=number, folds_of=fold)
    unseen = out_of_fold(features, classes, fold, penalty=penalty, number=number)
    widths = np.array([max(float(z.std()), 1e-6) for z in evidence.logits], np.float32)
    raw = energies(evidence.logits, widths)
    middle, scale = raw.mean(0), raw.std(0) + 1e-6
    normal = np.zeros_like(unseen)
    if fit_energies:
        normal[:, :heads] = (raw - middle) / scale
    regression, energy, offsets = _quantized(unseen, normal, classes)
    whole = fit_logistic(features, classes, penalty=penalty, number=number)
    gains = energy / scale if fit_energies else np.zeros(heads)
    bias = regression * whole.bias + offsets
    bias[:heads] -= gains * middle
    router = _stored(Linear(regression * whole.weights / spread[:, None], bias), widths, gains, number > heads)
    return FittedRouter(
        router,
        np.exp(log_softmax(regression * unseen + energy * normal + offsets)),
        penalty,
        (regression, energy),
        one_scene,
    )


def near_duplicates(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(pictures,): the number of the group that each is in. Two pictures of a head that are nearly the same are in one
    group, and so are the frames of a pan, each of which is nearly the same as the next.

    A fit that has seen one of them would only seem to be good at the others.
    """
    centred = features - features.mean(0)
    unit = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-12)
    found, count = np.zeros(len(classes), np.int64), 0
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        groups, labels = connected_components(unit[own] @ unit[own].T > _ALIKE, directed=False)
        found[own], count = labels + count, count + groups
    return found


def _left_out_together(features: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Groups for cross-validation, and the classes that are one group as a whole: their pictures are told apart after
    all, since a fit without any of them knows nothing of the class.
    """
    groups = near_duplicates(features, classes)
    alone = [c for c in np.unique(classes).tolist() if len(np.unique(groups[classes == c])) == 1]
    single = np.isin(classes, alone)
    return np.where(single, groups.max() + 1 + np.arange(len(classes)), groups), tuple(alone)


def _quantized(regression: np.ndarray, energy: np.ndarray, classes: np.ndarray) -> tuple[float, float, np.ndarray]:
    """How far to trust the regression and the energies, and an offset for each class: a convex fit of few numbers."""
    number, weights = regression.shape[1], balanced_weights(classes)
    parts, target = np.stack([regression, energy]), np.eye(number)[classes]
    prior = np.concatenate([_PRIOR, np.zeros(number)])

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(x[:2], parts, 1) + x[2:]
        error = (np.exp(log_softmax(total)) - target) * weights[:, None] / weights.sum()
        gradient = np.concatenate([np.tensordot(parts, error, 2), error.sum(0)])
        return log_loss(total, classes, weights) + _PULL * ((x - prior) ** 2).sum(), gradient + 2 * _PULL * (x - prior)

    found = minimize(objective, prior, np.ones(len(prior)))
    return max(float(found[0]), 0.0), max(float(found[1]), 0.0), found[2:]


def _stored(linear: Linear, widths: np.ndarray, gains: np.ndarray, none: bool) -> Router:
    """Weights rounded to 127 steps a class, as the file holds them."""
    steps = np.maximum(np.abs(linear.weights).max(0), 1e-12) / _STEPS
    return Router(
        np.rint(linear.weights / steps).astype(np.int8),
        steps.astype(np.float32),
        linear.bias.astype(np.float32),
        widths,
        gains.astype(np.float32),
        none,
    )
