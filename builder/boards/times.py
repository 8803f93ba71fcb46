"""The latencies that decide the precision: of a measured board, of a built-in profile, or of this machine."""

from __future__ import annotations

from typing import Protocol

from builder.boards.profile import built_in, read_profile
from builder.quantizing.latency import ThisMachine
from builder.settings.config import BuildConfig
from builder.settings.targets import TARGETS
from builder.tflite.flatbuffer import Part


class Times(Protocol):
    """``name``: of the board. Operators by their ``result_name``, microseconds; backbones milliseconds; one thread."""

    @property
    def name(self) -> str: ...

    def operators(self, part: Part) -> dict[str, float]: ...

    def backbones(self, *parts: Part) -> list[float]: ...

    def conversion_us(self, elements: float) -> float: ...

    def to_json(self) -> dict[str, str]: ...


def times_for(config: BuildConfig) -> Times:
    """The latencies for a build; ``device`` wins over ``target``. Raises ``ConfigError`` where it is no profile."""
    if config.device is not None:
        return read_profile(config.device)
    profile = None if config.target is None else TARGETS[config.target].profile
    return ThisMachine() if profile is None else built_in(profile)
