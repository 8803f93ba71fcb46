"""What the user chose for a change of a finished file."""

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
    """``file``: what is changed. ``output``: where the result goes, perhaps the same file.

    ``calibration_data``: pictures or texts that a new head is quantized with, and the joint list fitted again; without
    ``verification_data`` a fifth of them is held out. ``head``: the new head.
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
