"""Plots for the HTML pages."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from markupsafe import Markup

from builder.reporting.html import inline

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREY = "#2a6f97", "#c1440e", "#8d99a6"


def tidy(figure: Any) -> Any:
    """Remove the upper and right frame of ``figure``, and keep its parts from overlapping."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def plot(figure: Any, alt: str) -> Markup:
    """A plot as an element, with a transparent background for dark mode; closes the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True)
    plt.close(figure)
    return Markup('<div class="wide"><div class="plot">{}</div></div>').format(inline(buffer.getvalue(), "png", alt))
