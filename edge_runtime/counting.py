"""Counts in messages for people."""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """``1 head``, ``3 heads``, ``1,200 heads``. ``noun``: in the plural, which ends in s."""
    return f"{number:,} {noun[:-1] if number == 1 else noun}"
