"""Limits on the resources that a model file may take while it is read and built: files may come from anyone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from builder.settings.model import settings

Gigabytes = Annotated[float, Strict(), Field(gt=0, lt=100_000)]
Steps = Annotated[int, Strict(), Field(ge=1, lt=1_000_000)]


@settings
class Limits:
    """The limits on one model.

    Attributes:
        max_memory: GB for its activations. The default is more than EfficientNetV2-L needs at 480 pixels.
        max_steps: Steps of all its recurrent layers together; each step becomes separate operators.
    """

    max_memory: Gigabytes = 4.0
    max_steps: Steps = 1000
