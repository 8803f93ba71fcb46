"""The HTML page of the report, a single file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import pyplot as plt

from builder.judging.verify import HeadQuality
from builder.quantizing.noise import LayerNoise
from builder.reporting.html import THUMBNAIL, inline
from builder.reporting.html import render as render_template
from builder.reporting.plots import BLUE, GREY, RED, plot, tidy
from builder.reporting.verdicts import marked_agreement
from builder.reporting.words import meanings
from builder.support.progress import WORDS
from edge_runtime.metadata import BACKBONE
from edge_runtime.preprocess import picture_of

SHOWN = 300  # characters of a text
_MANY = 24  # more heads than this are shown as a distribution, not as one row each


@dataclass(frozen=True)
class Worst:
    """A held-out sample whose answer changed most: pixels uint8 (height, width, 3) or a text, and both answers."""

    head_name: str
    picture: str
    sample: np.ndarray | bytes
    float_answer: str
    file_answer: str
    drift: float
    agrees: bool


@dataclass(frozen=True)
class Page:
    """What the page shows.

    ``made``: what the build made, in a sentence. ``noun``: pictures or texts. ``failures``: a sentence for each head that
    failed. ``precisions``: rows with the columns ``PRECISION_COLUMNS``. ``costs``: bytes and share of the work of each
    head. ``captions``: explanations of the marks in the table of heads.
    """

    made: str
    title: str
    facts: Sequence[tuple[str, str]]
    noun: str
    failures: Sequence[str]
    warnings: Sequence[str]
    bytes_by_part: Mapping[str, int]
    heads: Sequence[HeadQuality]
    costs: Mapping[str, tuple[str, str]]
    captions: Sequence[str]
    min_agreement: float
    worst: Sequence[Worst]
    noise: Sequence[LayerNoise]
    precisions: Sequence[tuple[str, ...]]
    seconds: Mapping[str, float]


_DEAREST = 12  # rows in the table of operators
NOISE_COLUMNS = ("operator", "kind", "alone (dB)", "its weights (dB)", "its activations (dB)")
HEADS_COLUMN = "share of the heads' noise (%)"
PRECISION_COLUMNS = (
    "precision", "result", "agreement", "worst head", "features (dB)", "bytes", "backbone (ms)", "relative to float",
    "runs from TensorFlow Lite",
)  # fmt: skip
_WORDS = (
    "backbone", "head", "features", "agreement", "95 % interval", "drift", "dB", "digest", "calibration", "verification",
    "joint list", "AUROC",
)  # fmt: skip


def render(page: Page) -> str:
    """The page as HTML text, pictures inlined."""
    return render_template(
        "build.html",
        title=page.title,
        page=page,
        words=meanings(*_WORDS, noun=page.noun.removesuffix("s")),
        quality_plot=plot(_quality_plot(page), "agreement and drift of each head"),
        heads=[_head_row(q, page) for q in page.heads],
        precision_columns=PRECISION_COLUMNS,
        bytes_plot=plot(_bytes_plot(page.bytes_by_part), "bytes of each part of the file"),
        cards=[{"worst": worst, "picture": _sample(worst)} for worst in page.worst],
        seconds=[(WORDS.get(stage, stage), f"{seconds:.1f}") for stage, seconds in page.seconds.items()],
        **_noise(page.noise),
    )


def _head_row(q: HeadQuality, page: Page) -> tuple[str, ...]:
    interval, agreement = f"{q.interval[0]:.3f} to {q.interval[1]:.3f}", marked_agreement(q, page.min_agreement)
    drifts = (f"{q.drift:.4f}", f"{q.max_drift:.4f}")
    return q.head_name, *page.costs[q.head_name], str(q.pictures), agreement, interval, *drifts


def _sample(worst: Worst) -> Markup:
    if isinstance(worst.sample, bytes):
        text = worst.sample.decode("utf-8", "replace")
        return Markup("<q>{}</q><br>").format(text[:SHOWN] + (" ..." if text[SHOWN:] else ""))
    picture = picture_of(worst.sample)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return inline(buffer.getvalue(), "jpeg", worst.picture)


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
    left.set_xlabel("top-1 agreement, with 95 % interval; dashed: min_agreement")
    right.set_xlabel(f"drift of the top probability, one dot for each {page.noun.removesuffix('s')}; red: mean")
    return tidy(figure)


def _bytes_plot(parts: Mapping[str, int]) -> Any:
    shown = dict(parts)
    if len(shown) > _MANY:
        heads = [name for name in shown if name != BACKBONE and " " not in name]
        rest = {name: size for name, size in shown.items() if " " in name}
        shown = {BACKBONE: shown[BACKBONE], f"{len(heads)} heads": sum(shown[name] for name in heads), **rest}
    figure, axes = plt.subplots(figsize=(11, 0.8 + 0.34 * len(shown)))
    bars = axes.barh(list(shown), list(shown.values()), color=BLUE)
    axes.bar_label(bars, [f" {n:,}" for n in shown.values()])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(shown.values()) * 4)
    axes.set_xlabel("bytes (logarithmic)")
    return tidy(figure)


def _noise(layers: Sequence[LayerNoise]) -> dict[str, Any]:
    """The plot and the table of the noise of operators; no plot where it was not measured."""
    if not layers:
        return {"noise_plot": None}
    shares = _shares(layers)
    order = np.argsort([layer.alone_db for layer in layers] if shares is None else [-share for share in shares])
    rows = [_noise_row(layers[i], None if shares is None else shares[i]) for i in order[:_DEAREST]]
    figure = plot(_noise_plot(layers, shares), "signal-to-noise ratio after each operator")
    columns = NOISE_COLUMNS if shares is None else (*NOISE_COLUMNS, HEADS_COLUMN)
    return {"noise_plot": figure, "noise_columns": columns, "noise_rows": rows, "at_heads": shares is not None}


def _shares(layers: Sequence[LayerNoise]) -> list[float] | None:
    """Shares of the heads' noise in percent; None where it was not measured: mixed precision was not tried."""
    measured = [layer.head_noise for layer in layers if layer.head_noise is not None]
    total = sum(measured) or 1.0
    return [100 * (layer.head_noise or 0.0) / total for layer in layers] if measured else None


