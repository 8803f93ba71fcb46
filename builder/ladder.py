"""From the smallest precision to the most exact, until the finished file agrees with its originals.

A rung is built whole (quantize, round, joint, link) and judged by running its bytes. ``auto`` takes the first that
passes; a rung by name is the only one. What each reached goes into the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.calibration import SampleSet
from builder.config import AUTO, ISLANDS, RUNGS, BuildConfig
from builder.errors import ConversionError, TargetError
from builder.flatbuffer import Part, read_parts
from builder.front import take_pixels
from builder.islands import splice
from builder.joint import JointHead, NoJoint, fit_joint
from builder.latency import backbone_ms
from builder.link import LinkedModel, link
from builder.merge import MergedModel
from builder.noise import LayerNoise
from builder.plan import Plan, plan_islands
from builder.progress import Stages
from builder.quantize import LEARNABLE, quantize
from builder.ranges import Range
from builder.rounding import ROUNDING_SAMPLES, round_parts
from builder.samples import Sample
from builder.targets import check_target
from builder.verify import Quality, verify
from builder.versions import min_runtime
from edge_runtime.bundle import append_members
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import BACKBONE, HeadInfo, Metadata


@dataclass(frozen=True)
class Material:
    """What every rung is made of. ``ranges``: pinned. ``grouped``: samples for the joint head.

    ``describe``: metadata for what was linked.
    """

    config: BuildConfig
    merged: MergedModel
    float_model: bytes
    ranges: Mapping[str, Range]
    calibration: SampleSet
    verification: SampleSet
    grouped: Sequence[Sample]
    spec: InputSpec
    heads: tuple[HeadInfo, ...]
    describe: Callable[[LinkedModel], Metadata]

    def inputs(self, most: int) -> np.ndarray:
        """Calibration samples (samples, ...) as the float model's ``image`` or ``tokens`` takes them."""
        return self.merged.entry.device_input(self.calibration.tensors[:most])


