"""Options that several commands share."""

from __future__ import annotations

import click

from edge_runtime.interpreter import INTERPRETERS

file_argument = click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
interpreter_option = click.option(
    "--interpreter",
    type=click.Choice(list(INTERPRETERS)),
    help="Interpreter that runs the file. Default: the first that is installed.",
)
threads_option = click.option("--threads", type=click.IntRange(1, 64), help="Threads of the interpreter.")
trusted_key_option = click.option(
    "--trusted-key",
    metavar="KEY",
    type=click.Path(exists=True, dir_okay=False),
    help="Open only files and packs that are signed with this key (a public key, PEM).",
)
isolate_option = click.option("--isolate", is_flag=True, help="Try FILE in a separate process first.")
head_packs_option = click.option(
    "--head-pack",
    "head_packs",
    metavar="PACK",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A head pack; repeat for more. Default: the packs in the folder FILE.heads.",
)
