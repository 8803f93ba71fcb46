"""The summary of a build on a terminal: a table of heads, the precisions that were tried, and what was made."""

from __future__ import annotations

import click
from rich import box
from rich.console import Console
from rich.table import Table

from builder.precisions import BuiltPrecision, SkippedPrecision
from builder.reporting.made import joint_line, made_lines, verdict_on
from builder.reporting.report import Report
from builder.reporting.verdicts import caption, marked_agreement
from builder.reporting.words import decibels, milliseconds
from builder.support.plain import plain
from edge_runtime.escape import printable

_ROWS = 24  # heads in the table


def print_summary(report: Report) -> None:
    """Print the summary on standard output, and warnings on standard error."""
    table = Table(
        title=f"{plain(report.config.output)}  {report.file_bytes:,} bytes", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in ("head", "bytes", report.noun, "agreement", "95 % interval", "drift", "max"):
        table.add_column(column, justify="left" if column == "head" else "right")
    ordered = sorted(zip(report.metadata.heads, report.quality.heads, strict=True), key=lambda pair: pair[1].agreement)
    shown = ordered[:_ROWS] if len(ordered) > _ROWS else zip(report.metadata.heads, report.quality.heads, strict=True)
    bar = report.config.min_agreement
    for head, q in shown:
        interval = f"{q.interval[0]:.3f} to {q.interval[1]:.3f}"
        numbers = (
            f"{head.bytes:,}",
            str(q.pictures),
            marked_agreement(q, bar),
            interval,
            f"{q.drift:.4f}",
            f"{q.max_drift:.4f}",
        )
        table.add_row(head.head_name, *numbers)
    if len(ordered) > _ROWS:
        mean = sum(q.agreement for q in report.quality.heads) / len(ordered)
        table.caption = f"the {_ROWS} heads that agree least; mean agreement of all {len(ordered)}: {mean:.3f}"
    Console(width=None if Console().is_terminal else 120).print(table)
    for line in caption(list(report.quality.heads), bar, report.metadata.input.noun):
        print(line)
    total = sum(report.seconds.values())
    print(
        f"{report.chosen.title}; backbone {report.metadata.backbone_digest[:19]}, "
        f"{report.metadata.built['parameters']:,} parameters, "
        f"{report.linked.backbone_bytes:,} bytes, stored once; features {decibels(report.quality.features_snr_db)}; "
        f"built in {total:.1f} s"
    )
    if len(report.tried) > 1:
        print(f"latency from {report.planned_for}")
        print("\n".join(_precision_line(report, tried) for tried in report.tried))
    if report.joint is not None:
        print(f"joint list: {joint_line(report.joint)}")
    for warning in report.warnings:
        click.secho(printable(f"warning: {warning}"), fg="yellow", err=True)
    print()
    for line in made_lines(report.config, report.tried):
        print(line)


def _precision_line(report: Report, tried: BuiltPrecision | SkippedPrecision) -> str:
    verdict = verdict_on(report.config, report.chosen, tried)
    if isinstance(tried, SkippedPrecision):
        return f"{tried.precision}: {verdict}"
    quality = tried.quality
    return (
        f"{tried.title}: {verdict}; agreement {quality.agreement:.3f}, features {decibels(quality.features_snr_db)}, "
        f"{len(tried.model):,} bytes, backbone {milliseconds(tried.backbone_ms)} on {report.times.name} (float: "
        f"{milliseconds(tried.float_ms)})"
    )
