"""Write the folder of a report: ``report.json`` for programs, and an HTML page for people."""

from __future__ import annotations

import json
import math
from pathlib import Path

from builder.merging.equivalence import Equivalence
from builder.merging.share import HeadShare, percent, share_sentences
from builder.precisions import SkippedPrecision
from builder.reporting.made import joint_line, made, verdict_on
from builder.reporting.report import Report
from builder.reporting.report_page import Page, Worst, render
from builder.reporting.verdicts import caption
from builder.reporting.words import decibels, milliseconds
from builder.support.files import write_text
from edge_runtime.counting import count_of
from edge_runtime.metadata import Metadata


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``index.html`` into ``folder``, each atomically."""
    files = {
        "report.json": json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n",
        "index.html": render(_page(report)),
    }
    for name, text in files.items():
        write_text(folder / name, text)


def _page(report: Report) -> Page:
    worst = []
    for head, q in zip(report.metadata.heads, report.quality.heads, strict=True):
        for c in q.worst:
            answers = [
                f"{head.labels[int(scores.argmax())]} {float(scores.max()):.2f}"
                for scores in (c.float_scores, c.file_scores)
            ]
            source = report.verification.sources[c.picture]
            worst.append(
                Worst(
                    head.head_name,
                    source.name,
                    report.verification.sample(c.picture),
                    answers[0],
                    answers[1],
                    c.drift,
                    c.agrees,
                )
            )
    worst.sort(key=lambda w: (w.agrees, -w.drift))
    return Page(
        made=made(report.config, report.tried),
        title=report.config.output.name,
        facts=_facts(report),
        noun=report.noun,
        failures=report.failures,
        warnings=report.warnings,
        bytes_by_part=report.bytes_by_part,
        heads=report.quality.heads,
        costs={share.name: _cost(report, share) for share in report.shares},
        captions=caption(list(report.quality.heads), report.config.min_agreement, report.metadata.input.noun),
        min_agreement=report.config.min_agreement,
        worst=tuple(worst[:18]),
        noise=report.chosen.noise,
        precisions=_precisions(report),
        seconds=report.seconds,
    )


def _cost(report: Report, share: HeadShare) -> tuple[str, str]:
    """A head's bytes in the file, and its share of the multiply-adds."""
    work = share.work_share
    return f"{report.linked.head_bytes[share.name]:,}", "" if work is None else percent(work)


def _precisions(report: Report) -> list[tuple[str, ...]]:
    """A row for each precision that was tried, as ``report_page.PRECISION_COLUMNS``."""
    rows: list[tuple[str, ...]] = []
    for tried in report.tried:
        verdict = verdict_on(report.config, report.chosen, tried)
        if isinstance(tried, SkippedPrecision):
            rows.append((tried.precision, verdict))
            continue
        worst = min(tried.quality.heads, key=lambda q: q.agreement)
        rows.append(
            (
                tried.title,
                verdict,
                f"{tried.quality.agreement:.3f}",
                f"{worst.agreement:.3f} ({worst.head_name})",
                decibels(tried.quality.features_snr_db).removesuffix(" dB"),
                f"{len(tried.model):,}",
                milliseconds(tried.backbone_ms).removesuffix(" ms"),
                f"{tried.backbone_ms / tried.float_ms:.2f}" if math.isfinite(tried.backbone_ms) else "unknown",
                ".".join(map(str, tried.linked.min_runtime)),
            )
        )
    return rows


def _seam_text(metadata: Metadata) -> str:
    return " and ".join(" x ".join(map(str, tensor.shape)) for tensor in metadata.seam)


def _equivalence_text(found: Equivalence) -> str:
    loose = f"; weights up to {found.apart:.2g} apart treated as equal" if found.apart else ""
    originals = count_of(found.models, "originals")
    return (
        f"largest difference of a probability between the merged float model and its {originals}: "
        f"{found.difference:.1g}{loose}"
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    metadata, noun = report.metadata, report.noun
    return [
        ("verification", "a head failed" if report.failures else "passed"),
        ("precision", report.chosen.title),
        ("file", f"{report.file_bytes:,} bytes, {count_of(len(metadata.heads), 'heads')}"),
        (
            "backbone",
            f"{metadata.built['parameters']:,} parameters, {report.linked.backbone_bytes:,} bytes, stored once",
        ),
        ("each head", "; ".join(share_sentences(report.shares))),
        ("digest", metadata.backbone_digest),
        ("features", f"{_seam_text(metadata)}, signal to noise {decibels(report.quality.features_snr_db)}"),
        ("input", str(metadata.input)),
        ("equivalence", _equivalence_text(report.equivalence)),
        ("runs on", f"TensorFlow Lite {'.'.join(map(str, metadata.min_runtime))} and newer"),
        (
            "calibration",
            "no pictures were given"
            if report.quality.noise
            else f"{count_of(len(report.calibration.tensors), noun)}, {len(report.calibration.broken)} broken",
        ),
        ("held out", f"{count_of(len(report.verification.tensors), noun)}, not used for calibration"),
        ("latency from", report.planned_for),
        ("joint list", joint_line(report.joint, report.chosen.joint_reason)),
    ]
