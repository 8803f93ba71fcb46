"""Commands are imported when they are called. Mistakes of the user end them with a line each and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Dict, Iterator, Mapping, MutableMapping, Tuple

import click

from edge_runtime.errors import EdgeRuntimeError, said
from edge_runtime.escape import printable


class Commands(click.Group):
    """A group whose commands may raise ``EdgeRuntimeError`` and ``OSError``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (EdgeRuntimeError, OSError) as error:
            if isinstance(error, BrokenPipeError):  # the reader of our output has gone: nothing is wrong
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(0)
            end(ctx, said(error))


class Imported(MutableMapping[str, click.Command]):
    """``homes``: for each command the module and the name in it, as ``module:name``."""

    def __init__(self, homes: Mapping[str, Tuple[str, ...]]) -> None:
        self._homes = dict(homes)
        self._made: Dict[str, click.Command] = {}

    def make(self, name: str, homes: Tuple[str, ...]) -> click.Command:
        """Import it from the first of ``homes``."""
        return imported(homes[0])

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._made:
            self._made[name] = self.make(name, self._homes[name])
        return self._made[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._homes[name], self._made[name] = (), command

    def __delitem__(self, name: str) -> None:
        del self._homes[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def imported(home: str) -> click.Command:
    """The command at ``module:name``."""
    module, _, name = home.partition(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    return command


def end(ctx: click.Context, message: str, code: int = 2) -> None:
    """Every line of the message, then the exit code."""
    for line in message.split("\n"):
        click.echo(printable("error: {}".format(line)), err=True)
    ctx.exit(code)
