"""The page of the report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from builder.rounding import LayerNoise
from builder.verify import HeadQuality
from edge_runtime.metadata import BACKBONE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_BLUE, _RED, _GREY = "#2a6f97", "#c1440e", "#8d99a6"
_MANY = 24  # more heads than this are shown as a distribution, not as a row each
_THUMBNAIL = 132


@dataclass(frozen=True)
class Worst:
    """A held-out picture that changed most: ``pixels`` uint8 (height, width, 3), and both answers in words."""

    head_name: str
    picture: str
    pixels: np.ndarray
    float_answer: str
    int8_answer: str
    drift: float
    agrees: bool


@dataclass(frozen=True)
class Page:
    title: str
    facts: Sequence[tuple[str, str]]
    problems: Sequence[str]
    bytes_by_part: Mapping[str, int]
    heads: Sequence[HeadQuality]
    min_agreement: float
    worst: Sequence[Worst]
    noise: Sequence[LayerNoise]
    seconds: Mapping[str, float]


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 2rem auto; max-width: 66rem;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .5rem; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .15rem 1.2rem .15rem 0; text-align: left; vertical-align: top; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }} th {{ font-weight: 600; color: #57636f; }}
td {{ overflow-wrap: anywhere; }} img {{ max-width: 100%; height: auto; }}
.problem {{ background: #fdf0ea; border-left: 4px solid #c1440e; padding: .4rem .8rem; margin: .4rem 0; }}
.cards {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
.card {{ width: {thumbnail}px; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }}
.card img {{ display: block; border-radius: 4px; margin-bottom: .3rem; }}
.changed {{ color: #c1440e; font-weight: 600; }}
</style></head><body>
<h1>{title}</h1>{problems}
<table>{facts}</table>
<h2>Agreement with the float originals, and drift of the top probability</h2>{quality}
<table><tr><th>head</th><th class="n">pictures</th><th class="n">agreement</th><th class="n">95 % interval</th>
<th class="n">drift mean</th><th class="n">drift max</th></tr>{heads}</table>
<h2>Bytes by part</h2>{bytes}
<h2>Pictures that changed most</h2><div class="cards">{worst}</div>
{noise}
<h2>Time by stage</h2><table>{seconds}</table>
</body></html>
"""


def render(page: Page) -> str:
    """The page as HTML text, pictures inlined."""
    return _TEMPLATE.format(
        title=html.escape(page.title),
        thumbnail=_THUMBNAIL,
        problems="".join(f'<p class="problem">{html.escape(text)}</p>' for text in page.problems),
        facts="".join(_row([key], [value]) for key, value in page.facts),
        quality=_image(_quality_plot(page)),
        heads="".join(_head_row(q) for q in page.heads),
        bytes=_image(_bytes_plot(page.bytes_by_part)),
        noise=_noise(page.noise),
        worst="".join(_card(w) for w in page.worst),
        seconds="".join(_row([stage], [f"{s:.1f} s"]) for stage, s in page.seconds.items()),
    )


def _row(heads: Sequence[str], cells: Sequence[str]) -> str:
    headers = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    return f"<tr>{headers}{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"


def _head_row(q: HeadQuality) -> str:
    numbers = [
        str(q.pictures),
        f"{q.agreement:.3f}",
        f"{q.interval[0]:.3f} to {q.interval[1]:.3f}",
        f"{q.drift:.4f}",
        f"{q.max_drift:.4f}",
    ]
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    return f"<tr><td>{html.escape(q.head_name)}</td>{cells}</tr>"


def _card(worst: Worst) -> str:
    picture = Image.fromarray(worst.pixels)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    changed = "" if worst.agrees else ' class="changed"'
    return (
        f'<div class="card">{_inline(buffer.getvalue(), "jpeg", worst.picture)}{html.escape(worst.head_name)}: '
        f"{html.escape(worst.picture)}<br>float {html.escape(worst.float_answer)}<br>"
        f"<span{changed}>int8 {html.escape(worst.int8_answer)}</span></div>"
    )


def _quality_plot(page: Page) -> Any:
    many = len(page.heads) > _MANY
    rows = range(len(page.heads))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4 if many else 1.3 + 0.42 * len(page.heads)))
    if many:
        left.hist([q.agreement for q in page.heads], bins=30, color=_BLUE)
        right.hist([q.drift for q in page.heads], bins=30, color=_BLUE)
        left.set_ylabel("heads")
    else:
        for i, q in zip(rows, page.heads, strict=True):
            left.plot(q.interval, (i, i), color=_GREY, linewidth=5, solid_capstyle="round", alpha=0.5)
            left.plot(q.agreement, i, "o", color=_BLUE if q.passes(page.min_agreement) else _RED)
            jitter = np.random.default_rng(i).uniform(-0.22, 0.22, len(q.drifts))
            right.plot(q.drifts, i + jitter, ".", color=_BLUE, alpha=0.45, markersize=5, markeredgewidth=0)
            right.plot((q.drift, q.drift), (i - 0.32, i + 0.32), color=_RED, linewidth=2)
        for axes in (left, right):
            axes.set_yticks(list(rows), [q.head_name for q in page.heads])
            axes.set_ylim(len(page.heads) - 0.5, -0.5)
    left.axvline(page.min_agreement, color=_RED, linestyle="--", linewidth=1)
    left.set_xlabel("top-1 agreement, with 95 % interval; dashed: the gate")
    right.set_xlabel("drift of the top probability, a dot for each picture; red: mean")
    return _tidy(figure)


def _bytes_plot(parts: Mapping[str, int]) -> Any:
    shown = dict(parts)
    if len(shown) > _MANY:
        heads = [name for name in shown if name != BACKBONE and " " not in name]
        rest = {name: size for name, size in shown.items() if " " in name}
        shown = {BACKBONE: shown[BACKBONE], f"{len(heads)} heads": sum(shown[name] for name in heads), **rest}
    figure, axes = plt.subplots(figsize=(11, 0.8 + 0.34 * len(shown)))
    bars = axes.barh(list(shown), list(shown.values()), color=_BLUE)
    axes.bar_label(bars, [f" {n:,}" for n in shown.values()], color="#1d2733")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(shown.values()) * 4)
    axes.set_xlabel("bytes (logarithmic)")
    return _tidy(figure)


def _noise(layers: Sequence[LayerNoise]) -> str:
    """Signal to noise behind every operator of the backbone; nothing where rounding was not learnt."""
    if not layers:
        return ""
    figure, axes = plt.subplots(figsize=(11, 3.2))
    axes.plot([layer.snr_db for layer in layers], color=_GREY, linewidth=1)
    kinds = dict.fromkeys(layer.kind for layer in layers)
    for kind, marker in zip(kinds, itertools.cycle("os^Dv*Pd")):
        at = [(i, layer.snr_db) for i, layer in enumerate(layers) if layer.kind == kind]
        axes.plot(*zip(*at, strict=True), marker, label=kind.lower(), markersize=5)
    axes.set_xlabel("operator of the backbone, from the input on")
    axes.set_ylabel("signal to noise (dB)")
    axes.legend(frameon=False, ncols=4, fontsize=9)
    return "<h2>int8 against float behind every operator, on calibration pictures</h2>" + _image(_tidy(figure))


def _tidy(figure: Any) -> Any:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return _inline(buffer.getvalue(), "png", "plot")


def _inline(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
