"""What a framework says when it refuses, without the pages that it puts around it."""

from __future__ import annotations

import re

LENGTH = 300  # letters
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Keras 3: the whole configuration of the outermost layer stands before the first, what a layer was called with behind
# the second.
_BEFORE = re.compile(r"Exception encountered: |Exception encountered when calling [^\n]*\.\n\n")
_BEHIND = re.compile(r"\n\s*(?:Arguments received by|Call arguments received by) ")


def innermost(text: str) -> str:
    """The line of ``text`` that says why, at most 300 letters long."""
    why = _BEFORE.split(_COLOURS.sub("", text))[-1]
    return " ".join(_BEHIND.split(why)[0].split())[:LENGTH]
