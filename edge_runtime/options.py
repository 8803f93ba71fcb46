"""Options that several commands have."""

from __future__ import annotations

import click

head_packs_option = click.option(
    "--head-pack",
    "head_packs",
    metavar="PACK",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A file with one more head; may be repeated. Without it those in the folder FILE.heads.",
)
