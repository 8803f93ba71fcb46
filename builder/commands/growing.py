"""The commands that change a finished file; see ``grow``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from builder.commands.chosen import chosen, head_config, pair
from builder.commands.options import head_options, setting_options
from builder.settings.growing import GrowConfig
from builder.support.naming import as_options
from builder.support.plain import plain
from builder.support.quiet import quiet
from edge_runtime.bundle import read_metadata
from edge_runtime.escape import printable

_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_HEAD = click.argument("head", metavar="NAME=MODEL")
_OUTPUT = click.option("--output", type=click.Path(path_type=Path), help="Where the result goes; else FILE is replaced.")
_REPORT = click.option("--report", type=click.Path(path_type=Path), help="Folder of report.json; else beside the output.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def _new_head_options(command: Any) -> Any:
    fast = click.option("--fast", "rounding", flag_value="nearest", help="Round weights to the nearest integer.")
    settings = setting_options(GrowConfig, without=("file", "output"))
    return head_options("labels", "preprocessing", "activation", "title", "size", "resize", of_several=False)(
        fast(settings(_JSON(command)))
    )


@click.command("add-head")
@_FILE
@_HEAD
@_OUTPUT
@_new_head_options
def add_head(file: Path, head: str, output: Path | None, **chosen: Any) -> None:
    """Add the classifier MODEL to FILE as head NAME; the other heads answer as before, bit for bit."""
    _run("add_head", file, output or file, head, chosen)


@click.command("replace-head")
@_FILE
@_HEAD
@_OUTPUT
@_new_head_options
def replace_head(file: Path, head: str, output: Path | None, **chosen: Any) -> None:
    """Put the classifier MODEL in the place of head NAME of FILE."""
    _run("add_head", file, output or file, head, chosen, replacing=True)


@click.command("build-head")
@_FILE
@_HEAD
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="The head pack to write, NAME.head.tflite."
)
@_new_head_options
def build_head(file: Path, head: str, output: Path, **chosen: Any) -> None:
    """Build the classifier MODEL as a head pack for FILE: a file of a few kilobytes that goes beside it."""
    _run("build_head", file, output, head, chosen)


@click.command("remove-head")
@_FILE
@click.argument("name")
@_OUTPUT
@click.option(
    "--calibration-data",
    type=click.Path(path_type=Path),
    help="Folder of pictures: the joint list is fitted anew with them.",
)
@_REPORT
@_JSON
def remove_head(file: Path, name: str, output: Path | None, as_json: bool, **chosen: Any) -> None:
    """Take head NAME out of FILE."""
    from builder.growing import grow

    _show(grow.remove_head(GrowConfig(file, output or file, **chosen), name), as_json)


@click.command("rename-head")
@_FILE
@click.argument("names", metavar="OLD=NEW")
@_OUTPUT
@_REPORT
@_JSON
def rename_head(file: Path, names: str, output: Path | None, report: Path | None, as_json: bool) -> None:
    """Give a head of FILE another name."""
    from builder.growing import grow

    old, new = pair(names, "rename-head")
    _show(grow.rename_head(GrowConfig(file, output or file, report), old, new), as_json)


@click.command("list")
@_FILE
@_JSON
def list_heads(file: Path, as_json: bool) -> None:
    """List the heads of FILE."""
    metadata = read_metadata(str(file))
    figures = metadata.quality.get("heads", {})
    if as_json:
        click.echo(printable(json.dumps({"heads": metadata.to_json()["heads"]}, ensure_ascii=False)))
        return
    table = Table(box=box.SIMPLE_HEAD)
    titled = any(head.title for head in metadata.heads)
    for column in ("index", "head", *(["title"] if titled else []), "bytes", "agreement", "labels"):
        table.add_column(column, justify="right" if column in ("index", "bytes", "agreement") else "left")
    for i, head in enumerate(metadata.heads):
        agreement = figures.get(head.head_name, {}).get("agreement")
        figure = "" if agreement is None else f"{agreement:.3f}"
        cells = (head.title,) if titled else ()
        table.add_row(
            str(i), head.head_name, *map(plain, cells), f"{head.bytes:,}", figure, plain(", ".join(head.labels))
        )
    Console().print(table)


def _run(operation: str, file: Path, output: Path, head: str, options: dict[str, Any], **more: Any) -> None:
    name, model = pair(head, "NAME=MODEL")
    as_json = options.pop("as_json")
    config = chosen(GrowConfig, head=head_config(name, model, options), file=file, output=output, **options)
    with quiet(), as_options():
        from builder.growing import grow

        change = getattr(grow, operation)(config, **more)
    _show(change, as_json)


def _show(change: Any, as_json: bool) -> None:
    if as_json:
        click.echo(printable(json.dumps({"output": str(change.output), **change.to_json()}, ensure_ascii=False)))
        return
    heads = f", {change.heads} heads" if change.heads else ""
    click.echo(
        f"{change.what}: {printable(str(change.output))}, {change.file_bytes:,} bytes{heads}, "
        f"{sum(change.seconds.values()):.1f} s"
    )
    quality, kept = change.quality, change.kept
    if quality is not None:
        low, high = quality.interval
        click.echo(
            f"  agrees with its original on {quality.agreement:.3f} of {quality.pictures} held-out samples "
            f"({low:.3f} to {high:.3f}), drift of the top probability {quality.drift:.4f}"
        )
    if kept is not None:
        on = "samples of noise" if kept.noise else "samples"
        click.echo(f"  {kept.heads} other heads answer as before, bit for bit, on {kept.samples} {on}")
    for note in change.notes:
        click.echo(printable(f"  note: {note}"), err=True)


COMMANDS = (add_head, replace_head, build_head, remove_head, rename_head, list_heads)
