"""The report of a training: a page with learning curves and confusion, and ``report.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from builder.judging.evaluate_page import Matrix, confusions
from builder.reporting.html import render
from builder.reporting.plots import BLUE, GREY, plot, tidy
from builder.reporting.words import meanings
from builder.support.files import write_text
from builder.training.trained import Trained
from edge_runtime.counting import count_of

_WORDS = (
    "backbone", "validation", "right", "95 % interval", "calibration error", "by chance", "loss", "confusion",
)  # fmt: skip


def write_report(trained: Trained, folder: Path) -> None:
    """Write ``report.json`` and ``index.html`` into ``folder``, each atomically."""
    files = {
        "report.json": json.dumps(to_json(trained), indent=2, ensure_ascii=False) + "\n",
        "index.html": _page(trained),
    }
    for name, text in files.items():
        write_text(folder / name, text)


def to_json(trained: Trained) -> dict[str, Any]:
    config = trained.config
    return {
        "output": str(config.output),
        "backbone": config.backbone,
        "features": trained.features,
        "labels": list(trained.labels),
        "samples": trained.samples,
        "epochs": trained.fit.epochs,
        "validation": trained.validation.to_json(),
        "held_out": None if trained.held_out is None else trained.held_out.to_json(),
        "curves": {name: [round(float(v), 5) for v in values] for name, values in trained.fit.curves.items()},
        "seed": config.seed,
        "seconds": {stage: round(s, 2) for stage, s in trained.seconds.items()},
    }


def _page(trained: Trained) -> str:
    config, seconds = trained.config, sum(trained.seconds.values())
    facts = (
        ("classifier", str(config.output)),
        ("base", f"{config.backbone}, frozen: {trained.features}"),
        ("samples", f"{trained.samples}, {trained.validation.accuracy.pictures} of them for validation"),
        ("trained", f"{count_of(trained.fit.epochs, 'epochs')} on all of them, the number that was best on validation"),
        ("took", f"{seconds:.1f} s"),
    )
    judged = {"validation": trained.validation, "held out": trained.held_out}
    rows = [(name, "not trained on", found.accuracy) for name, found in judged.items() if found is not None]
    matrices = [Matrix(name, trained.labels, found.confusion) for name, found in judged.items() if found is not None]
    return render(
        "training.html",
        title=f"{config.output.name}: {len(trained.labels)} labels",
        facts=facts,
        words=meanings(*_WORDS),
        accuracy=rows,
        learning_plot=plot(_curves(trained), "loss and accuracy by epoch"),
        matrices=confusions(matrices),
    )


def _curves(trained: Trained) -> Any:
    figure, plots = plt.subplots(1, 2, figsize=(11, 3.2))
    curves = trained.fit.curves
    for axes, name in zip(plots, ("loss", "accuracy"), strict=True):
        steps = range(1, len(curves[name]) + 1)
        axes.plot(steps, curves[name], color=GREY, label="training")
        axes.plot(steps, curves[f"val_{name}"], color=BLUE, label="validation")
        axes.axvline(trained.fit.epochs, color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.legend(frameon=False)
    return tidy(figure)
