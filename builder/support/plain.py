"""What files say, as rich may print it."""

from __future__ import annotations

from rich.markup import escape

from edge_runtime.escape import printable


def plain(text: object) -> str:
    """No markup in it, and nothing that a terminal obeys: names and labels come from anywhere."""
    return escape(printable(str(text)))
