"""Commands that are imported when they are asked for: a device has some of their libraries and not all."""

from __future__ import annotations

from typing import Any

import click

from builder.support.errors import BuilderError, ConfigError
from builder.support.extras import extra_for, needs
from edge_runtime.group import Commands as Group
from edge_runtime.group import Imported as Lazy
from edge_runtime.group import end, imported


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


class Imported(Lazy):
    """Of several homes of a command the next is tried where a library is missing."""

    def make(self, name: str, homes: tuple[str, ...]) -> click.Command:
        """From the first home whose libraries are there; without any, a command that says what it needs."""
        missing: tuple[str, str] | None = None
        for home in homes:
            try:
                return imported(home)
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
