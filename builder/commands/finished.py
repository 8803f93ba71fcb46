"""The commands on a finished file that need only the libraries of the runtime, so that they also run on a device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from builder.support.errors import ConfigError
from builder.support.extras import needs
from edge_runtime.bundle import read_metadata
from edge_runtime.counting import count_of
from edge_runtime.describe import agreement_text, describe, info_text
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.escape import printable

FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path), help="Where to write the result. Default: replace FILE."
)
REPORT = click.option(
    "--report", type=click.Path(path_type=Path), help="Folder of report.json. Default: beside the output."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.command("remove-head")
@FILE
@click.argument("name")
@OUTPUT
@click.option(
    "--calibration-data",
    type=click.Path(path_type=Path),
    help="Folder of pictures with which the joint list is fitted again.",
)
@REPORT
@JSON
def remove_head(file: Path, name: str, output: Path | None, as_json: bool, **chosen: Any) -> None:
    """Remove head NAME from FILE."""
    from builder.growing.change import InPlace, remove_head

    show(remove_head(InPlace(file, output or file, **chosen), name), as_json)


@click.command("rename-head")
@FILE
@click.argument("names", metavar="OLD=NEW")
@OUTPUT
@REPORT
@JSON
def rename_head(file: Path, names: str, output: Path | None, report: Path | None, as_json: bool) -> None:
    """Rename a head of FILE."""
    from builder.growing.change import InPlace, rename_head

    old, _, new = names.partition("=")
    if not old or not new:
        raise ConfigError(f"rename-head {names}: expected OLD=NEW")
    show(rename_head(InPlace(file, output or file, report), old, new), as_json)


@click.command("list")
@FILE
@JSON
def list_heads(file: Path, as_json: bool) -> None:
    """List the heads of FILE."""
    metadata = read_metadata(str(file))
    if as_json:
        click.echo(printable(json.dumps({"heads": metadata.to_json()["heads"]}, ensure_ascii=False)))
        return
    figures = metadata.quality.get("heads", {})
    rows = [("index", "head", "title", "bytes", "agreement", "labels")]
    for i, head in enumerate(metadata.heads):
        quality = figures.get(head.head_name)
        figure = agreement_text(quality) if quality else ""
        rows.append((str(i), head.head_name, head.title, f"{head.bytes:,}", figure, ", ".join(head.labels)))
    for line in _columns(rows, right=("index", "bytes", "agreement")):
        click.echo(line)


def _columns(rows: Sequence[Sequence[str]], right: Sequence[str]) -> list[str]:
    """The rows as aligned lines; the first row names the columns. A column without values is left out."""
    cells = [[printable(cell) for cell in row] for row in rows]
    shown = [i for i in range(len(cells[0])) if any(row[i] for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in shown}
    ordered = [
        [row[i].rjust(widths[i]) if cells[0][i] in right else row[i].ljust(widths[i]) for i in shown] for row in cells
    ]
    return ["  ".join(row).rstrip() for row in ordered]


@click.command("inspect")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@JSON
def inspect(models: tuple[Path, ...], as_json: bool) -> None:
    """Show the contents of a finished file. To compare models, install the extra builder."""
    if len(models) > 1 or not is_finished(models[0]):
        raise ConfigError(needs("inspect of models", "pydantic", "builder"))
    print_finished(models[0], as_json)


def is_finished(path: Path) -> bool:
    """Whether ``path`` is a file that ``builder build`` wrote."""
    try:
        read_metadata(str(path))
    except (EdgeRuntimeError, OSError):
        return False
    return True


def print_finished(file: Path, as_json: bool) -> None:
    """Print the contents of a finished file, as ``edge-runtime info`` does."""
    metadata = read_metadata(str(file))
    document = describe(str(file), metadata)
    text = json.dumps(document, ensure_ascii=False) if as_json else info_text(str(file), metadata.input, document)
    click.echo(printable(text) if as_json else text)


def show(change: Any, as_json: bool) -> None:
    if as_json:
        click.echo(printable(json.dumps({"output": str(change.output), **change.to_json()}, ensure_ascii=False)))
        return
    heads = f", {count_of(change.heads, 'heads')}" if change.heads else ""
    click.echo(
        f"{change.what}: {printable(str(change.output))}, {change.file_bytes:,} bytes{heads}, "
        f"{sum(change.seconds.values()):.1f} s"
    )
    quality, kept = change.quality, change.kept
    if quality is not None:
        low, high = quality.interval
        click.echo(
            f"  agrees with its original on {quality.agreement:.3f} of {count_of(quality.pictures, 'held-out samples')} "
            f"({low:.3f} to {high:.3f}), drift of the top probability {quality.drift:.4f}"
        )
    if kept is not None:
        on = f"{count_of(kept.samples, 'samples')}{' of noise' if kept.noise else ''}"
        heads = "1 other head answers" if kept.heads == 1 else f"{kept.heads:,} other heads answer"
        click.echo(f"  {heads} as before, bit for bit, on {on}")
    for note in change.notes:
        click.echo(printable(f"  note: {note}"), err=True)
