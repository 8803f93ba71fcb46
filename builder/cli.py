"""``builder``: parse, build one config, call one function, print."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from builder.config import AUTO, DEFAULT_MIN_AGREEMENT, MAX_TOLERANCE, RUNGS, BuildConfig, HeadConfig
from builder.errors import BuilderError, ConfigError
from builder.pixels import PREPROCESSING, PixelTransform, parse_preprocessing
from builder.quiet import quiet, terminal
from builder.targets import TARGETS
from edge_runtime.errors import EdgeRuntimeError

_HELP = {"help_option_names": ["-h", "--help"]}


class _Commands(click.Group):
    """What the user got wrong ends in one line and the error's exit code, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BuilderError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except (EdgeRuntimeError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


_tolerance = click.option(
    "--tolerance",
    type=click.FloatRange(0, MAX_TOLERANCE),
    help="Take weights for equal that differ by no more than this share; float16 needs 0.0005.  [default: 0]",
)
_allow_code = click.option(
    "--allow-code", is_flag=True, default=None, help="Run code that a model file brings. Only for files you trust."
)


@click.group(cls=_Commands, context_settings=_HELP)
def main() -> None:
    """Merge Keras classifiers that share a backbone into one int8 .tflite file."""


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--head", "heads", multiple=True, metavar="NAME=MODEL", help="A classifier; repeat for each.")
@click.option("--labels", multiple=True, metavar="NAME=FILE", help="Its labels; without it the .txt beside the model.")
@click.option("--preprocessing", multiple=True, metavar="[NAME=]HOW", help=f"{', '.join(PREPROCESSING)} or SCALE,OFFSET.")
@click.option("--calibration-data", type=click.Path(path_type=Path), help="Folder of pictures.")
@click.option(
    "--verification-data", type=click.Path(path_type=Path), help="Held-out pictures; else a fifth is set aside."
)
@click.option("--min-agreement", type=float, default=None, help=f"The gate.  [default: {DEFAULT_MIN_AGREEMENT}]")
@click.option("--output", type=click.Path(path_type=Path), help="The .tflite file to write.")
@click.option("--precision", type=click.Choice([AUTO, *RUNGS]), help="How exact; auto is the first that passes the gate.")
@click.option(
    "--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer instead of learning it."
)
@click.option("--keras-output", type=click.Path(path_type=Path), help="Also save the merged model as .keras.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder of the report; else report/ beside the output.")
@click.option("--target", type=click.Choice(list(TARGETS)), help="A device that the file must run on.")
@_tolerance
@_allow_code
def build(config: Path | None, **options: Any) -> None:
    """Build from the TOML file CONFIG, or from options alone; options win over the file."""
    chosen = _choose(config, options)
    with quiet():
        from builder.pipeline import build as run  # imports TensorFlow: `builder --help` must not wait for it
        from builder.report import print_summary

    with terminal() as shown, quiet():
        result = run(chosen, progress=shown)
    print_summary(result.report)


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--preprocessing", multiple=True, metavar="[NAME=]HOW", help="For one, by its file's name, or all.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@_tolerance
@_allow_code
@click.pass_context
def inspect(
    ctx: click.Context,
    models: tuple[Path, ...],
    preprocessing: tuple[str, ...],
    as_json: bool,
    tolerance: float | None,
    allow_code: bool | None,
) -> None:
    """What MODELS share, where they part, and why. Exit code 3 where they do not all share one backbone."""
    transforms = _transforms(preprocessing, [path.stem for path in models])
    with quiet():
        from builder import inspection

        chosen = [(path, transforms[path.stem]) for path in models]
        groups = inspection.inspect(chosen, tolerance=tolerance or 0.0, allow_code=bool(allow_code))
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
@click.option("--report", type=click.Path(path_type=Path), help="Folder of the page and the JSON; else beside FILE.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def evaluate(file: Path, data: Path, config: Path | None, report: Path | None, as_json: bool) -> None:
    """How good FILE is on labelled pictures: each head, the joint list, and what there would be without it."""
    build_config = None if config is None else BuildConfig.from_toml(config)
    with quiet():
        from builder import evaluate as evaluation

        result = evaluation.evaluate(file, data, build_config)
        folder = report or file.parent / "evaluation"
        evaluation.write_evaluation(result, folder)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        evaluation.print_evaluation(result, folder / "evaluation.html")


def _choose(path: Path | None, options: dict[str, Any]) -> BuildConfig:
    heads = _heads(options.pop("heads"), options.pop("labels"), options.pop("preprocessing"))
    given = {key: value for key, value in options.items() if value is not None}
    if path is not None:
        if heads:
            raise ConfigError("give the heads in the TOML file or by --head, not in both")
        from dataclasses import replace

        return replace(BuildConfig.from_toml(path), **given)
    for key in ("output", "calibration_data"):
        if key not in given:
            raise ConfigError(f"--{key.replace('_', '-')} is missing; or give a TOML file that says it")
    return BuildConfig(heads=heads, **given)


def _heads(models: tuple[str, ...], labels: tuple[str, ...], preprocessing: tuple[str, ...]) -> tuple[HeadConfig, ...]:
    paths, label_files = _pairs(models, "--head"), _pairs(labels, "--labels")
    _check_names(label_files, list(paths), "--labels")
    transforms = _transforms(preprocessing, list(paths))
    files = {name: Path(file) for name, file in label_files.items()}
    return tuple(HeadConfig(name, Path(model), files.get(name), transforms[name]) for name, model in paths.items())


def _transforms(values: tuple[str, ...], names: list[str]) -> dict[str, PixelTransform | None]:
    """What ``--preprocessing`` says of each name: its own ``NAME=HOW``, else the last plain ``HOW``."""
    own = _pairs(tuple(value for value in values if "=" in value), "--preprocessing")
    _check_names(own, names, "--preprocessing")
    everywhere = next((value for value in reversed(values) if "=" not in value), None)
    chosen = {name: own.get(name, everywhere) for name in names}
    return {name: None if how is None else _transform(how, f"--preprocessing {name}") for name, how in chosen.items()}


def _transform(how: str, where: str) -> PixelTransform:
    """A name, or two numbers SCALE,OFFSET."""
    try:
        scale, offset = (float(part) for part in how.split(","))
    except ValueError:
        return parse_preprocessing(how, where)
    return parse_preprocessing({"scale": scale, "offset": offset}, where)


def _check_names(given: Iterable[str], names: list[str], option: str) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ConfigError(f"{option} {unknown[0]}: no such name; there are: {', '.join(names) or 'none'}")


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not separator or not rest:
            raise ConfigError(f"{option} {value}: expected NAME=FILE")
        if name in pairs:
            raise ConfigError(f"{option} {name} is given twice; every head needs a name of its own")
        pairs[name] = rest
    return pairs
