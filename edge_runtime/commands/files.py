"""The contents, identity and versions of a file: ``info``, ``identify``, ``install``, ``rollback``, ``diff``."""

from __future__ import annotations

import json
from typing import Optional, Sequence

import click

from edge_runtime import versions
from edge_runtime.bundle import read_metadata
from edge_runtime.describe import describe, info_text
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.escape import printable
from edge_runtime.identity import model_text
from edge_runtime.options import file_argument, head_packs_option, isolate_option, json_option, trusted_key_option

_new_file_argument = click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))


@click.command()
@file_argument
@head_packs_option
@json_option
@isolate_option
@trusted_key_option
def info(file: str, head_packs: Sequence[str], as_json: bool, isolate: bool, trusted_key: Optional[str]) -> None:
    """Show heads, labels, sizes, input and sources of FILE."""
    if isolate or trusted_key:
        packs = head_packs or None
        MultiHeadClassifier(file, head_packs=packs, isolate=isolate, trusted_key=trusted_key).close()
    metadata = read_metadata(file)
    document = describe(file, metadata, head_packs or None)
    text = printable(json.dumps(document, ensure_ascii=False)) if as_json else info_text(file, metadata.input, document)
    click.echo(text)


@click.command()
@file_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Where to write the result. Default: replace FILE.",
)
@click.option("--name", help="Name for people, such as doors.")
@click.option("--version", help="Version: a number or a date.")
@click.option("--built-at", metavar="TIME", help="Build time in UTC: 2026-11-27T19:00:00Z.")
@click.option("--author", help="Author of the model.")
@click.option("--licence", help="Licence of the model.")
def identify(file: str, output: Optional[str], **fields: Optional[str]) -> None:
    """Set name, version and other identity fields of FILE.

    The model stays the same, byte for byte.
    """
    given = {key: value for key, value in fields.items() if value is not None}
    if not given:
        raise EdgeRuntimeError("nothing to write: give --name, --version, --built-at, --author or --licence")
    versions.identify(file, output or file, given)
    _say_who(output or file)


@click.command()
@click.argument("new", metavar="NEW", type=click.Path(exists=True, dir_okay=False))
@_new_file_argument
@trusted_key_option
def install(new: str, file: str, trusted_key: Optional[str]) -> None:
    """Replace FILE by NEW and keep the old file for rollback. A camera with --reload switches to the new file."""
    versions.install(new, file, trusted_key)
    _say_who(file)


@click.command()
@file_argument
@trusted_key_option
def rollback(file: str, trusted_key: Optional[str]) -> None:
    """Go back to the file that the last install replaced.

    A second rollback undoes the first.
    """
    versions.rollback(file, trusted_key)
    _say_who(file)


@click.command()
@click.argument("old", metavar="OLD", type=click.Path(exists=True, dir_okay=False))
@click.argument("new", metavar="NEW", type=click.Path(exists=True, dir_okay=False))
@json_option
def diff(old: str, new: str, as_json: bool) -> None:
    """Show what differs between two files.

    Compares version, backbone, heads, labels, agreement, and how they were built.
    """
    document = versions.difference(old, new)
    lines = [json.dumps(document, ensure_ascii=False)] if as_json else versions.difference_text(document)
    click.echo("\n".join(map(printable, lines)))


def _say_who(file: str) -> None:
    click.echo(printable(f"{file}: {model_text(versions.identified(file, read_metadata(file)))}"))
