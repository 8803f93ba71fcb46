"""Kinds of settings: how a value is read, and its description in messages, in help texts and in the reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, Strict, ValidationInfo
from pydantic_core import CoreSchema, core_schema

MAX_SIZE = 8192  # pixels of a side

Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]


@dataclass(frozen=True)
class Kind:
    """How one kind of value is read; used inside ``Annotated``.

    Attributes:
        words: What is expected, for messages.
        read: Converts a value of a TOML file or an option. Raises ``ValueError``, without a message where ``words`` is
            message enough.
        choices: The valid values, where there are only these.
    """

    words: str
    read: Callable[[Any, ValidationInfo], Any]
    choices: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self.read, handler(source))


def one_of(values: Sequence[str], *, none: str | None = None, former: Mapping[str, str] | None = None) -> Kind:
    """A kind with these values only.

    Args:
        values: The valid values.
        none: The word for None; TOML has no null.
        former: Names that earlier versions wrote, and their names today.
    """
    choices = tuple(values) if none is None else (none, *values)

    def read(value: Any, _: ValidationInfo) -> Any:
        name = (former or {}).get(value, value) if isinstance(value, str) else value
        if name is not None and name not in choices:
            raise ValueError
        return None if name == none else name

    return Kind(f"one of {', '.join(choices)}", read, choices)


def _path(value: Any, info: ValidationInfo) -> Any:
    """Read a path; it is relative to the folder of the TOML file that contains it."""
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError
    folder = (info.context or {}).get("folder")
    return Path(value) if folder is None else Path(os.path.normpath(folder / value))


def _size(value: Any, _: ValidationInfo) -> Any:
    """Read (height, width): a number for a square, [height, width], or either as an option has it: 224, or 224,320."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [int(part) if part.isdecimal() and len(part) < 9 else 0 for part in value.split(",")]
    sides = [value] if type(value) is int else list(value) if isinstance(value, (list, tuple)) else []
    if len(sides) not in (1, 2) or not all(type(side) is int and 0 < side <= MAX_SIZE for side in sides):
        raise ValueError
    return tuple(sides * 2)[:2]


def _labels(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, list):
        if not all(isinstance(label, str) for label in value):
            raise ValueError
        return tuple(value)
    return _path(value, info)


SettingPath = Annotated[Path, Kind("a path", _path)]
SIZE = Kind("a number of pixels or [height, width]", _size)
LABELS = Kind("a file's name or a list of strings", _labels)
