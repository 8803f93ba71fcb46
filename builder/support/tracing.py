"""Clean up after TensorFlow, which writes generated code into the temporary folder and imports it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """TensorFlow removes that code when the process ends, but no compiled copy of it: none is written inside."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
