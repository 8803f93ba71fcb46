"""Settings that several commands share, each with its type and its description."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from builder.settings.kinds import Flag, SettingPath, Share, one_of
from builder.settings.limits import Gigabytes, Limits, Steps

DEFAULT_MIN_AGREEMENT = 0.97
ROUNDINGS = ("learnt", "bias", "nearest")
MAX_TOLERANCE = 0.01  # rounding explains no larger difference: such weights are different

MinAgreement = Annotated[Share, Field(description="Lowest accepted agreement of each head with its original.")]
Samples = Annotated[
    SettingPath,
    Field(description="Folder of pictures or texts; a sub-folder with the name of a head has that head's samples."),
]
HeldOut = Annotated[
    SettingPath, Field(description="Samples for verification. Default: a fifth of calibration_data is held out.")
]
Report = Annotated[SettingPath, Field(description="Folder of the report. Default: NAME.report beside the output.")]
Rounding = Annotated[
    str,
    one_of(ROUNDINGS),
    Field(description="How weights are rounded: learnt from the samples, or to the nearest integer."),
]
Tolerance = Annotated[
    float,
    Strict(),
    Field(
        ge=0,
        le=MAX_TOLERANCE,
        description="Largest relative difference at which weights count as equal; float16 needs 0.0005.",
    ),
]
AllowCode = Annotated[Flag, Field(description="Allow code in model files to run. Only for files that you trust.")]
InferenceMode = Annotated[Flag, Field(description="Run layers that a file calls with training=True in inference mode.")]
MaxMemory = Annotated[Gigabytes, Field(description="Most memory in GB for the activations of one model.")]
MaxSteps = Annotated[Steps, Field(description="Most steps of recurrent layers in one model.")]


class WithLimits:
    """A class of settings with the two fields of ``Limits``."""

    max_memory: float
    max_steps: int

    @property
    def limits(self) -> Limits:
        return Limits(self.max_memory, self.max_steps)
