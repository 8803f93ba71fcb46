"""``polyhead``: the commands of ``builder`` and ``edge-runtime`` under one name."""

from __future__ import annotations

import click

from builder.commands.cli import COMMANDS
from builder.commands.group import Commands, Imported
from edge_runtime import __version__
from edge_runtime.cli import COMMANDS as ON_DEVICE
from edge_runtime.cli import main as runtime


@click.group(
    cls=Commands, commands=Imported({**COMMANDS, **ON_DEVICE}), context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="polyhead")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Build one .tflite file from classifiers that share a backbone, and run it."""
    ctx.invoke(runtime)
