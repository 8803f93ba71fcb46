"""Untrusted text for printing with rich."""

from __future__ import annotations

from rich.markup import escape

from edge_runtime.escape import printable


def plain(text: object) -> str:
    """Text without markup and control sequences: names and labels are untrusted."""
    return escape(printable(str(text)))
