"""Command-line options, made from the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from builder.settings.config import BuildConfig
from builder.settings.heads import HeadConfig
from builder.settings.reference import Setting, all_settings, settings_of

SETTINGS = {key: setting for key, setting in all_settings(BuildConfig) if not key.startswith("heads")}
HEAD_SETTINGS = {key: setting for key, setting in settings_of(HeadConfig).items() if key != "model"}
# Each key of a table is an option: ``--text-vocabulary``. These tables and keys have a short option.
WHOLE = {"resize": "resize", "joint.enabled": "joint"}
Decorator = Callable[[Any], Any]


def setting_options(cls: Any, *, without: Sequence[str] = ()) -> Decorator:
    """Options for a class of settings. In a build, a setting that a single head may have too is ``[NAME=]VALUE``."""
    known = {key: setting for key, setting in all_settings(cls) if not key.startswith("head")}

    def decorate(command: Any) -> Any:
        for key, setting in reversed(known.items()):
            if _is_option(key, setting) and key not in without:
                command = _option(key, setting, of_head=cls is BuildConfig and key in HEAD_SETTINGS)(command)
        return command

    return decorate


def head_options(*keys: str, of_several: bool = True) -> Decorator:
    """Options for these settings of heads. ``of_several``: ``NAME=VALUE`` sets one head, ``VALUE`` all of them."""

    def decorate(command: Any) -> Any:
        for key in reversed(keys):
            command = _option(key, HEAD_SETTINGS[key], of_head=of_several)(command)
        return command

    return decorate


def _is_option(key: str, setting: Setting) -> bool:
    """Whether the setting has an option: the keys of a table have, the table itself has not, but for ``WHOLE``."""
    return setting.table is None if key.partition(".")[0] not in WHOLE else key in WHOLE


def _option(key: str, setting: Setting, *, of_head: bool) -> Decorator:
    name = WHOLE.get(key, key).replace(".", "-").replace("_", "-")
    default = "" if setting.default in (None, False) or setting.table else f"  [default: {setting.default}]"
    if bool in setting.types:
        both = f"--{name}/--no-{name}" if setting.default is not False else f"--{name}"
        return click.option(both, key.replace(".", "__"), is_flag=True, default=None, help=setting.help)
    return click.option(
        f"--{name}",
        key.replace(".", "__"),
        metavar=f"{'[NAME=]' if of_head else ''}{_metavar(setting)}",
        multiple=of_head,
        help=setting.help + default,
    )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    if setting.expected.startswith("one of "):
        return "HOW"
    kinds = {Path: "PATH", float: "NUMBER", int: "NUMBER", str: "TEXT"}
    return "HOW" if setting.table else next((kinds[kind] for kind in setting.types if kind in kinds), "VALUE")