def _noise_row(layer: LayerNoise, share: float | None) -> tuple[str, ...]:
    found = (layer.layer, layer.kind, _db(layer.alone_db), _db(layer.weights_db), _db(layer.activations_db))
    return found if share is None else (*found, f"{share:.1f}")


def _noise_plot(layers: Sequence[LayerNoise], shares: Sequence[float] | None) -> Any:
    ratios = (1,) if shares is None else (3, 1)
    figure, grid = plt.subplots(len(ratios), 1, figsize=(11, 6), height_ratios=ratios, sharex=True, squeeze=False)
    axes, below = grid[0, 0], grid[-1, 0]
    axes.plot([layer.snr_db for layer in layers], color=RED, linewidth=1.2, label="with all before it")
    for name, marker, values in (
        ("alone", ".", [layer.alone_db for layer in layers]),
        ("its weights alone", "^", [np.nan if layer.weights_db is None else layer.weights_db for layer in layers]),
        ("its activations alone", "v", [layer.activations_db for layer in layers]),
    ):
        shown = np.where(np.isfinite(values), values, np.nan)  # infinite: nothing is lost
        axes.plot(shown, marker, color=GREY if marker != "." else BLUE, label=name, markersize=5)
    axes.set_ylabel("signal-to-noise ratio (dB)")
    axes.legend(frameon=False, ncols=4, fontsize=9)
    if shares is not None:
        below.bar(range(len(shares)), shares, color=BLUE)
        below.set_ylabel("share of the\nheads' noise (%)")
    below.set_xlabel("operator of the backbone, in order")
    return tidy(figure)


def _db(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.1f}"
