"""The page of the report: one HTML file that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import pyplot as plt
from PIL import Image

from builder.judging.verify import HeadQuality
from builder.quantizing.noise import LayerNoise
from builder.reporting.page import BLUE, GREY, RED, THUMBNAIL, inline, plot, tidy
from builder.reporting.page import render as render_template
from builder.reporting.words import meanings
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
    """``noun``: pictures or texts. ``failures``: a sentence for each head that failed. ``precisions``: in the columns of
    ``PRECISION_COLUMNS``.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    noun: str
    failures: Sequence[str]
    warnings: Sequence[str]
    bytes_by_part: Mapping[str, int]
    heads: Sequence[HeadQuality]
    min_agreement: float
    worst: Sequence[Worst]
    noise: Sequence[LayerNoise]
    precisions: Sequence[tuple[str, ...]]
    seconds: Mapping[str, float]


_DEAREST = 12  # operators in the table of those that cost the heads most
NOISE_COLUMNS = ("operator", "kind", "of the heads' noise (%)", "alone (dB)", "its weights (dB)", "its activations (dB)")
PRECISION_COLUMNS = (
    "precision", "agreement", "worst head", "features (dB)", "bytes", "backbone here (ms)", "of float's time",
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
        heads=[_head_row(q) for q in page.heads],
        precision_columns=PRECISION_COLUMNS,
        bytes_plot=plot(_bytes_plot(page.bytes_by_part), "bytes of each part of the file"),
        cards=[{"worst": worst, "picture": _sample(worst)} for worst in page.worst],
        seconds=[(stage, f"{seconds:.1f}") for stage, seconds in page.seconds.items()],
        **_noise(page.noise),
    )


def _head_row(q: HeadQuality) -> tuple[str, ...]:
    interval = f"{q.interval[0]:.3f} to {q.interval[1]:.3f}"
    return q.head_name, str(q.pictures), f"{q.agreement:.3f}", interval, f"{q.drift:.4f}", f"{q.max_drift:.4f}"


def _sample(worst: Worst) -> Markup:
    if isinstance(worst.sample, bytes):
        text = worst.sample.decode("utf-8", "replace")
        return Markup("<q>{}</q><br>").format(text[:SHOWN] + (" ..." if text[SHOWN:] else ""))
    picture = Image.fromarray(worst.sample)
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
    axes.bar_label(bars, [f" {n:,}" for n in shown.values()])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(shown.values()) * 4)
    axes.set_xlabel("bytes (logarithmic)")
    return tidy(figure)


def _noise(layers: Sequence[LayerNoise]) -> dict[str, Any]:
    """What every operator of the backbone loses, and costs the heads; nothing where it was not measured."""
    if not layers:
        return {"noise_plot": None}
    total = sum(layer.head_noise or 0.0 for layer in layers) or 1.0
    shares = [100 * (layer.head_noise or 0.0) / total for layer in layers]
    worst = sorted(zip(layers, shares, strict=True), key=lambda pair: -pair[1])[:_DEAREST]
    rows = [
        (layer.layer, layer.kind, f"{share:.1f}", _db(layer.alone_db), _db(layer.weights_db), _db(layer.activations_db))
        for layer, share in worst
    ]
    figure = plot(_noise_plot(layers, shares), "signal to noise behind every operator")
    return {"noise_plot": figure, "noise_columns": NOISE_COLUMNS, "noise_rows": rows}


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
