"""Values out of JSON that nobody has checked yet. Each raises ``BundleError``: what was expected, what was found."""

from __future__ import annotations

from typing import Any, Tuple

from edge_runtime.errors import BundleError

_LARGEST = (1 << 53) - 1  # doubles hold every integer up to here


def field_of(document: Any, key: str, kind: type) -> Any:
    """``document[key]``, which must be of ``kind``. A bool is no int; an int is one that all readers of JSON can hold."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise BundleError(f"expected {key!r} as {kind.__name__}, found {value!r:.60}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise BundleError(f"expected {key!r} of at most {_LARGEST}, found a number of {len(str(value))} digits")
    return value


def positive(value: Any, what: str) -> int:
    """``value``, which must be an int above 0 and below 2^24."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 24:
        raise BundleError(f"expected {what} as a positive number, found {value!r:.60}")
    return value


def one_of(value: Any, valid: Tuple[str, ...], what: str) -> str:
    """``value``, which must be one of ``valid``."""
    if value not in valid:
        raise BundleError(f"expected {what} as one of {', '.join(valid)}, found {value!r:.60}")
    return str(value)
