"""The description of each setting, from which messages, command-line options and the reference pages are made."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from builder.settings.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """One key.

    Attributes:
        key: Its name in the TOML file.
        help: Its description.
        expected: What a value must be, in words.
        default: The value without it; None where it is required.
        required: Whether it must be given.
        types: The types of its values, without None.
        choices: The valid values, where there are only these.
        table: The class of settings of its table, if it is one.
        many: Whether it holds several tables, each with a name that the user chooses.
    """

    key: str
    help: str
    expected: str
    default: Any
    required: bool
    types: tuple[Any, ...]
    choices: tuple[str, ...] = ()
    table: Any = None
    many: bool = False


def settings_of(cls: Any) -> dict[str, Setting]:
    """Each key of a class of settings, in order. A field marked ``exclude`` is no key of its table."""
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(cls)}
    known = {key: found for key, found in cls.__pydantic_fields__.items() if not found.exclude}
    return {key: _setting(key, found, defaults[key]) for key, found in known.items()}


def all_settings(cls: Any, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Each key of a class and of its tables, with the whole key: ``resize.fit``, ``heads.NAME.model``."""
    for name, setting in settings_of(cls).items():
        yield prefix + name, setting
        if setting.table is not None:
            yield from all_settings(setting.table, f"{prefix}{name}.{'NAME.' if setting.many else ''}")


def _setting(name: str, found: FieldInfo, default: Any) -> Setting:
    parts = [*_parts(found.annotation), *found.metadata]
    types_ = tuple(part for part in parts if isinstance(part, type) and part is not type(None))
    kind = next((part for part in parts if isinstance(part, Kind)), None)
    table = next((part for part in types_ if hasattr(part, "__pydantic_fields__")), None)
    expected = kind.words if kind else _words(types_, table, parts)
    many = get_origin(found.annotation) is tuple and table is not None
    required = default is MISSING or (many and not default)  # an empty list of heads has its own error
    return Setting(
        key=name,
        help=found.description or next((p.description for p in parts if isinstance(p, FieldInfo) and p.description), ""),
        expected=expected,
        default=None if required else default,
        required=required,
        types=types_,
        choices=kind.choices if kind else (),
        table=table,
        many=many,
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and the metadata of an annotation, unwrapped."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for part in get_args(annotation):
            yield from _parts(part)
    elif isinstance(annotation, FieldInfo):
        yield from (annotation, *annotation.metadata)
    else:
        yield annotation


def table_words(cls: Any) -> str:
    return f"a table {{{', '.join(settings_of(cls))}}}"


def _words(types_: tuple[Any, ...], table: Any, parts: list[Any]) -> str:
    if table is not None:
        return table_words(table)
    if bool in types_:
        return "true or false"
    if str in types_:
        return "a text"
    number = "a whole number" if int in types_ else "a number"
    bounds = {
        word: f"{word} {getattr(part, name):,}"
        for part in parts
        for kind, name, word in ((Ge, "ge", "from"), (Gt, "gt", "above"), (Le, "le", "to"), (Lt, "lt", "below"))
        if isinstance(part, kind)
    }
    return " ".join((number, (" and " if "below" in bounds else " ").join(bounds.values()))).strip()
