"""Options that several commands have."""

from __future__ import annotations

import click

from edge_runtime.interpreter import INTERPRETERS

file_argument = click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
interpreter_option = click.option(
    "--interpreter",
    type=click.Choice(list(INTERPRETERS)),
    help="Which interpreter runs the file; else the first installed.",
)
threads_option = click.option("--threads", type=click.IntRange(1, 64), help="Threads of the interpreter.")
trusted_key_option = click.option(
    "--trusted-key",
    metavar="KEY",
    type=click.Path(exists=True, dir_okay=False),
    help="Open only what was signed with this key (a public key, PEM), packs too.",
)
isolate_option = click.option("--isolate", is_flag=True, help="Try FILE in a process of its own first.")
head_packs_option = click.option(
    "--head-pack",
    "head_packs",
    metavar="PACK",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A file with one more head; may be repeated. Without it those in the folder FILE.heads.",
)
