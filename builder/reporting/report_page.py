"""The page of the report: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from builder.judging.verify import HeadQuality
from builder.quantizing.noise import LayerNoise
from builder.reporting.page import BLUE, GREY, RED, THUMBNAIL, image, inline, problems, row, tidy
from builder.reporting.page import page as whole_page
from edge_runtime.metadata import BACKBONE

SHOWN = 300  # characters of a text
_MANY = 24  # more heads than this are shown as a distribution, not as a row each


@dataclass(frozen=True)
class Worst:
    """A held-out sample that changed most, pixels uint8 (height, width, 3) or a text, and both answers in words."""

    head_name: str
    picture: str
    sample: np.ndarray | bytes
    float_answer: str
    file_answer: str
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
    precisions: Sequence[tuple[str, ...]]
    seconds: Mapping[str, float]


_DEAREST = 12  # operators in the table of those that cost the heads most
NOISE_COLUMNS = ("operator", "kind", "of the heads' noise", "alone (dB)", "its weights (dB)", "its activations (dB)")
PRECISION_COLUMNS = (
    "precision", "agreement", "worst head", "features (dB)", "bytes", "backbone here (ms)", "of float's time",
    "runs from TensorFlow Lite",
)  # fmt: skip
_BODY = """{problems}
<table>{facts}</table>
<h2>Agreement with the float originals, and drift of the top probability</h2>{quality}
<table><tr><th>head</th><th class="n">pictures</th><th class="n">agreement</th><th class="n">95 % interval</th>
<th class="n">drift mean</th><th class="n">drift max</th></tr>{heads}</table>
<h2>Precisions tried</h2><table>{precisions}</table>
<h2>Bytes by part</h2>{bytes}
<h2>Pictures that changed most</h2><div class="cards">{worst}</div>
{noise}
<h2>Time by stage</h2><table>{seconds}</table>
"""


def render(page: Page) -> str:
    """The page as HTML text, pictures inlined."""
    body = _BODY.format(
        problems=problems(page.problems),
        facts="".join(row([key], [value]) for key, value in page.facts),
        quality=image(_quality_plot(page)),
        heads="".join(_head_row(q) for q in page.heads),
        bytes=image(_bytes_plot(page.bytes_by_part)),
        noise=_noise(page.noise),
        precisions=row(PRECISION_COLUMNS, []) + "".join(row([one[0]], one[1:]) for one in page.precisions),
        worst="".join(_card(w) for w in page.worst),
        seconds="".join(row([stage], [f"{s:.1f} s"]) for stage, s in page.seconds.items()),
    )
    return whole_page(page.title, body)


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


def _thumbnail(pixels: np.ndarray, name: str) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return inline(buffer.getvalue(), "jpeg", name)


def _text(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    return f"<q>{html.escape(text[:SHOWN] + (' ...' if text[SHOWN:] else ''))}</q><br>"


def _card(worst: Worst) -> str:
    shown = _text(worst.sample) if isinstance(worst.sample, bytes) else _thumbnail(worst.sample, worst.picture)
    changed = "" if worst.agrees else ' class="changed"'
    return (
        f'<div class="card">{shown}{html.escape(worst.head_name)}: '
        f"{html.escape(worst.picture)}<br>float {html.escape(worst.float_answer)}<br>"
        f"<span{changed}>file {html.escape(worst.file_answer)}</span></div>"
    )


def _quality_plot(page: Page) -> Any:
    many = len(page.heads) > _MANY
    rows = range(len(page.heads))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4 if many else 1.3 + 0.42 * len(page.heads)))
    if many:
        left.hist([q.agreement for q in page.heads], bins=30, color=BLUE)
        right.hist([q.drift for q in page.heads], bins=30, color=BLUE)
        left.set_ylabel("heads")
    else:
        for i, q in zip(rows, page.heads, strict=True):
            left.plot(q.interval, (i, i), color=GREY, linewidth=5, solid_capstyle="round", alpha=0.5)
            left.plot(q.agreement, i, "o", color=BLUE if q.passes(page.min_agreement) else RED)
            jitter = np.random.default_rng(i).uniform(-0.22, 0.22, len(q.drifts))
            right.plot(q.drifts, i + jitter, ".", color=BLUE, alpha=0.45, markersize=5, markeredgewidth=0)
            right.plot((q.drift, q.drift), (i - 0.32, i + 0.32), color=RED, linewidth=2)
        for axes in (left, right):
            axes.set_yticks(list(rows), [q.head_name for q in page.heads])
            axes.set_ylim(len(page.heads) - 0.5, -0.5)
    left.axvline(page.min_agreement, color=RED, linestyle="--", linewidth=1)
    left.set_xlabel("top-1 agreement, with 95 % interval; dashed: the gate")
    right.set_xlabel("drift of the top probability, a dot for each picture; red: mean")
    return tidy(figure)


def _bytes_plot(parts: Mapping[str, int]) -> Any:
    shown = dict(parts)
    if len(shown) > _MANY:
        heads = [name for name in shown if name != BACKBONE and " " not in name]
        rest = {name: size for name, size in shown.items() if " " in name}
        shown = {BACKBONE: shown[BACKBONE], f"{len(heads)} heads": sum(shown[name] for name in heads), **rest}
    figure, axes = plt.subplots(figsize=(11, 0.8 + 0.34 * len(shown)))
    bars = axes.barh(list(shown), list(shown.values()), color=BLUE)
    axes.bar_label(bars, [f" {n:,}" for n in shown.values()], color="#1d2733")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(shown.values()) * 4)
    axes.set_xlabel("bytes (logarithmic)")
    return tidy(figure)


def _noise(layers: Sequence[LayerNoise]) -> str:
    """What every operator of the backbone loses, and costs the heads; nothing where it was not measured."""
    if not layers:
        return ""
    total = sum(layer.head_noise or 0.0 for layer in layers) or 1.0
    shares = [100 * (layer.head_noise or 0.0) / total for layer in layers]
    worst = sorted(zip(layers, shares, strict=True), key=lambda pair: -pair[1])[:_DEAREST]
    rows = "".join(
        row(
            [layer.layer],
            [layer.kind, f"{share:.1f} %", _db(layer.alone_db), _db(layer.weights_db), _db(layer.activations_db)],
        )
        for layer, share in worst
    )
    return (
        "<h2>The file against float behind every operator, on calibration samples</h2>"
        + image(_noise_plot(layers, shares))
        + "<h2>What costs the heads most</h2><p>Noise at the heads' scores, each operator alone as the file has it.</p>"
        + f"<table>{row(NOISE_COLUMNS, [])}{rows}</table>"
    )


def _noise_plot(layers: Sequence[LayerNoise], shares: Sequence[float]) -> Any:
    figure, (axes, below) = plt.subplots(2, 1, figsize=(11, 6), height_ratios=(3, 1), sharex=True)
    axes.plot([layer.snr_db for layer in layers], color=RED, linewidth=1.2, label="all before it included")
    for name, marker, values in (
        ("alone", ".", [layer.alone_db for layer in layers]),
        ("its weights alone", "^", [np.nan if layer.weights_db is None else layer.weights_db for layer in layers]),
        ("its activations alone", "v", [layer.activations_db for layer in layers]),
    ):
        shown = np.where(np.isfinite(values), values, np.nan)  # nothing is lost
        axes.plot(shown, marker, color=GREY if marker != "." else BLUE, label=name, markersize=5)
    axes.set_ylabel("signal to noise (dB)")
    axes.legend(frameon=False, ncols=4, fontsize=9)
    below.bar(range(len(shares)), shares, color=BLUE)
    below.set_ylabel("of the heads'\nnoise (%)")
    below.set_xlabel("operator of the backbone, from the input on")
    return tidy(figure)


def _db(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.1f}"
