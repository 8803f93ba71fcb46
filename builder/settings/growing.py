"""The settings of a change to a finished file."""

from __future__ import annotations

from pathlib import Path

from builder.settings.heads import HeadConfig
from builder.settings.kinds import SettingPath
from builder.settings.limits import Limits
from builder.settings.model import settings
from builder.settings.options import (
    DEFAULT_MIN_AGREEMENT,
    AllowCode,
    HeldOut,
    MaxMemory,
    MaxSteps,
    MinAgreement,
    Report,
    Rounding,
    Samples,
    WithLimits,
)
from builder.support.places import report_folder


@settings
class GrowConfig(WithLimits):
    """Everything that a change to a finished file depends on.

    Attributes:
        file: The finished file.
        output: Where the result is written; this may be the same file.
        report: Folder of the report; None chooses one beside the output.
        calibration_data: Samples with which a new head is quantized and the joint list is fitted again.
        verification_data: Samples for verification; None holds out a fifth of ``calibration_data``.
        head: The new head, if there is one.
    """

    file: SettingPath
    output: SettingPath
    report: Report | None = None
    calibration_data: Samples | None = None
    verification_data: HeldOut | None = None
    head: HeadConfig | None = None
    min_agreement: MinAgreement = DEFAULT_MIN_AGREEMENT
    rounding: Rounding = "learnt"
    max_memory: MaxMemory = Limits.max_memory
    max_steps: MaxSteps = Limits.max_steps
    allow_code: AllowCode = False

    @property
    def report_folder(self) -> Path:
        return self.report or report_folder(self.output)
