"""What the pages of this project share: their look, and how a table row or a plot becomes HTML. Nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREY = "#2a6f97", "#c1440e", "#8d99a6"
THUMBNAIL = 132  # pixels, as in the style
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 2rem auto; max-width: 66rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; }
td, th { padding: .15rem 1.2rem .15rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } th { font-weight: 600; color: #57636f; }
td { overflow-wrap: break-word; } img { max-width: 100%; height: auto; }
.problem { background: #fdf0ea; border-left: 4px solid #c1440e; padding: .4rem .8rem; margin: .4rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; }
.card { width: 132px; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.card img { display: block; border-radius: 4px; margin-bottom: .3rem; }
.changed { color: #c1440e; font-weight: 600; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>{body}
</body></html>
"""


def page(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML."""
    return _PAGE.format(title=html.escape(title), style=STYLE, body=body)


def row(heads: Sequence[str], cells: Sequence[str]) -> str:
    """A table row: headers, then cells."""
    headers = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    return f"<tr>{headers}{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"


def problems(texts: Sequence[str]) -> str:
    """A paragraph for each, that catches the eye."""
    return "".join(f'<p class="problem">{html.escape(text)}</p>' for text in texts)


def tidy(figure: Any) -> Any:
    """``figure`` without the frame's upper and right side, nothing overlapping."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def image(figure: Any, alt: str = "plot") -> str:
    """A plot as an element; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return inline(buffer.getvalue(), "png", alt)


def inline(data: bytes, kind: str, alt: str) -> str:
    """A picture's bytes as an element."""
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
