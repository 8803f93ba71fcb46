"""Frozen classes of settings: a wrong value raises ``ConfigError``, in Python as in a TOML file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import dataclass_transform

from builder.settings.problems import config_error

Class = TypeVar("Class", bound=type)
Instance = TypeVar("Instance")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: Class) -> Class:
    """Make ``cls`` a frozen dataclass with checked fields; an unknown key is an error."""
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)
    checked, names = made.__init__, [f.name for f in fields(made)]

    def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807 - it takes the place of one
        given = dict(zip(names, values, strict=False))
        try:
            checked(self, *values[len(names) :], **given, **named)
        except ValidationError as error:
            raise config_error(error, made) from None

    made.__init__ = __init__
    return made  # type: ignore[no-any-return]


def read_settings(
    cls: type[Instance], document: Any, *, folder: Path | None = None, named: Callable[[str], str] = str
) -> Instance:
    """Make an instance of a class of settings.

    Args:
        cls: The class, made by ``settings``.
        document: Keys and values, as a TOML file has them.
        folder: The folder that paths are relative to; None leaves them as they are.
        named: Gives a key as the user wrote it, for messages.

    Raises:
        ConfigError: One or more settings are wrong; the message has a line for each.
    """
    try:
        return TypeAdapter(cls).validate_python(document, context={"folder": folder})
    except ValidationError as error:
        raise config_error(error, cls, document, named) from None
