"""When a picture belongs to no head: thresholds for a stated false-alarm rate, and how well they can tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from builder.joint.router import Evidence, fit_router

_MOST_LEFT_OUT = 8  # heads that are left out in turn; each costs a fit


@dataclass(frozen=True)
class Unknown:
    """``auroc``: how often a picture of a head scores above one of none. ``fpr_at_95_tpr``: share of the pictures of none
    that pass where 95 % of those of the heads do. ``against``: what stood for the unknown. ``pictures``: how many did.
    """

    auroc: float
    fpr_at_95_tpr: float
    against: str
    pictures: int

    def to_json(self) -> dict[str, Any]:
        """Figures rounded to four places."""
        return {**asdict(self), "auroc": round(self.auroc, 4), "fpr_at_95_tpr": round(self.fpr_at_95_tpr, 4)}


def thresholds(held_out: np.ndarray, classes: np.ndarray, heads: int, false_alarm: float) -> tuple[list[float], float]:
    """For each head, and for the list: the P(head), and the largest P(head), that all but the share ``false_alarm`` of
    the pictures of the heads reach.

    ``held_out``: P (pictures, classes), each row by a fit that did not see the picture. ``classes``: (pictures,).
    """
    own = [_reached(held_out[classes == h, h], false_alarm) for h in range(heads)]
    return own, _reached(held_out[classes < heads, :heads].max(1), false_alarm)


def unknown_from_none(held_out: np.ndarray, classes: np.ndarray, heads: int) -> Unknown:
    """From pictures of none, by fits that did not see them."""
    known, strange = (held_out[chosen, :heads].max(1) for chosen in (classes < heads, classes == heads))
    return Unknown(*separation(known, strange), "pictures of none, cross-validated", len(strange))


def unknown_by_leaving_out(evidence: Evidence) -> Unknown | None:
    """Each head in turn is taken away and its pictures stand for the unknown; None where fewer than two would be left."""
    heads = len(evidence.logits)
    if heads < 3:
        return None
    found, count = [], 0
    for left_out in np.unique(np.linspace(0, heads - 1, min(heads, _MOST_LEFT_OUT)).round().astype(int)).tolist():
        rest, strange = [h for h in range(heads) if h != left_out], evidence.classes == left_out
        fitted = fit_router(evidence.part(~strange).only_heads(rest))
        others = evidence.part(strange)
        p = fitted.router.probabilities(others.features, [others.logits[h] for h in rest])
        found.append(separation(fitted.held_out.max(1), p.max(1)))
        count += int(strange.sum())
    auroc, fpr = np.mean(found, axis=0)
    return Unknown(float(auroc), float(fpr), "the pictures of each head in turn, that head left out", count)


def separation(known: np.ndarray, strange: np.ndarray) -> tuple[float, float]:
    """(AUROC, false positive rate at 95 % true positives) of a score that should be high for ``known``.

    AUROC as the Mann-Whitney statistic, ties counted half.
    """
    ordered = np.sort(strange)
    below, not_above = np.searchsorted(ordered, known, "left"), np.searchsorted(ordered, known, "right")
    auroc = float((below + not_above).mean() / 2 / len(strange))
    bar = np.quantile(known, 0.05, method="lower")
    return auroc, float((strange >= bar).mean())


def _reached(scores: np.ndarray, false_alarm: float) -> float:
    """Rounded down, so that the picture that sets it passes."""
    return float(np.floor(np.quantile(scores, false_alarm, method="lower") * 1e4) / 1e4)
