"""``builder inspect`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from builder.commands.chosen import OF_EACH, chosen, each_model
from builder.commands.finished import is_finished, print_finished
from builder.commands.options import head_options, setting_options
from builder.settings.config import BuildConfig, ReadConfig
from builder.settings.heads import HeadConfig
from builder.support.naming import as_options
from builder.support.places import report_folder
from builder.support.quiet import quiet
from edge_runtime.escape import printable


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@head_options(*OF_EACH)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@setting_options(ReadConfig)
@click.pass_context
def inspect(ctx: click.Context, /, models: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Say what MODELS share, what each costs beside it and, where they differ, the first layer that differs, and why.

    The first may be a finished file: alone it is shown, and of models behind it is said whether their base is its own.
    NAME is a model's file name without its suffix, or its folder's where several files are called alike. Exit code 3
    where they do not all share one backbone.
    """
    said = {key: options.pop(key) for key in OF_EACH}
    settings = chosen(ReadConfig, **options)
    if is_finished(models[0]):
        ctx.exit(_of_finished(models[0], each_model(models[1:], said), settings, as_json))
    sources = each_model(models, said)
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


def _of_finished(file: Path, models: Sequence[HeadConfig], settings: ReadConfig, as_json: bool) -> int:
    """The exit code."""
    if not models:
        print_finished(file, as_json)
        return 0
    with quiet(), as_options():
        from builder.growing.fitting import fits

        found = fits(file, models, settings)
    if as_json:
        document = {"shared": all(not fit.reason for fit in found), "file": str(file)}
        click.echo(printable(json.dumps({**document, "models": [fit.to_json() for fit in found]}, ensure_ascii=False)))
    for fit in found if not as_json else ():
        own = f"{fit.pixels}; {fit.parameters:,} parameters of its own"
        click.echo(printable(f"{fit.path}: " + (fit.reason or f"its base is that of {file}: {own}")))
    return 3 if any(fit.reason for fit in found) else 0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Pictures DIR/<head>/<class>/*, DIR/none/*.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of the build: float originals beside int8.")
@click.option("--skip-broken", is_flag=True, help="Leave out and name what cannot be read; else it is an error.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder of the page and the JSON; else NAME.report beside FILE."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def evaluate(file: Path, data: Path, config: Path | None, skip_broken: bool, report: Path | None, as_json: bool) -> None:
    """Measure how good FILE is on labelled pictures: each head, the joint list, and what there would be without it."""
    build_config = None if config is None else BuildConfig.from_toml(config)
    with quiet():
        from builder.judging import evaluate as evaluation

        result = evaluation.evaluate(file, data, build_config, skip_broken=skip_broken)
        folder = report or report_folder(file)
        evaluation.write_evaluation(result, folder)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        evaluation.print_evaluation(result, folder / "evaluation.html")