@dataclass(frozen=True)
class Rung:
    """One precision, built and measured.

    ``model``: the finished file. ``backbone_ms``: median of one picture, 1 thread, on the machine that built it.
    """

    precision: str
    linked: LinkedModel
    metadata: Metadata
    model: bytes
    quality: Quality
    noise: Sequence[LayerNoise]
    joint: JointHead | NoJoint
    backbone_ms: float
    plan: Plan | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``report.json`` has it; figures rounded."""
        return {
            "precision": self.precision,
            "bytes": len(self.model),
            "backbone_ms": round(self.backbone_ms, 3),
            "min_runtime": ".".join(map(str, self.linked.min_runtime)),
            **self.quality.to_json(),
            **({} if self.plan is None else self.plan.to_json()),
        }


@dataclass(frozen=True)
class Skipped:
    """A rung that cannot be had, and why."""

    precision: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"precision": self.precision, "skipped": self.reason}


def climb(material: Material, draft: Path, stages: Stages) -> list[Rung | Skipped]:
    """Build rung after rung until one passes; the last of the list is the one to take.

    ``draft``: where a file can be written to be judged. Raises ``BuilderError`` where a rung that was asked for by name
    cannot be had, or none can.
    """
    chosen = material.config.precision
    tried: list[Rung | Skipped] = []
    int8: Weighed | None = None
    for precision in RUNGS if chosen == AUTO else (chosen,):
        try:
            if chosen == AUTO and precision == "int16":
                _check_quicker_than_float(material)
            if precision == ISLANDS:
                weighed = _with_islands(material, int8 or _weigh(material, "int8", stages), stages)
            else:
                weighed = _weigh(material, precision, stages)
            rung = _finish(material, precision, weighed, draft, stages)
        except (ConversionError, TargetError) as error:
            if precision in (chosen, RUNGS[-1]):
                raise
            tried.append(Skipped(precision, str(error)))
            continue
        int8 = weighed if precision == "int8" else int8
        tried.append(rung)
        if rung.quality.reaches(material.config.min_agreement):
            break
    return tried


@dataclass(frozen=True)
class Weighed:
    """Backbone and heads in one precision, their weights settled; the noise behind each operator of the backbone."""

    parts: Mapping[str, Part]
    noise: Sequence[LayerNoise]
    plan: Plan | None = None


def _weigh(material: Material, precision: str, stages: Stages) -> Weighed:
    with stages("quantize"):
        parts = read_parts(quantize(material.float_model, material.ranges, precision))
        if material.config.target is not None:
            check_target(material.config.target, *min_runtime(parts.values()))
    return _rounded(material, parts, stages) if precision in LEARNABLE else Weighed(parts, [])


def _with_islands(material: Material, int8: Weighed, stages: Stages) -> Weighed:
    """The heads stay int8."""
    float_parts = read_parts(material.float_model)
    twin = read_parts(quantize(material.float_model, material.ranges, "weights"))[BACKBONE]
    inputs = material.inputs(len(material.calibration.tensors))
    with stages("plan", len(float_parts[BACKBONE].operators)) as advance:
        plan = plan_islands(float_parts, int8.parts, twin, inputs, material.config.min_agreement, advance)
    parts = read_parts(quantize(material.float_model, material.ranges, "int8"))
    parts[BACKBONE] = splice(parts[BACKBONE], twin, plan.layers)
    return replace(_rounded(material, parts, stages), plan=plan)


def _rounded(material: Material, parts: dict[str, Part], stages: Stages) -> Weighed:
    if material.config.rounding == "nearest":
        return Weighed(parts, [])
    with stages("round", sum(len(part.operators) for part in parts.values())) as advance:
        inputs, bias_only = material.inputs(ROUNDING_SAMPLES), material.config.rounding == "bias"
        noise = round_parts(read_parts(material.float_model), parts, inputs, advance, bias_only=bias_only)
    return Weighed(parts, noise)


def _finish(material: Material, precision: str, weighed: Weighed, draft: Path, stages: Stages) -> Rung:
    config, merged = material.config, material.merged
    parts = {**weighed.parts, BACKBONE: take_pixels(weighed.parts[BACKBONE], merged.entry.input_range)}
    with stages("joint", len(material.grouped)) as advance:
        joint = fit_joint(config.joint, material.spec, parts, material.heads, material.grouped, advance)
    with stages("link"):
        linked = link(parts, joint.part if isinstance(joint, JointHead) else None)
        metadata = material.describe(linked)
        metadata = replace(metadata, built={"precision": precision, **metadata.built})
        if isinstance(joint, JointHead):
            metadata = replace(metadata, joint=joint.to_json())
    with stages("verify", len(material.verification.tensors)) as advance:
        draft.write_bytes(append_members(linked.model, metadata))
        quality = verify(draft, merged, material.verification, advance)
    metadata = replace(metadata, quality=quality.to_json())
    model = append_members(linked.model, metadata)
    (latency,) = backbone_ms(parts[BACKBONE])
    return Rung(precision, linked, metadata, model, quality, weighed.noise, joint, latency, weighed.plan)


def _check_quicker_than_float(material: Material) -> None:
    """What is as large as int8 weights, and slower than they are in float, is of use to special hardware alone.

    Raises ``ConversionError``.
    """
    models = [quantize(material.float_model, material.ranges, precision) for precision in ("int16", "float")]
    int16, floating = backbone_ms(*(read_parts(model)[BACKBONE] for model in models))
    if int16 > floating:
        raise ConversionError(f"slower than float here ({int16:.1f} ms against {floating:.1f}); to be had by its name")


def last_built(tried: Sequence[Rung | Skipped]) -> Rung:
    """The rung to take: ``climb`` ends with one that was built."""
    return next(rung for rung in reversed(tried) if isinstance(rung, Rung))
