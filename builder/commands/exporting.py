"""``builder export``, ``sign`` and ``probe``; see ``exporting`` and ``boards``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.support.errors import ConfigError
from builder.support.quiet import quiet
from edge_runtime.escape import printable

if TYPE_CHECKING:
    from builder.exporting.export import Export

_FORMATS = ("task", "edgetpu", "split")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--format", "chosen", type=click.Choice(_FORMATS), required=True, help="The client to export for.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The output: a file for task, a new folder for the others.",
)
@click.option(
    "--head", "heads", multiple=True, metavar="NAME", help="With task: export only this head, or joint; repeat for more."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def export(file: Path, chosen: str, output: Path, heads: tuple[str, ...], as_json: bool) -> None:
    """Write FILE in the format of another client.

    \b
    task     one subgraph and TFLite metadata: MediaPipe Tasks, Frigate
    edgetpu  the backbone for the Edge TPU compiler, and the heads as packs
    split    the backbone, and the heads as packs
    """
    from builder.exporting import export as exports

    if heads and chosen != "task":
        raise ConfigError(f"--head needs --format task; {chosen} writes every head to a pack of its own")
    with quiet():
        if chosen == "task":
            done = exports.export_task(file, output, heads)
        else:
            done = {"split": exports.export_split, "edgetpu": exports.export_edgetpu}[chosen](file, output)
    _show(done, as_json)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The .tflite file to write.")
def probe(output: Path) -> None:
    """Write a file that measures operator times on a board.

    On the board: edge-runtime benchmark PROBE --operators --json > board.json. Then, here: builder build --device
    board.json.
    """
    from builder.boards.probe import make_probe
    from builder.support.files import written
    from builder.support.places import check_file

    check_file(output)
    with quiet():
        content = make_probe()
    with written(output) as draft:
        draft.write_bytes(content)
    click.echo(f"{printable(str(output))}  {len(content):,} bytes")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="An Ed25519 private key, PEM: openssl genpkey -algorithm ed25519 -out KEY.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Where to write the result. Default: replace FILE.")
def sign(file: Path, key: Path, output: Path | None) -> None:
    """Sign FILE, a finished file or a head pack. A device with --trusted-key opens signed files only."""
    from builder.exporting import sign as signing

    public = signing.sign(file, key, output or file)
    click.echo(printable(f"{output or file}: signed with the key {public[:16]}..."))


def _show(done: Export, as_json: bool) -> None:
    if as_json:
        document = {**asdict(done), "files": [str(path) for path in done.files]}
        click.echo(printable(json.dumps(document, ensure_ascii=False)))
        return
    for path in done.files:
        click.echo(f"{printable(str(path))}  {path.stat().st_size:,} bytes")
    if done.operators:
        click.echo(_edgetpu_text(done))
    for note in done.notes:
        click.echo(printable(f"note: {note}"), err=True)


def _edgetpu_text(done: Export) -> str:
    if not done.on_cpu:
        return f"the Edge TPU supports all {done.operators} operators of the backbone"
    first = done.on_cpu[0].index
    lines = [f"{first} of {done.operators} operators of the backbone run on the Edge TPU; it does not support:"]
    lines += [f"  {found.index} {found.operator}: {found.reason}" for found in done.on_cpu]
    return "\n".join(lines)
