"""The settings that several commands have, each with its type and its description."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from builder.settings.kinds import Flag, SettingPath, Share, one_of
from builder.settings.limits import Gigabytes, Limits, Steps

DEFAULT_MIN_AGREEMENT = 0.97
ROUNDINGS = ("learnt", "bias", "nearest")
MAX_TOLERANCE = 0.01  # beyond it weights are not the same rounded otherwise, but others

MinAgreement = Annotated[Share, Field(description="Least agreement of each head with its original.")]
Samples = Annotated[
    SettingPath,
    Field(description="Folder of pictures or texts; those in a sub-folder named as a head are that head's own."),
]
HeldOut = Annotated[SettingPath, Field(description="Held-out samples to verify with; else a fifth is held out.")]
Report = Annotated[SettingPath, Field(description="Folder of the report; else NAME.report beside the output.")]
Rounding = Annotated[
    str, one_of(ROUNDINGS), Field(description="Weights: learnt from the samples, or to the nearest integer.")
]
Tolerance = Annotated[
    float,
    Strict(),
    Field(
        ge=0,
        le=MAX_TOLERANCE,
        description="Take weights for equal that differ by no more than this share; float16 needs 0.0005.",
    ),
]
AllowCode = Annotated[Flag, Field(description="Run code that a model file brings. Only for files you trust.")]
InferenceMode = Annotated[Flag, Field(description="Layers that a file calls with training=True run as at inference.")]
MaxMemory = Annotated[Gigabytes, Field(description="GB that one model's activations may take.")]
MaxSteps = Annotated[Steps, Field(description="Steps of recurrent layers that one model may have.")]


class WithLimits:
    """A class of settings that has the two of ``Limits``."""

    max_memory: float
    max_steps: int

    @property
    def limits(self) -> Limits:
        return Limits(self.max_memory, self.max_steps)
