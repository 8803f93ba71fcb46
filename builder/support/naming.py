"""Name a setting in messages: by its TOML key, or by its command-line option."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_options: ContextVar[bool] = ContextVar("options", default=False)


@contextmanager
def as_options() -> Iterator[None]:
    """A context in which settings are named by their options."""
    token = _options.set(True)
    try:
        yield
    finally:
        _options.reset(token)


def head_setting(head: str, key: str) -> str:
    """``heads.cats.labels`` or ``--labels cats``."""
    return f"--{key.replace('_', '-')} {head}" if _options.get() else f"heads.{head}.{key}"


def model_setting(head: str, model: str) -> str:
    """``heads.cats.model: cats.keras`` or ``cats=cats.keras``."""
    return f"{head}={model}" if _options.get() else f"heads.{head}.model: {model}"


def head_bar(head: str) -> str:
    """The setting of a head's bar: ``min_agreement in [heads.cats]`` or ``--min-agreement``."""
    return "--min-agreement" if _options.get() else f"min_agreement in [heads.{head}]"


def setting(key: str) -> str:
    """``text.vocabulary`` or ``--text-vocabulary``."""
    return f"--{key.replace('.', '-').replace('_', '-')}" if _options.get() else key


def advice(key: str, value: str, head: str = "", *, number: bool = False) -> str:
    """How to write a setting: ``preprocessing = "tf"`` or ``--preprocessing cats=tf``; ``value`` as an option has it."""
    if _options.get():
        return f"--{key.replace('_', '-')} {f'{head}=' if head else ''}{value}"
    return f"{key} = {value}" if number else f'{key} = "{value}"'
