"""``builder build`` and ``init``; see ``pipeline`` and ``starting``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.commands.chosen import build_config
from builder.commands.options import head_options, setting_options
from builder.reading.early import check_early
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError, QualityError
from builder.support.naming import as_options
from builder.support.quiet import own_temporary_files, quiet, terminal
from edge_runtime.counting import count_of
from edge_runtime.escape import printable

if TYPE_CHECKING:
    from builder.starting.init import Start

CONFIG = "polyhead.toml"


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--head", "heads", multiple=True, metavar="NAME=MODEL", help="A classifier; repeat for each.")
@head_options("labels", "preprocessing", "activation", "title", "output_name")
@click.option(
    "--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer instead of learning it."
)
@setting_options(BuildConfig)
@click.option("--verbose", is_flag=True, help="Show the time of each stage and the messages of the libraries.")
@click.option("--quiet", "say_nothing", is_flag=True, help="Show only errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, even if a head failed.")
def build(
    config: Path | None, heads: tuple[str, ...], verbose: bool, say_nothing: bool, as_json: bool, **options: Any
) -> None:
    """Build from the TOML file CONFIG, or from options alone. An option overrides the file.

    CONFIG may be a folder: then its polyhead.toml is used, and written first if there is none; see `builder init`.
    """
    if config is not None and config.is_dir():
        config = _config_in(config)
    with nullcontext() if config is not None else as_options():
        settings = build_config(config, heads, options)
        if sum((verbose, say_nothing, as_json)) > 1:
            raise ConfigError("expected at most one of --verbose, --quiet and --json")
        run_build(settings, verbose=verbose, say_nothing=say_nothing, as_json=as_json)


def _config_in(folder: Path) -> Path:
    """The TOML file of ``folder``, written first if there is none.

    Raises:
        ConfigError: The user has to complete the file that was written.
    """
    config = folder / CONFIG
    if not config.exists():
        started = _started(folder, None)
        if started.missing:
            raise ConfigError("\n".join(f"{config}: missing: {line}" for line in started.missing))
    return config


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--output", type=click.Path(path_type=Path), help=f"The TOML file to write. Default: {CONFIG} in FOLDER.")
def init(folder: Path, output: Path | None) -> None:
    """Write a TOML file that builds the classifiers in FOLDER.

    It lists those that share a base; the output names the others, each with the reason.
    """
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
    pictures = f", {count_of(started.pictures, 'pictures')} from project.tm" if started.pictures else ""
    click.echo(
        printable(
            f"{started.config}: {count_of(len(started.heads), 'heads')}, {len(started.left_out)} left out{pictures}"
        )
    )
    return started


def run_build(settings: BuildConfig, *, verbose: bool = False, say_nothing: bool = False, as_json: bool = False) -> None:
    """Build, show the progress, and print what was made."""
    check_early(settings)  # a mistake is reported before imports that take seconds
    hush = nullcontext if verbose else quiet
    with hush():
        from builder.pipeline import build  # imports TensorFlow, which `builder --help` must not wait for
        from builder.reporting.summary import print_summary

    try:
        with (
            terminal(or_pipe=not as_json) if not say_nothing else nullcontext() as shown,
            hush(),
            own_temporary_files(),
        ):
            result = build(settings, progress=shown, verbose=verbose)
    except QualityError as error:
        if as_json and error.document is not None:
            click.echo(printable(json.dumps(error.document, ensure_ascii=False)))
        raise
    if as_json:
        click.echo(printable(json.dumps(result.report.to_json(), ensure_ascii=False)))
    elif not say_nothing:
        print_summary(result.report)
