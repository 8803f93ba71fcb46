"""How the commands end: what the user got wrong in a line each and an exit code, never in a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from edge_runtime.errors import EdgeRuntimeError
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


def end(ctx: click.Context, message: str, code: int = 2) -> None:
    """Every line of the message, then the exit code."""
    for line in message.split("\n"):
        click.echo(printable("error: {}".format(line)), err=True)
    ctx.exit(code)


def said(error: Exception) -> str:
    """What an error says; of one of the system's the file and the reason, without its number."""
    name = getattr(error, "filename", None)
    if isinstance(error, OSError) and error.strerror and name is not None:
        return "{}: {}".format(os.fsdecode(name) if isinstance(name, (str, bytes)) else name, error.strerror)
    return str(error)
