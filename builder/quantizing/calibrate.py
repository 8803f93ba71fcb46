"""Make the float model ready for quantization: prepare it (``prepare.py``), and measure the range of every activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.merging.merged import Merged
from builder.quantizing import prepare
from builder.quantizing.coverage import SAMPLES, beyond_calibration
from builder.quantizing.prepare import Prepared
from builder.quantizing.quantize import pin
from builder.quantizing.ranges import HEAD_SAMPLES, measure_ranges
from builder.samples.gathered import Samples
from builder.settings.config import OWN, SAMPLE_FREE, BuildConfig
from builder.support.progress import Stages
from builder.tflite.parts import Range


@dataclass(frozen=True)
class Calibrated:
    """``prepared``: the float network. ``ranges``: of ``prepared.integer``, by tensor name, pinned at the input; empty
    where no precision with integer activations is to be tried. ``beyond``: how far verification samples lie outside the
    ranges of the calibration samples, see ``coverage``.
    """

    prepared: Prepared
    ranges: Mapping[str, Range]
    beyond: float


def calibrate(config: BuildConfig, merged: Merged, float_model: bytes, samples: Samples, stages: Stages) -> Calibrated:
    """``float_model``: the merged model with the signatures of ``merging.convert``."""
    own, source = config.algorithm == OWN, merged.source_input
    integer = not set(config.precisions) <= set(SAMPLE_FREE)
    inputs, held_out = (
        source.device_input(s.tensors) for s in (samples.calibration, samples.verification.first(SAMPLES))
    )
    found = Prepared(float_model, float_model)
    if config.equalize and own:
        with stages("equalize", min(len(inputs), prepare.SAMPLES)) as advance:
            found = prepare.prepared(float_model, inputs, source.input_range, advance, integer=integer)
    ranges: Mapping[str, Range] = {}
    if integer:
        estimate, heads = config.ranges if own else "minmax", merged.heads
        with stages("calibrate", len(inputs) + min(len(inputs), HEAD_SAMPLES) * len(heads)) as advance:
            ranges = measure_ranges(found.integer, inputs, heads, advance, estimate=estimate)
        ranges = pin(found.integer, ranges, source.input_range)
    with stages("compare", min(len(inputs), SAMPLES) + len(held_out)) as advance:
        beyond = beyond_calibration(found.floating, inputs, held_out, advance)
    return Calibrated(found, ranges, beyond)
