"""What the commands of ``builder`` have in common: options, ``NAME=VALUE`` pairs, and how an error ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from builder.settings.config import MAX_TOLERANCE, HeadConfig
from builder.settings.input_scaling import PREPROCESSING, PixelTransform, parse_preprocessing
from builder.settings.limits import Limits
from builder.support.errors import BuilderError, ConfigError
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.escape import printable

HELP = {"help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """What the user got wrong ends in one line and the error's exit code, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BuilderError as error:
            click.echo(printable(f"error: {error}"), err=True)
            ctx.exit(error.exit_code)
        except (EdgeRuntimeError, OSError) as error:
            click.echo(printable(f"error: {error}"), err=True)
            ctx.exit(2)


tolerance_option = click.option(
    "--tolerance",
    type=click.FloatRange(0, MAX_TOLERANCE),
    help="Take weights for equal that differ by no more than this share; float16 needs 0.0005.  [default: 0]",
)
allow_code_option = click.option(
    "--allow-code", is_flag=True, default=None, help="Run code that a model file brings. Only for files you trust."
)
max_memory_option = click.option(
    "--max-memory",
    type=click.FloatRange(0, min_open=True),
    help=f"GB that one model's activations may take.  [default: {Limits.max_memory:g}]",
)
max_steps_option = click.option(
    "--max-steps",
    type=click.IntRange(1),
    help=f"Steps of recurrent layers that one model may have.  [default: {Limits.max_steps}]",
)
preprocessing_option = click.option(
    "--preprocessing", multiple=True, metavar="[NAME=]HOW", help=f"{', '.join(PREPROCESSING)} or SCALE,OFFSET."
)


def heads_of(models: tuple[str, ...], labels: tuple[str, ...], preprocessing: tuple[str, ...]) -> tuple[HeadConfig, ...]:
    paths, label_files = _pairs(models, "--head"), _pairs(labels, "--labels")
    _check_names(label_files, list(paths), "--labels")
    transforms = transforms_of(preprocessing, list(paths))
    files = {name: Path(file) for name, file in label_files.items()}
    return tuple(HeadConfig(name, Path(model), files.get(name), transforms[name]) for name, model in paths.items())


def limits_of(options: dict[str, Any], otherwise: Limits | None = None) -> Limits:
    """Takes ``max_memory`` and ``max_steps`` out of the options; what is not given is as in ``otherwise``."""
    given = {key: options.pop(key, None) for key in ("max_memory", "max_steps")}
    return replace(otherwise or Limits(), **{key: value for key, value in given.items() if value is not None})


def transforms_of(values: tuple[str, ...], names: list[str]) -> dict[str, PixelTransform | None]:
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


def pair(text: str, what: str) -> tuple[str, str]:
    """The two sides of one ``NAME=VALUE``. Raises ``ConfigError``."""
    ((name, value),) = _pairs((text,), what).items()
    return name, value
