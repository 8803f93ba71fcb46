"""Escapes text from files for a terminal: control characters, line ends and changes of writing direction."""

from __future__ import annotations

import re

# Controls of both kinds (a terminal obeys U+009B as it does ESC [), what ends a line, what turns the direction of what
# follows, and halves of characters, which are how names that are no UTF-8 come. Joiners, which scripts need, stay.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def printable(text: str) -> str:
    """``text`` with every such character as ``\\uXXXX``, which is what JSON writes too: a JSON text stays one."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def has_halves(text: str) -> bool:
    """Whether a name is not UTF-8: Python puts surrogates in the place of bytes that it cannot decode."""
    return any("\ud800" <= character <= "\udfff" for character in text)
