"""``builder build`` and ``init``; see ``pipeline`` and ``starting``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.commands.chosen import build_config
from builder.commands.options import head_options, setting_options
from builder.reading.early import check_early
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError
from builder.support.naming import as_options
from builder.support.quiet import quiet, terminal
from edge_runtime.escape import printable

if TYPE_CHECKING:
    from builder.starting.init import Start

CONFIG = "polyhead.toml"


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--head", "heads", multiple=True, metavar="NAME=MODEL", help="A classifier; repeat for each.")
@head_options("labels", "preprocessing", "activation", "title")
@click.option(
    "--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer instead of learning it."
)
@setting_options(BuildConfig)
def build(config: Path | None, heads: tuple[str, ...], **options: Any) -> None:
    """Build from the TOML file CONFIG, or from options alone; options win over the file.

    CONFIG may be a folder: its polyhead.toml, which is written first where there is none; see `builder init`.
    """
    if config is not None and config.is_dir():
        config = _config_in(config)
    with nullcontext() if config is not None else as_options():
        run_build(build_config(config, heads, options))


def _config_in(folder: Path) -> Path:
    """Raises ``ConfigError`` where a line of it is left for the user to write."""
    config = folder / CONFIG
    if not config.exists():
        started = _started(folder, None)
        if started.missing:
            raise ConfigError("\n".join(f"{config}: missing: {line}" for line in started.missing))
    return config


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--output", type=click.Path(path_type=Path), help=f"The TOML file to write; else {CONFIG} in FOLDER.")
def init(folder: Path, output: Path | None) -> None:
    """Look through FOLDER for classifiers and write a TOML file to build those from that share a base."""
    started = _started(folder, output)
    click.echo(f"next: builder build {printable(str(started.config))}")


def _started(folder: Path, output: Path | None) -> Start:
    with quiet():
        from builder.starting.init import init as run

        started = run(folder, output)
    for head in started.heads:
        labels = printable(", ".join(head.classifier.labels[:6]))
        click.echo(f"{head.name}: {printable(head.title)} ({head.classifier.kind}): {labels or 'labels not known'}")
    for name, reason in started.left_out:
        click.echo(printable(f"left out: {name}: {reason}"), err=True)
    for line in started.missing:
        click.echo(printable(f"missing: {line}"), err=True)
    pictures = f", {started.pictures} pictures out of project.tm" if started.pictures else ""
    click.echo(printable(f"{started.config}: {len(started.heads)} heads, {len(started.left_out)} left out{pictures}"))
    return started


def run_build(settings: BuildConfig) -> None:
    """Build, with progress on a terminal, and the summary at the end."""
    check_early(settings)  # before seconds of imports
    with quiet():
        from builder.pipeline import build  # imports TensorFlow: `builder --help` must not wait for it
        from builder.reporting.report import print_summary

    with terminal() as shown, quiet():
        result = build(settings, progress=shown)
    print_summary(result.report)
