"""All errors in the settings -> one ``ConfigError`` with a line for each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from builder.settings.reference import settings_of, table_words
from builder.support.errors import ConfigError

MAX_LINES = 20
_SHOWN = 80  # characters of a value


def config_error(error: ValidationError, cls: Any, written: Any = None, named: Callable[[str], str] = str) -> ConfigError:
    """The error that the user sees.

    Args:
        error: What pydantic found.
        cls: The class of settings.
        written: The document that was read; the names of its tables appear in the message.
        named: Gives a key as the user wrote it.
    """
    lines = dict.fromkeys(_line(item, cls, written, named) for item in error.errors(include_url=False))
    return ConfigError("\n".join(list(lines)[:MAX_LINES]))


def _line(item: Mapping[str, Any], cls: Any, written: Any, named: Callable[[str], str]) -> str:
    found = (item.get("ctx") or {}).get("error")
    if isinstance(found, ConfigError):
        return str(found)
    place, expected, known = _place(item["loc"], cls, written)
    if item["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(place[-1], known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {named('.'.join(place))!r}; {hint}known here: {', '.join(known)}"
    key = named(".".join(place))
    if found is not None and str(found):
        return f"{key}: {found}"
    value = "nothing" if item["type"] == "missing" else _shown(item["input"])
    return f"{key}: expected {expected}, found {value}"


def _place(loc: Sequence[Any], cls: Any, written: Any) -> tuple[list[str], str, list[str]]:
    """The parts of the key, what is expected there, and the keys that are valid there."""
    place: list[str] = []
    expected, known, left = "settings", list(settings_of(cls)), list(loc)
    while left:
        part = str(left.pop(0))
        place.append(part)
        if part not in known:
            break
        setting = settings_of(cls)[part]
        expected = setting.expected
        if setting.table is None or not left:
            break
        cls, known = setting.table, list(settings_of(setting.table))
        if setting.many:
            names, index = list((written or {}).get(part, ())), left.pop(0)
            place.append(str(names[index] if isinstance(index, int) and index < len(names) else index))
            expected = table_words(cls)
    return place, expected, known


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.{_SHOWN}}"
    except ValueError:  # Python does not print a number of more than 4,300 digits
        return "a number with too many digits"
