"""The HTML page of an evaluation, a single file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import pyplot as plt

from builder.judging.metrics import Accuracy, LabelRates
from builder.reporting.html import render as render_template
from builder.reporting.plots import BLUE, GREY, RED, plot, tidy
from builder.reporting.words import meanings
from builder.scoring.cards import Card

_MANY = 40  # with more labels, a matrix is drawn without names and numbers
_MATRICES = 12
_WORDS = (
    "head", "right", "95 % interval", "calibration error", "by chance", "joint list", "reliability", "confusion",
    "precision", "recall", "AUROC",
)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """``counts``: int (labels, labels); rows are true labels."""

    title: str
    labels: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Page:
    """``curves``: for every list, (bins, 3): pictures, mean confidence, share right. ``rates``: of each label, by head
    and for the joint list. ``wrong``: galleries of wrong answers. ``notes``: on samples that were left out.
    """

    title: str
    heads: Mapping[str, Mapping[str, Accuracy]]
    lists: Mapping[str, Accuracy]
    unknown: Sequence[tuple[str, str]]
    matrices: Sequence[Matrix]
    curves: Mapping[str, np.ndarray]
    rates: Mapping[str, Sequence[LabelRates]] = field(default_factory=dict)
    wrong: Sequence[tuple[str, Sequence[Card]]] = ()
    notes: Sequence[str] = ()


_RELIABILITY = "probability of the answers against the share that is right"


def render(content: Page) -> str:
    """The page as HTML text, pictures inlined."""
    return render_template(
        "evaluation.html",
        title=content.title,
        words=meanings(*_WORDS),
        heads=[(name, kind, a) for name, kinds in content.heads.items() for kind, a in kinds.items()],
        lists=[(name, "", a) for name, a in content.lists.items()],
        reliability_plot=content.curves and plot(_curves(content.curves), _RELIABILITY),
        unknown=content.unknown,
        matrices=confusions(content.matrices[:_MATRICES]),
        rates=[(name, [_rate_row(rate) for rate in rates]) for name, rates in content.rates.items()],
        wrong=content.wrong,
        notes=content.notes,
    )


def _rate_row(rate: LabelRates) -> tuple[str, ...]:
    shares = ("-" if share is None else f"{share:.3f}" for share in (rate.precision, rate.recall))
    return rate.label, str(rate.samples), str(rate.found), str(rate.right), *shares


def confusions(matrices: Sequence[Matrix]) -> list[tuple[str, Markup]]:
    """A title and a plot for each."""
    return [(m.title, plot(_confusion(m), f"confusion: {m.title}")) for m in matrices]


def _curves(curves: Mapping[str, np.ndarray]) -> Any:
    figure, plots = plt.subplots(1, len(curves), figsize=(11, 3.4), sharey=True, squeeze=False)
    for axes, (name, rows) in zip(plots[0], curves.items(), strict=True):
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
        axes.plot(rows[:, 1], rows[:, 2], color=BLUE, linewidth=1)
        axes.scatter(rows[:, 1], rows[:, 2], s=6 + 4 * rows[:, 0], color=BLUE, alpha=0.7)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("probability of the answer")
    plots[0, 0].set_ylabel("share that is right")
    return tidy(figure)


def _confusion(matrix: Matrix) -> Any:
    number = len(matrix.labels)
    small = number <= _MANY
    side = max(2.6, 0.36 * number) if small else 9.0
    figure, axes = plt.subplots(figsize=(side + 1.6, side + 0.6))
    shares = matrix.counts / np.maximum(matrix.counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("found")
    axes.set_ylabel("true")
    if small:
        axes.set_xticks(range(number), matrix.labels, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(number), matrix.labels, fontsize=8)
        for i, j in zip(*np.nonzero(matrix.counts), strict=True):
            colour = "white" if shares[i, j] > 0.5 else RED if i != j else "black"
            axes.text(j, i, str(matrix.counts[i, j]), ha="center", va="center", fontsize=8, color=colour)
    return tidy(figure)
