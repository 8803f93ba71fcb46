"""``builder add-head``, ``replace-head`` and ``build-head``; see ``growing``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from builder.commands.chosen import chosen, head_config, pair
from builder.commands.finished import FILE, JSON, OUTPUT, show
from builder.commands.options import head_options, setting_options
from builder.settings.growing import GrowConfig
from builder.support.naming import as_options
from builder.support.quiet import own_temporary_files, quiet

_HEAD = click.argument("head", metavar="NAME=MODEL")


def _new_head_options(command: Any) -> Any:
    fast = click.option("--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer.")
    settings = setting_options(GrowConfig, without=("file", "output"))
    return head_options("labels", "preprocessing", "activation", "title", "size", "resize", of_several=False)(
        fast(settings(JSON(command)))
    )


@click.command("add-head")
@FILE
@_HEAD
@OUTPUT
@_new_head_options
def add_head(file: Path, head: str, output: Path | None, **chosen: Any) -> None:
    """Add the classifier MODEL to FILE as head NAME. The answers of the other heads stay the same, bit for bit."""
    _run("add_head", file, output or file, head, chosen)


@click.command("replace-head")
@FILE
@_HEAD
@OUTPUT
@_new_head_options
def replace_head(file: Path, head: str, output: Path | None, **chosen: Any) -> None:
    """Replace head NAME of FILE with the classifier MODEL."""
    _run("add_head", file, output or file, head, chosen, replacing=True)


@click.command("build-head")
@FILE
@_HEAD
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="The head pack to write, NAME.head.tflite."
)
@_new_head_options
def build_head(file: Path, head: str, output: Path, **chosen: Any) -> None:
    """Build the classifier MODEL as a head pack for FILE.

    A head pack is a file of a few kilobytes that is stored beside FILE.
    """
    _run("build_head", file, output, head, chosen)


def _run(operation: str, file: Path, output: Path, head: str, options: dict[str, Any], **more: Any) -> None:
    name, model = pair(head, "NAME=MODEL")
    as_json = options.pop("as_json")
    config = chosen(GrowConfig, head=head_config(name, model, options), file=file, output=output, **options)
    with quiet(), own_temporary_files(), as_options():
        from builder.growing import grow

        change = getattr(grow, operation)(config, **more)
    show(change, as_json)
