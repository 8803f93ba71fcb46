"""Options that several commands have."""

from __future__ import annotations

import click

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
