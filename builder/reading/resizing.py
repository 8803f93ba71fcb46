"""How pictures become the one size: every source may know how its own were resized, and a file does it in one way."""

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
    """What the device takes. ``sources``: by the names of the heads. Raises ``ConfigError`` where they differ."""
    first = next(iter(sources.values()))
    return first.spec(common_resize(config.resize, sources) if isinstance(first, PictureSourceInput) else DEFAULT)


def common_resize(chosen: ResizeConfig, sources: Mapping[str, SourceInput]) -> ResizeConfig:
    """``chosen``: what the user says for all, key by key; what is left open is as the sources have it, and where all are
    silent as ``DEFAULT``. Raises ``ConfigError``.
    """
    own = _known(chosen, sources)
    trouble = _difference(own)
    if trouble is not None:
        raise ConfigError(trouble)
    return next(iter(own.values()), chosen.over(DEFAULT))


def resize_trouble(sources: Mapping[str, SourceInput]) -> tuple[str, ...]:
    """What a build would say of how ``sources`` resize, an error or warnings."""
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
                f"{one} was trained on pictures resized by {first}, {name} by {other}, and a file prepares pictures in "
                f"one way; choose one: {advice('resize', str(first))} or {advice('resize', str(other))}"
            )
    return None


def resize_notes(chosen: ResizeConfig, sources: Mapping[str, SourceInput]) -> tuple[str, ...]:
    """Sources that are silent beside one that is not: a guess, which is said."""
    own = _own(sources)
    silent = [name for name, resize in own.items() if resize == _SILENT]
    one = next((name for name in own if name not in silent), None)
    if one is None or not silent or chosen != _SILENT:
        return ()
    which = ", ".join(silent) if len(silent) < 7 else f"{', '.join(silent[:5])} and {len(silent) - 5} more"
    return (
        f"nothing says how the pictures of {which} were resized; they are resized as those of {one}, "
        f"{own[one].over(DEFAULT)}. Where that is wrong, say it: {advice('resize', 'METHOD,FIT', head=silent[0])}",
    )


_SILENT = ResizeConfig()


def _own(sources: Mapping[str, SourceInput]) -> dict[str, ResizeConfig]:
    return {name: one.resize for name, one in sources.items() if isinstance(one, PictureSourceInput)}
