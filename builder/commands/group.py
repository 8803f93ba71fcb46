"""Commands that are imported when they are asked for: a device has some of their libraries and not all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import click

from builder.support.errors import BuilderError, ConfigError
from builder.support.extras import extra_for, needs
from edge_runtime.group import Commands as Group
from edge_runtime.group import end


class Commands(Group):
    """A group whose commands may raise ``BuilderError`` too, and may miss a library."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BuilderError as error:
            end(ctx, str(error), error.exit_code)
        except ImportError as error:
            missing = extra_for(error)
            if missing is None:
                raise
            end(ctx, needs(f"{ctx.info_name} {ctx.invoked_subcommand}", *missing))


class Imported(MutableMapping[str, click.Command]):
    """``homes``: for each command the module and the name in it; more of them are tried where a library is missing."""

    def __init__(self, homes: Mapping[str, tuple[str, ...]]) -> None:
        self._homes = dict(homes)
        self._made: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._made:
            self._made[name] = _imported(name, self._homes[name])
        return self._made[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._homes[name], self._made[name] = (), command

    def __delitem__(self, name: str) -> None:
        del self._homes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _imported(name: str, homes: tuple[str, ...]) -> click.Command:
    """From the first home whose libraries are there; without any, a command that says what it needs."""
    missing: tuple[str, str] | None = None
    for home in homes:
        module, _, attribute = home.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        except ImportError as error:
            missing = missing or extra_for(error)
            if missing is None:
                raise
    assert missing is not None
    return _stand_in(name, *missing)


def _stand_in(name: str, library: str, extra: str) -> click.Command:
    @click.command(
        name,
        short_help=f"(needs the extra {extra})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
    @click.pass_context
    def command(ctx: click.Context) -> None:
        raise ConfigError(needs(ctx.command_path, library, extra))

    return command
