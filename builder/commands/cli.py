"""``builder``: parse, build one config, call one function, print."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.commands.chosen import OF_EACH, build_config, chosen, each_model
from builder.commands.exporting import export, sign
from builder.commands.growing import COMMANDS
from builder.commands.options import HELP, Commands, head_options, setting_options
from builder.commands.scoring import compare, score, search
from builder.commands.training import train_head
from builder.reading.early import check_early
from builder.settings.config import BuildConfig, ReadConfig
from builder.support.errors import ConfigError
from builder.support.naming import as_options
from builder.support.places import report_folder
from builder.support.quiet import quiet, terminal
from edge_runtime import __version__
from edge_runtime.escape import printable

if TYPE_CHECKING:
    from builder.starting.init import Start

CONFIG = "polyhead.toml"


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(__version__, prog_name="builder", message="%(prog)s of polyhead %(version)s")
def main() -> None:
    """Merge Keras classifiers that share a backbone into one int8 .tflite file."""


for command in (*COMMANDS, train_head, export, sign, score, compare, search):
    main.add_command(command)


@main.command()
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


@main.command()
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


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@head_options(*OF_EACH)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@setting_options(ReadConfig)
@click.pass_context
def inspect(ctx: click.Context, /, models: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Say what MODELS share, what each costs beside it and, where they differ, the first layer that differs, and why.

    NAME is a model's file name without its suffix, or its folder's where several files are called alike. Exit code 3
    where they do not all share one backbone.
    """
    sources = each_model(models, {key: options.pop(key) for key in OF_EACH})
    settings = chosen(ReadConfig, **options)
    with quiet(), as_options():
        from builder.merging import inspection

        groups = inspection.inspect(
            sources,
            tolerance=settings.tolerance,
            allow_code=settings.allow_code,
            limits=settings.limits,
            inference_mode=settings.inference_mode,
        )
        document = inspection.to_json(groups)
        if not as_json:
            inspection.print_tree(groups)
    if as_json:
        click.echo(json.dumps(document))
    ctx.exit(0 if document["shared"] else 3)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Pictures DIR/<head>/<class>/*, DIR/none/*.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of the build: float originals beside int8.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder of the page and the JSON; else NAME.report beside FILE."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def evaluate(file: Path, data: Path, config: Path | None, report: Path | None, as_json: bool) -> None:
    """Measure how good FILE is on labelled pictures: each head, the joint list, and what there would be without it."""
    build_config = None if config is None else BuildConfig.from_toml(config)
    with quiet():
        from builder.judging import evaluate as evaluation

        result = evaluation.evaluate(file, data, build_config)
        folder = report or report_folder(file)
        evaluation.write_evaluation(result, folder)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        evaluation.print_evaluation(result, folder / "evaluation.html")
