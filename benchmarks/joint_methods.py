"""The methods for P(head | picture) that ``benchmarks.joint`` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import softmax

from benchmarks.joint_data import Problem, train
from builder.joint.logistic import balanced_weights, folds, log_loss
from builder.joint.router import energies, fit_router

TEMPERATURES = np.exp(np.linspace(np.log(0.02), np.log(50), 60))
SHRINKAGES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def tempered(unseen: np.ndarray, held_out: np.ndarray, classes: np.ndarray, pool: np.ndarray | None = None) -> np.ndarray:
    """P(head), (pictures, heads), from evidence with a temperature that is fitted on held-out folds.

    ``pool``: the head of each column.
    """

    def by_head(evidence: np.ndarray) -> np.ndarray:
        p = softmax(evidence, axis=1)
        return p if pool is None else np.stack([p[:, pool == h].sum(1) for h in range(int(pool.max()) + 1)], axis=1)

    weights = balanced_weights(classes)
    losses = [log_loss(np.log(by_head(held_out * t) + 1e-30), classes, weights) for t in TEMPERATURES]
    return by_head(unseen * TEMPERATURES[int(np.argmin(losses))])


def discriminant(features: np.ndarray, classes: np.ndarray, shrinkage: float) -> Callable[[np.ndarray], np.ndarray]:
    """Linear discriminant: one covariance for all classes, shrunk to a multiple of the identity; equal priors."""
    means = np.stack([features[classes == c].mean(0) for c in range(int(classes.max()) + 1)])
    rest = features - means[classes]
    covariance = (rest * balanced_weights(classes)[:, None]).T @ rest / len(rest)
    size = len(covariance)
    whole = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    slopes = np.linalg.solve(whole, means.T)
    return lambda unseen: unseen @ slopes - 0.5 * (means.T * slopes).sum(0)


def by_discriminant(p: Problem, shrinkages: Sequence[float], pseudo: bool = False) -> np.ndarray:
    """P(head). With ``pseudo``, each class that a head predicts for its own pictures has a mean of its own."""
    basis = np.linalg.svd(p.evidence.features - p.evidence.features.mean(0), full_matrices=False)[2].T
    features, unseen = ((e.features - p.evidence.features.mean(0)) @ basis for e in (p.evidence, p.unseen))
    present, classes = np.unique(p.pseudo, return_inverse=True) if pseudo else (None, p.evidence.classes)
    pool = None if present is None else p.head_of[present]
    fold = folds(np.arange(len(classes)), classes, 5)
    best: tuple[float, np.ndarray] | None = None
    for shrinkage in shrinkages:
        held_out = np.zeros((len(classes), int(classes.max()) + 1))
        for f in range(5):
            away = (fold == f) & (np.bincount(classes)[classes] > 1)
            fit = discriminant(features[~away], classes[~away], shrinkage)
            held_out[fold == f] = fit(features[fold == f])
        own = tempered(held_out, held_out, p.evidence.classes, pool)
        loss = log_loss(np.log(own + 1e-30), p.evidence.classes, balanced_weights(p.evidence.classes))
        if best is None or loss < best[0]:
            fit = discriminant(features, classes, shrinkage)
            best = loss, tempered(fit(unseen), held_out, p.evidence.classes, pool)
    assert best is not None
    return best[1]


def by_energy(p: Problem) -> np.ndarray:
    """P(head) from the heads' energies alone, normalized on the calibration pictures."""
    widths = np.array([z.std() for z in p.evidence.logits])
    raw, unseen = (energies(e.logits, widths) for e in (p.evidence, p.unseen))
    middle, scale = raw.mean(0), raw.std(0)
    return tempered((unseen - middle) / scale, (raw - middle) / scale, p.evidence.classes)


def by_pseudo_labels(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on the classes that the heads predict for their own pictures: P(head), and the list itself."""
    present, classes = np.unique(p.pseudo, return_inverse=True)
    likely = softmax(train(p.evidence.features, classes)(p.unseen.features), axis=1)
    pool, whole = p.head_of[present], np.zeros((len(likely), len(p.head_of)))
    whole[:, present] = likely
    return np.stack([likely[:, pool == h].sum(1) for h in range(int(p.head_of.max()) + 1)], axis=1), whole


def head_temperatures(p: Problem) -> list[float]:
    """The temperature of each head at which its energy best tells whose picture it is. No labels are needed."""
    weights, found = balanced_weights(p.evidence.classes), []
    for h in range(len(p.evidence.logits)):
        losses = []
        for t in TEMPERATURES:
            scaled = [z / (t if g == h else 1.0) for g, z in enumerate(p.evidence.logits)]
            losses.append(log_loss(energies(scaled, np.ones(len(scaled))), p.evidence.classes, weights))
        found.append(float(TEMPERATURES[int(np.argmin(losses))]))
    return found


def methods(p: Problem) -> dict[str, np.ndarray]:
    """Scores (pictures, labels) of every method."""
    number = len(p.unseen.logits)
    even = np.full((len(p.truth), number), 1 / number)
    both = fit_router(p.evidence).router.probabilities(p.unseen.features, p.unseen.logits)
    viewed = fit_router(p.views).router.probabilities(p.unseen.features, p.unseen.logits)
    alone = fit_router(p.evidence, fit_energies=False).router.probabilities(p.unseen.features, p.unseen.logits)
    pooled, direct = by_pseudo_labels(p)
    energy, temperatures = by_energy(p), head_temperatures(p)
    return {
        "concatenated softmaxes": p.joint(even),
        "energies": p.joint(energy),
        "nearest means": p.joint(by_discriminant(p, (1.0,))),
        "nearest means, pseudo-labels": p.joint(by_discriminant(p, (1.0,), pseudo=True)),
        "shrinkage discriminant": p.joint(by_discriminant(p, SHRINKAGES)),
        "shrinkage discriminant, pseudo-labels": p.joint(by_discriminant(p, SHRINKAGES, pseudo=True)),
        "regression": p.joint(alone),
        "regression, pseudo-labels": p.joint(pooled),
        "regression, pseudo-labels, as the list": direct,
        "regression and energies (chosen)": p.joint(both),
        "the same, mirrored and cropped views": p.joint(viewed),
        "the same, heads with temperatures": p.joint(both, temperatures),
        "the right head told": p.joint(np.eye(number)[p.unseen.classes]),
    }
