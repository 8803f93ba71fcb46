"""When a picture belongs to no head: thresholds for a given false-alarm rate, and how well they separate."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from builder.joint.layout import known_score
from builder.joint.router import Evidence, FittedRouter, fit_router, none_alone

_MOST_LEFT_OUT = 8  # heads that are left out in turn; each costs a fit
_TIES = 0.2  # share of the false alarms for pictures that are undecided between two heads


@dataclass(frozen=True)
class Unknown:
    """``auroc``: how often a picture of a head scores above one of none. ``fpr_at_95_tpr``: share of the pictures of none
    that pass where 95 % of those of the heads do. ``against``: what stood for the unknown. ``pictures``: their number.
    """

    auroc: float
    fpr_at_95_tpr: float
    against: str
    pictures: int

    def to_json(self) -> dict[str, Any]:
        """Figures rounded to four places."""
        return {**asdict(self), "auroc": round(self.auroc, 4), "fpr_at_95_tpr": round(self.fpr_at_95_tpr, 4)}


@dataclass(frozen=True)
class Judged:
    """Evidence (pictures, classes) before the softmax, on pictures by which thresholds are set.

    ``classes``: (pictures,). ``logits``: of each head (pictures, labels). A class beyond the heads is none.
    """

    evidence: np.ndarray
    classes: np.ndarray
    logits: tuple[np.ndarray, ...]

    @property
    def heads(self) -> int:
        return len(self.logits)

    @property
    def none(self) -> bool:
        return bool(self.evidence.shape[1] > self.heads)

    @classmethod
    def of(cls, fitted: FittedRouter, evidence: Evidence, unseen: Evidence | None, enough: int) -> Judged:
        """From ``unseen``, pictures that the heads were not trained on either, if each head has ``enough`` of them;
        otherwise from those that the router learned from, each by a fit that did not see it.
        """
        heads = len(evidence.logits)
        if unseen is None or np.bincount(unseen.classes, minlength=heads)[:heads].min() < enough:
            return cls(fitted.evidence, evidence.classes, evidence.logits)
        return cls(fitted.router.evidence(unseen.features, unseen.logits), unseen.classes, unseen.logits)

    def with_none(self, shift: float) -> Judged:
        """As ``FittedRouter.with_none``."""
        if not self.none:
            return self
        return replace(self, evidence=self.evidence + none_alone(self.evidence.shape[1], shift))


def refusing(judged: Judged, false_alarm: float) -> tuple[float, float]:
    """(shift, bar): the evidence to add to none, and the P(head) that the likeliest head must reach.

    Together they refuse the share ``false_alarm`` of the heads' pictures: the likeliest head does not reach ``bar``, or
    is less likely than none. If there is a class none, nearly all of them are refused by the latter.
    """
    own = judged.evidence[judged.classes < judged.heads]
    if not judged.none:
        return 0.0, _reached(softmax(own, axis=1).max(1), false_alarm)
    largest, everything = own[:, :-1].max(1), logsumexp(own[:, :-1], axis=1)
    share = np.exp(largest - everything)
    bar = _reached(share, _TIES * false_alarm)
    # The most evidence for none with which a picture is still accepted, by either rule.
    by_bar = everything + np.log(np.maximum(share / max(bar, 1e-6) - 1, 1e-300))
    most = np.minimum(largest, by_bar) - own[:, -1]
    # Slightly less, so that the picture that sets it is still accepted.
    return float(np.quantile(most, false_alarm, method="lower")) - 1e-3, bar


def head_thresholds(judged: Judged, false_alarm: float) -> list[float]:
    """For each head, the P(head) that all but the share ``false_alarm`` of its own pictures reach."""
    p = softmax(judged.evidence, axis=1)
    return [_reached(p[judged.classes == h, h], false_alarm) for h in range(judged.heads)]


def unknown_from_none(held_out: np.ndarray, classes: np.ndarray, heads: int, against: str) -> Unknown:
    """Measured on pictures of none, with fits that did not see them."""
    scores = known_score(held_out, heads)
    known, strange = scores[classes < heads], scores[classes == heads]
    return Unknown(*separation(known, strange), f"{against}, cross-validated", len(strange))


def unknown_by_leaving_out(evidence: Evidence, penalty: float) -> Unknown | None:
    """Each head in turn is left out and its pictures stand for the unknown; None where fewer than two would remain."""
    heads = len(evidence.logits)
    if heads < 3:
        return None
    found, count = [], 0
    for left_out in np.unique(np.linspace(0, heads - 1, min(heads, _MOST_LEFT_OUT)).round().astype(int)).tolist():
        rest, strange = [h for h in range(heads) if h != left_out], evidence.classes == left_out
        fitted = fit_router(evidence.part(~strange).only_heads(rest), penalties=[penalty])
        others = evidence.part(strange)
        p = fitted.router.probabilities(others.features, [others.logits[h] for h in rest])
        found.append(separation(fitted.held_out.max(1), p.max(1)))
        count += int(strange.sum())
    auroc, fpr = np.mean(found, axis=0)
    return Unknown(float(auroc), float(fpr), "the pictures of each head in turn, with that head left out", count)


def separation(known: np.ndarray, strange: np.ndarray) -> tuple[float, float]:
    """(AUROC, false positive rate at 95 % true positives) of a score that should be high for ``known``."""
    from sklearn.metrics import roc_auc_score

    truth = np.repeat([1, 0], [len(known), len(strange)])
    bar = np.quantile(known, 0.05, method="lower")
    return float(roc_auc_score(truth, np.concatenate([known, strange]))), float((strange >= bar).mean())


def _reached(scores: np.ndarray, false_alarm: float) -> float:
    """The threshold that all but ``false_alarm`` reach, rounded down so that the picture that sets it passes."""
    return float(np.floor(np.quantile(scores, false_alarm, method="lower") * 1e4) / 1e4)
