"""How much a model file may ask of the machine that builds. It comes from anywhere; the user may raise it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from builder.settings.model import settings

Gigabytes = Annotated[float, Strict(), Field(gt=0, lt=100_000)]
Steps = Annotated[int, Strict(), Field(ge=1, lt=1_000_000)]


@settings
class Limits:
    """Attributes:
    max_memory: For the activations of one model, in GB: above what EfficientNetV2-L needs at 480 pixels.
    max_steps: Of all recurrent layers of one model together; each becomes operators of its own.
    """

    max_memory: Gigabytes = 4.0
    max_steps: Steps = 1000
