"""Commands that are imported when they are called: a device has only some of their libraries."""

from __future__ import annotations

from typing import Any

import click

from builder.support.errors import BuilderError, ConfigError
from builder.support.extras import extra_for, needs
from edge_runtime.group import Commands as Group
from edge_runtime.group import Imported as Lazy
from edge_runtime.group import end, imported


class Commands(Group):
    """A group whose commands may also raise ``BuilderError``, or need a library that is not installed."""

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
    """Commands with one or more implementations: where a library is missing, the next implementation is tried."""

    def make(self, name: str, homes: tuple[str, ...]) -> click.Command:
        """The first implementation whose libraries are installed; if none, a command that says what it needs."""
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
