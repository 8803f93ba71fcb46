"""How a file resizes pictures: sources may know how theirs were resized, and a file does it in one way."""

from __future__ import annotations

from collections.abc import Mapping

from builder.reading.picture_input import PictureSourceInput
from builder.reading.source_input import SourceInput
from builder.settings.config import BuildConfig
from builder.settings.heads import ResizeConfig
from builder.support.errors import ConfigError
from builder.support.naming import advice
from edge_runtime.inputs import InputSpec

DEFAULT = ResizeConfig("bilinear", True, "stretch")


def input_spec(config: BuildConfig, sources: Mapping[str, SourceInput]) -> InputSpec:
    """The device's input. ``sources``: by head name. Raises ``ConfigError`` where they differ."""
    first = next(iter(sources.values()))
    return first.spec(common_resize(config.resize, sources) if isinstance(first, PictureSourceInput) else DEFAULT)


def common_resize(chosen: ResizeConfig, sources: Mapping[str, SourceInput]) -> ResizeConfig:
    """The resizing of a file: the keys that the user set in ``chosen``, the others as the sources have them, else as in
    ``DEFAULT``. Raises ``ConfigError`` where sources differ.
    """
    own = _known(chosen, sources)
    trouble = _difference(own)
    if trouble is not None:
        raise ConfigError(trouble)
    return next(iter(own.values()), chosen.over(DEFAULT))


def resize_trouble(sources: Mapping[str, SourceInput]) -> tuple[str, ...]:
    """The error or the warnings that a build would give about the resizing of ``sources``."""
    trouble = _difference(_known(_SILENT, sources))
    return (trouble,) if trouble is not None else resize_notes(_SILENT, sources)


def _known(chosen: ResizeConfig, sources: Mapping[str, SourceInput]) -> dict[str, ResizeConfig]:
    return {name: chosen.over(resize).over(DEFAULT) for name, resize in _own(sources).items() if resize != _SILENT}


def _difference(known: Mapping[str, ResizeConfig]) -> str | None:
    pairs = list(known.items())
    for name, other in pairs[1:]:
        one, first = pairs[0]
        if other != first:
            return (
                f"{one} was trained on pictures resized by {first}, {name} by {other}, but a file resizes pictures in "
                f"one way; choose one: {advice('resize', str(first))} or {advice('resize', str(other))}"
            )
    return None


def resize_notes(chosen: ResizeConfig, sources: Mapping[str, SourceInput]) -> tuple[str, ...]:
    """A note for sources of unknown resizing beside one of known resizing: the former are assumed to be like it."""
    own = _own(sources)
    silent = [name for name, resize in own.items() if resize == _SILENT]
    one = next((name for name in own if name not in silent), None)
    if one is None or not silent or chosen != _SILENT:
        return ()
    which = ", ".join(silent) if len(silent) < 7 else f"{', '.join(silent[:5])} and {len(silent) - 5} more"
    return (
        f"it is unknown how the pictures of {which} were resized; they are resized like those of {one}, "
        f"{own[one].over(DEFAULT)}. If that is wrong, set it: {advice('resize', 'METHOD,FIT', head=silent[0])}",
    )


_SILENT = ResizeConfig()


def _own(sources: Mapping[str, SourceInput]) -> dict[str, ResizeConfig]:
    return {name: one.resize for name, one in sources.items() if isinstance(one, PictureSourceInput)}
