"""The router: P(head | picture), learned only from which head a picture belongs to.

Two kinds of evidence are added for each head: the direction of the features (logistic regression on features of unit
length: their length says how much is in a picture rather than what), and the strength of the head's answer (its energy,
the log-sum-exp of its logits: Liu et al. 2020, arXiv 2010.03759). The weight of each is fitted on pictures that the
regression did not see. Pictures of no head, if there are any, are one more class whose energy is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp, softmax

from builder.joint.logistic import Linear, balanced_weights, cross_validated, fit_logistic, folds, log_loss, principal

PENALTIES = (1.0, 0.2, 0.04)  # of a squared weight, for features of unit length
FOLDS = 5
_ALIKE = 0.8  # cosine from which two pictures of a head are near-duplicates: frames of a film, a picture saved twice
_PRIOR = (1.0, 0.4)  # prior weights of the regression and of the energies
_PULL = 0.02  # penalty towards that prior, per picture; it matters where there are few
_STEPS = 127  # the regression's weights are stored as int8
TINY = 1e-12  # added to the squared length of features, which may all be 0 for a black picture


@dataclass(frozen=True)
class Evidence:
    """The finished heads' outputs for the pictures that the router learns from.

    ``features``: float (pictures, features), as the device sees them. ``logits``: for each head (pictures, labels).
    ``classes``: (pictures,) the index of the head that each belongs to, or the number of heads if it belongs to none.
    ``scenes``: (pictures,) equal for pictures of the same scene, where that is known; -1 elsewhere.
    """

    features: np.ndarray
    logits: tuple[np.ndarray, ...]
    classes: np.ndarray
    scenes: np.ndarray | None = None

    def part(self, chosen: np.ndarray) -> Evidence:
        """Some of the pictures."""
        scenes = None if self.scenes is None else self.scenes[chosen]
        return Evidence(self.features[chosen], tuple(z[chosen] for z in self.logits), self.classes[chosen], scenes)

    def beside(self, other: Evidence) -> Evidence:
        """These pictures, followed by those of ``other``."""
        scenes = [np.full(len(e.classes), -1) if e.scenes is None else e.scenes for e in (self, other)]
        return Evidence(
            np.concatenate([self.features, other.features]),
            tuple(np.concatenate(pair) for pair in zip(self.logits, other.logits, strict=True)),
            np.concatenate([self.classes, other.classes]),
            np.concatenate(scenes),
        )

    def only_heads(self, heads: Sequence[int]) -> Evidence:
        """As if there were only these heads; pictures of other heads belong to none."""
        place = np.full(len(self.logits) + 1, len(heads))
        place[list(heads)] = np.arange(len(heads))
        return Evidence(self.features, tuple(self.logits[h] for h in heads), place[self.classes])


@dataclass(frozen=True)
class Router:
    """P(classes) = softmax(steps * (features @ weights) / |features| + bias + gains * energies); float32 arrays.

    ``weights``: integers -127..127 (features, classes). ``widths``: (heads,) the divisor of each head's logits before
    their energy is computed. ``gains``: (heads,). Classes are the heads in order, then none if ``none``.
    """

    weights: np.ndarray
    steps: np.ndarray
    bias: np.ndarray
    widths: np.ndarray
    gains: np.ndarray
    none: bool

    def evidence(self, features: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (pictures, classes) before the softmax."""
        found = unit(features) @ self.weights * self.steps + self.bias
        found[:, : len(self.gains)] += self.gains * energies(logits, self.widths)
        return np.asarray(found)

    def probabilities(self, features: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (pictures, classes); rows sum to 1."""
        found: np.ndarray = softmax(self.evidence(features, logits), axis=1)
        return found


@dataclass(frozen=True)
class FittedRouter:
    """``evidence``: before the softmax, (pictures, classes), from routers whose regression did not see the picture."""

    router: Router
    evidence: np.ndarray
    penalty: float
    trust: tuple[float, float]  # weights of the regression and of the energies
    one_scene: tuple[int, ...]  # classes whose pictures are all near-duplicates: none could be held out

    @property
    def held_out(self) -> np.ndarray:
        """P (pictures, classes) from a router that did not see the picture."""
        found: np.ndarray = softmax(self.evidence, axis=1)
        return found

    def with_none(self, shift: float) -> FittedRouter:
        """Add ``shift`` to the evidence for none, the last class, on every picture; unchanged without such a class."""
        if not self.router.none:
            return self
        added = none_alone(self.evidence.shape[1], shift)
        router = replace(self.router, bias=(self.router.bias + added).astype(np.float32))
        return replace(self, router=router, evidence=self.evidence + added)


def none_alone(classes: int, shift: float) -> np.ndarray:
    """(classes,): ``shift`` for none, the last, and 0 for the heads."""
    found: np.ndarray = np.append(np.zeros(classes - 1), shift)
    return found


def unit(features: np.ndarray) -> np.ndarray:
    """float64 (pictures, features) of length 1."""
    real = features.astype(np.float64)
    found: np.ndarray = real / np.sqrt((real**2).sum(1, keepdims=True) + TINY)
    return found


def energies(logits: Sequence[np.ndarray], widths: np.ndarray) -> np.ndarray:
    """float64 (pictures, heads): log-sum-exp of each head's logits over its width."""
    columns = [logsumexp(z.astype(np.float64) / width, axis=1) for z, width in zip(logits, widths, strict=True)]
    return np.stack(columns, axis=1)


def fit_router(evidence: Evidence, *, fit_energies: bool = True, penalties: Sequence[float] = PENALTIES) -> FittedRouter:
    """Fit the router; every head needs a picture. ``fit_energies``: False uses the features alone (for comparison).

    ``penalties``: one of them is chosen.
    """
    heads, classes = len(evidence.logits), evidence.classes
    number = heads + int(np.any(classes == heads))
    features = unit(evidence.features)
    groups, one_scene = _left_out_together(features, classes, evidence.scenes)
    fold = folds(groups, classes, FOLDS)
    basis = principal(features)
    inner = features @ basis
    penalty, unseen = cross_validated(inner, classes, penalties, number=number, folds_of=fold)
    widths = np.array([max(float(z.std()), 1e-6) for z in evidence.logits], np.float32)
    raw = energies(evidence.logits, widths)
    middle, scale = raw.mean(0), raw.std(0) + 1e-6
    normal = np.zeros_like(unseen)
    if fit_energies:
        normal[:, :heads] = (raw - middle) / scale
    regression, energy, offsets = _trusted(unseen, normal, classes)
    whole = fit_logistic(inner, classes, penalty=penalty, number=number)
    gains = energy / scale if fit_energies else np.zeros(heads)
    bias = regression * whole.bias + offsets
    bias[:heads] -= gains * middle
    return FittedRouter(
        _stored(Linear(regression * basis @ whole.weights, bias), widths, gains, number > heads),
        regression * unseen + energy * normal + offsets,
        penalty,
        (regression, energy),
        one_scene,
    )


def near_duplicates(features: np.ndarray, classes: np.ndarray, scenes: np.ndarray | None = None) -> np.ndarray:
    """(pictures,): the first picture of the group that each is in.

    Near-duplicate pictures of a head are in one group, and so are all frames of a pan, each of which is nearly the same
    as the next. A fit that has seen one of them would only seem to be good at the others.
    """
    centred = unit(features - features.mean(0))
    found = np.zeros(len(classes), np.int64)
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        alike = centred[own] @ centred[own].T > _ALIKE
        if scenes is not None:
            alike |= (scenes[own, None] == scenes[own]) & (scenes[own] >= 0)
        labels = connected_components(alike, directed=False)[1]
        found[own] = own[np.unique(labels, return_index=True)[1]][labels]
    return found


def _left_out_together(
    features: np.ndarray, classes: np.ndarray, scenes: np.ndarray | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Groups for cross-validation, and the classes that are one group as a whole: their pictures are told apart after
    all, since a fit without any of them knows nothing of the class.
    """
    groups = near_duplicates(features, classes, scenes)
    alone = [c for c in np.unique(classes).tolist() if len(np.unique(groups[classes == c])) == 1]
    single = np.isin(classes, alone)
    return np.where(single, groups.max() + 1 + np.arange(len(classes)), groups), tuple(alone)


def _trusted(regression: np.ndarray, energy: np.ndarray, classes: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Weights of the regression and of the energies, and an offset for each class: a convex fit of few parameters."""
    number, weights = regression.shape[1], balanced_weights(classes)
    parts, target = np.stack([regression, energy]), np.eye(number)[classes]
    prior = np.concatenate([_PRIOR, np.zeros(number)])

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(x[:2], parts, 1) + x[2:]
        error = (softmax(total, axis=1) - target) * weights[:, None] / weights.sum()
        gradient = np.concatenate([np.tensordot(parts, error, 2), error.sum(0)])
        return log_loss(total, classes, weights) + _PULL * ((x - prior) ** 2).sum(), gradient + 2 * _PULL * (x - prior)

    bounds = [(0, None)] * 2 + [(None, None)] * number
    found = minimize(objective, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12}).x
    return float(found[0]), float(found[1]), found[2:]


def _stored(linear: Linear, widths: np.ndarray, gains: np.ndarray, none: bool) -> Router:
    """The router with weights rounded to 127 steps for each class, as the file holds them."""
    steps = np.maximum(np.abs(linear.weights).max(0), 1e-12) / _STEPS
    return Router(
        np.rint(linear.weights / steps).astype(np.int8),
        steps.astype(np.float32),
        linear.bias.astype(np.float32),
        widths,
        gains.astype(np.float32),
        none,
    )
