"""How much a model file may ask of the machine that builds. It comes from anywhere; the user may raise it."""

from __future__ import annotations

from dataclasses import dataclass

from builder.support.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Attributes:
    max_memory: For the activations of one model, in GB: above what EfficientNetV2-L needs at 480 pixels.
    max_steps: Of all recurrent layers of one model together; each becomes operators of its own.
    """

    max_memory: float = 4.0
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.max_memory < 100_000:
            raise ConfigError(f"max_memory: expected GB above 0, found {self.max_memory}")
        if not 0 < self.max_steps < 1_000_000:
            raise ConfigError(f"max_steps: expected a number of steps from 1, found {self.max_steps}")
