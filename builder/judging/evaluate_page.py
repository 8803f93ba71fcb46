"""The page of an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from builder.judging.metrics import Accuracy
from builder.reporting.page import BLUE, GREY, RED, image, page, row, tidy

_MANY = 40  # more labels than this and a matrix is drawn without names and numbers
_MATRICES = 12


@dataclass(frozen=True)
class Matrix:
    """``counts``: int (labels, labels), rows are true."""

    title: str
    labels: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Page:
    """``curves``: for every list (bins, 3) pictures, mean confidence, share right."""

    title: str
    heads: Mapping[str, Mapping[str, Accuracy]]
    lists: Mapping[str, Accuracy]
    unknown: Mapping[str, float]
    matrices: Sequence[Matrix]
    curves: Mapping[str, np.ndarray]


def render(content: Page) -> str:
    """The page as HTML text, pictures inlined."""
    rows = [(name, kind, a) for name, kinds in content.heads.items() for kind, a in kinds.items()]
    lists = accuracy_table([(name, "", a) for name, a in content.lists.items()])
    tables = f"{accuracy_table(rows)}<h2>One list of all labels</h2>{lists}"
    unknown = "".join(row([name.replace("_", " ")], [f"{value:.4g}"]) for name, value in content.unknown.items())
    parts = [f"<h2>Each head, on its own pictures</h2>{tables}", "<h2>Reliability</h2>", image(_curves(content.curves))]
    if unknown:
        parts.append(f"<h2>Pictures of no head</h2><table>{unknown}</table>")
    return page(content.title, "".join(parts) + confusions(content.matrices[:_MATRICES]))


def confusions(matrices: Sequence[Matrix]) -> str:
    """A heading and a plot for each."""
    return "".join(f"<h2>Confusion: {html.escape(m.title)}</h2>{image(_confusion(m))}" for m in matrices)


def accuracy_table(rows: Sequence[tuple[str, str, Accuracy]]) -> str:
    """A row for each: of what, which kind, and the figures."""
    titles = ("pictures", "right", "accuracy", "95 % interval", "mean probability", "calibration error", "by chance")
    head = "<tr><th></th><th></th>" + "".join(f'<th class="n">{title}</th>' for title in titles) + "</tr>"
    body = []
    for name, kind, a in rows:
        numbers = (
            str(a.pictures),
            str(a.right),
            f"{a.share:.3f}",
            f"{a.interval[0]:.3f} to {a.interval[1]:.3f}",
            f"{a.mean_probability:.3f}",
            f"{a.calibration_error:.3f}",
            f"{a.calibration_floor:.3f}",
        )
        cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
        body.append(f"<tr><td>{html.escape(name)}</td><td>{kind}</td>{cells}</tr>")
    return f"<table>{head}{''.join(body)}</table>"


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
