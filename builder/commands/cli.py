"""``builder``: the command group. Each command is imported when it is called."""

from __future__ import annotations

import click

from builder.commands.group import Commands, Imported
from edge_runtime import __version__

COMMANDS = {
    "add-head": ("builder.commands.growing:add_head",),
    "build": ("builder.commands.building:build",),
    "build-head": ("builder.commands.growing:build_head",),
    "compare": ("builder.commands.scoring:compare",),
    "evaluate": ("builder.commands.judging:evaluate",),
    "export": ("builder.commands.exporting:export",),
    "init": ("builder.commands.building:init",),
    "inspect": ("builder.commands.judging:inspect", "builder.commands.finished:inspect"),
    "list": ("builder.commands.finished:list_heads",),
    "probe": ("builder.commands.exporting:probe",),
    "remove-head": ("builder.commands.finished:remove_head",),
    "rename-head": ("builder.commands.finished:rename_head",),
    "replace-head": ("builder.commands.growing:replace_head",),
    "score": ("builder.commands.scoring:score",),
    "search": ("builder.commands.scoring:search",),
    "sign": ("builder.commands.exporting:sign",),
    "train-head": ("builder.commands.training:train_head",),
    "train-heads": ("builder.commands.training:train_heads",),
}


@click.group(cls=Commands, commands=Imported(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="builder", message="%(prog)s of polyhead %(version)s")
def main() -> None:
    """Merge classifiers that share a backbone into one int8 .tflite file."""
