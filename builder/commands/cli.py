"""``builder``: parse, build one config, call one function, print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from builder.commands.exporting import export
from builder.commands.growing import COMMANDS
from builder.commands.options import (
    HELP,
    Commands,
    allow_code_option,
    heads_of,
    limits_of,
    max_memory_option,
    max_steps_option,
    preprocessing_option,
    tolerance_option,
    transforms_of,
)
from builder.commands.training import train_head
from builder.settings.config import ALGORITHMS, AUTO, DEFAULT_MIN_AGREEMENT, FORMER_PRECISIONS, PRECISIONS, BuildConfig
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from builder.support.places import report_folder
from builder.support.quiet import quiet, terminal
from edge_runtime import __version__


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(__version__, prog_name="builder", message="%(prog)s of polyhead %(version)s")
def main() -> None:
    """Merge Keras classifiers that share a backbone into one int8 .tflite file."""


class _Precision(click.Choice):
    """Reads the names of former versions too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(FORMER_PRECISIONS.get(value, value), param, ctx)


for command in (*COMMANDS, train_head, export):
    main.add_command(command)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--head", "heads", multiple=True, metavar="NAME=MODEL", help="A classifier; repeat for each.")
@click.option("--labels", multiple=True, metavar="NAME=FILE", help="Its labels; without it the .txt beside the model.")
@preprocessing_option
@click.option("--calibration-data", type=click.Path(path_type=Path), help="Folder of pictures.")
@click.option(
    "--verification-data", type=click.Path(path_type=Path), help="Held-out pictures; else a fifth is set aside."
)
@click.option("--min-agreement", type=float, default=None, help=f"The gate.  [default: {DEFAULT_MIN_AGREEMENT}]")
@click.option("--output", type=click.Path(path_type=Path), help="The .tflite file to write.")
@click.option(
    "--precision", type=_Precision([AUTO, *PRECISIONS]), help="How exact; auto is the first that passes the gate."
)
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Who makes int8; the others are there to compare with.")
@click.option(
    "--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer instead of learning it."
)
@click.option("--keras-output", type=click.Path(path_type=Path), help="Also save the merged model as .keras.")
@click.option("--saved-model", type=click.Path(path_type=Path), help="Also a SavedModel for servers, in this folder.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder of the report; else NAME.report beside the output."
)
@click.option("--target", type=click.Choice(list(TARGETS)), help="A device that the file must run on.")
@tolerance_option
@max_memory_option
@max_steps_option
@allow_code_option
def build(config: Path | None, **options: Any) -> None:
    """Build from the TOML file CONFIG, or from options alone; options win over the file."""
    chosen = _choose(config, options)
    with quiet():
        from builder.pipeline import build as run  # imports TensorFlow: `builder --help` must not wait for it
        from builder.reporting.report import print_summary

    with terminal() as shown, quiet():
        result = run(chosen, progress=shown)
    print_summary(result.report)


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--preprocessing", multiple=True, metavar="[NAME=]HOW", help="For one, by its file's name, or all.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@tolerance_option
@max_memory_option
@max_steps_option
@allow_code_option
@click.pass_context
def inspect(
    ctx: click.Context,
    /,
    models: tuple[Path, ...],
    preprocessing: tuple[str, ...],
    as_json: bool,
    tolerance: float | None,
    allow_code: bool | None,
    **limits: Any,
) -> None:
    """What MODELS share, where they part, and why. Exit code 3 where they do not all share one backbone."""
    transforms = transforms_of(preprocessing, [path.stem for path in models])
    with quiet():
        from builder.merging import inspection

        chosen = [(path, transforms[path.stem]) for path in models]
        groups = inspection.inspect(
            chosen, tolerance=tolerance or 0.0, allow_code=bool(allow_code), limits=limits_of(limits)
        )
        document = inspection.to_json(groups)
    if as_json:
        click.echo(json.dumps(document))
    else:
        inspection.print_tree(groups)
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
    """How good FILE is on labelled pictures: each head, the joint list, and what there would be without it."""
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


def _choose(path: Path | None, options: dict[str, Any]) -> BuildConfig:
    heads = heads_of(options.pop("heads"), options.pop("labels"), options.pop("preprocessing"))
    limits = {key: options.pop(key) for key in ("max_memory", "max_steps")}
    given = {key: value for key, value in options.items() if value is not None}
    if path is not None:
        if heads:
            raise ConfigError("give the heads in the TOML file or by --head, not in both")
        config = BuildConfig.from_toml(path)
        return replace(config, limits=limits_of(limits, config.limits), **given)
    for key in ("output", "calibration_data"):
        if key not in given:
            raise ConfigError(f"--{key.replace('_', '-')} is missing; or give a TOML file that says it")
    return BuildConfig(heads=heads, limits=limits_of(limits), **given)
