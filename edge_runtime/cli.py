"""``edge-runtime``: the command line over ``MultiHeadClassifier``."""

from __future__ import annotations

import warnings

import click

from edge_runtime import __version__
from edge_runtime.group import Commands, Imported

# Of each command the module and the name in it.
COMMANDS = {
    "camera": ("edge_runtime.camera.command:camera",),
    "serve": ("edge_runtime.serve.command:serve",),
    "info": ("edge_runtime.commands.files:info",),
    "identify": ("edge_runtime.commands.files:identify",),
    "install": ("edge_runtime.commands.files:install",),
    "rollback": ("edge_runtime.commands.files:rollback",),
    "diff": ("edge_runtime.commands.files:diff",),
    "classify": ("edge_runtime.commands.answering:classify",),
    "classify-text": ("edge_runtime.commands.answering:classify_text",),
    "features": ("edge_runtime.commands.measuring:features",),
    "benchmark": ("edge_runtime.commands.measuring:benchmark",),
}


@click.group(cls=Commands, commands=Imported(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-runtime")
def main() -> None:
    """Run a polyhead file: one backbone, many heads, no TensorFlow."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture gets an error of our own
