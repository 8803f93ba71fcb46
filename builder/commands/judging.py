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
from builder.commands.progress import Progress
from builder.settings.config import BuildConfig, ReadConfig
from builder.settings.heads import HeadConfig
from builder.support.errors import ConfigError
from builder.support.naming import as_options
from builder.support.places import report_folder
from builder.support.quiet import quiet, terminal
from edge_runtime.escape import printable
from edge_runtime.options import head_packs_option


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@head_options(*OF_EACH)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@setting_options(ReadConfig)
@click.pass_context
def inspect(ctx: click.Context, /, models: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Show what MODELS share, and where they first differ.

    For each model, the output has the size of what it does not share and, with the reason, the first layer that differs.

    If the first of MODELS is a finished file, it is shown; with further models, each is checked for the same base. NAME
    in an option is the file name of a model without its suffix, or the name of its folder where several files have the
    same name. The exit code is 3 where the models do not all share one backbone.
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
            text_length=settings.text_maxlen,
        )
        document = inspection.to_json(groups)
        if not as_json:
            inspection.print_tree(groups)
    if as_json:
        click.echo(json.dumps(document))
    ctx.exit(0 if document["shared"] else 3)


def _of_finished(file: Path, models: Sequence[HeadConfig], settings: ReadConfig, as_json: bool) -> int:
    """Print whether each model has the base of ``file``. Returns the exit code."""
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
@click.option("--data", help="DIR with <head>/<label>/* and none/*; or a glob, a .parquet or .csv file, s3:// or gs://.")
@click.option("--features", type=click.Path(path_type=Path), help="Stored features instead of --data.")
@click.option("--column", help="Column of a table: texts, or pictures as bytes or paths.")
@click.option(
    "--labels", metavar="COLUMN", default="label", show_default=True, help="Column of a table: HEAD/LABEL, or none."
)
@click.option("--head", metavar="NAME", help="The head of the labels, where the column has labels without a head.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file of the build: also evaluate the float originals."
)
@click.option("--skip-broken", is_flag=True, help="Skip and count samples that cannot be read, instead of stopping.")
@click.option("--jobs", type=click.IntRange(1), help="Processes. [default: 1; for many samples, one for each processor]")
@click.option("--address", help="Address of the Ray cluster on which the processes run.")
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="Write a line for each sample.")
@head_packs_option
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder of the page and the JSON. Default: NAME.report beside FILE."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def evaluate(file: Path, config: Path | None, report: Path | None, as_json: bool, **chosen: Any) -> None:
    """Measure the accuracy of FILE on labelled samples.

    The output has each head, the joint list, and baselines for the list.

    Memory does not grow with the number of samples. Texts are lines of DIR/<head>/<label>/*.txt, or of
    DIR/<head>/<label>.txt. Stored features come from `edge-runtime features` or `builder score --features`; a sample has
    a label if its source was in <head>/<label>/.
    """
    build_config = None if config is None else BuildConfig.from_toml(config)
    with terminal(or_pipe=True) as stream, quiet():
        shown = Progress(stream)
        from builder.judging.evaluate import evaluate as judge
        from builder.judging.evaluation import print_evaluation, write_evaluation

        result = judge(file, _archive(chosen), build_config, _running(chosen, shown))
        folder = report or report_folder(file)
        write_evaluation(result, folder)
        shown.end()
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        print_evaluation(result, folder / "evaluation.html")


def _archive(chosen: dict[str, Any]) -> Any:
    from builder.judging.labelled import Archive
    from builder.scoring.features import open_features

    data, features = chosen["data"], chosen["features"]
    if (data is None) == (features is None):
        raise ConfigError("evaluate: expected one of --data and --features")
    stored = None if features is None else open_features(features)
    return Archive(data, chosen["column"], chosen["labels"], chosen["head"], stored)


def _running(chosen: dict[str, Any], shown: Progress) -> Any:
    from builder.judging.evaluate import Running

    return Running(
        jobs=chosen["jobs"], address=chosen["address"], head_packs=chosen["head_packs"] or None, csv=chosen["csv"],
        skip_broken=chosen["skip_broken"], advance=shown,
    )  # fmt: skip
