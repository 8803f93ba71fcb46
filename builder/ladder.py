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

from builder.calibration import Picture, PictureSet
from builder.config import AUTO, RUNGS, BuildConfig
from builder.entry import take_pixels
from builder.errors import ConversionError, TargetError
from builder.flatbuffer import read_parts
from builder.joint import JointHead, NoJoint, fit_joint
from builder.link import LinkedModel, link
from builder.merge import MergedModel
from builder.progress import Stages
from builder.quantize import pixel_range, quantize
from builder.ranges import Range
from builder.rounding import LayerNoise, round_parts
from builder.targets import check_target
from builder.verify import Quality, verify
from builder.versions import min_runtime
from edge_runtime.benchmark import measure
from edge_runtime.bundle import append_members
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.metadata import BACKBONE, HeadInfo, ImageInput, Metadata

_LEARNABLE = ("int8", "int16", "weights")
_ROUNDING_PICTURES = 192  # memory and time grow with them; see docs/how-it-works.md
_LATENCY_RUNS = 15


@dataclass(frozen=True)
class Material:
    """What every rung is made of. ``ranges``: pinned. ``grouped``: pictures for the joint head.

    ``describe``: metadata for what was linked.
    """

    config: BuildConfig
    merged: MergedModel
    float_model: bytes
    ranges: Mapping[str, Range]
    calibration: PictureSet
    verification: PictureSet
    grouped: Sequence[Picture]
    spec: ImageInput
    heads: tuple[HeadInfo, ...]
    describe: Callable[[LinkedModel], Metadata]


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

    def to_json(self) -> dict[str, Any]:
        """As ``report.json`` has it; figures rounded."""
        return {
            "precision": self.precision,
            "bytes": len(self.model),
            "backbone_ms": round(self.backbone_ms, 3),
            "min_runtime": ".".join(map(str, self.linked.min_runtime)),
            **self.quality.to_json(),
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
    for precision in RUNGS if chosen == AUTO else (chosen,):
        try:
            rung = _build(material, precision, draft, stages)
        except (ConversionError, TargetError) as error:
            if precision in (chosen, RUNGS[-1]):
                raise
            tried.append(Skipped(precision, str(error)))
            continue
        tried.append(rung)
        if rung.quality.reaches(material.config.min_agreement):
            break
    return tried


def _build(material: Material, precision: str, draft: Path, stages: Stages) -> Rung:
    config, merged = material.config, material.merged
    with stages("quantize"):
        parts = read_parts(quantize(material.float_model, material.ranges, precision))
        if config.target is not None:
            check_target(config.target, *min_runtime(parts.values()))
    noise: list[LayerNoise] = []
    if config.rounding == "learnt" and precision in _LEARNABLE:
        with stages("round", sum(len(part.operators) for part in parts.values())) as advance:
            images = merged.device_input(material.calibration.pixels[:_ROUNDING_PICTURES])
            noise = round_parts(read_parts(material.float_model), parts, images, advance)
    parts[BACKBONE] = take_pixels(parts[BACKBONE], pixel_range(merged.pixels))
    with stages("joint", len(material.grouped)) as advance:
        joint = fit_joint(config.joint, material.spec, parts, material.heads, material.grouped, advance)
    with stages("link"):
        linked = link(parts, joint.part if isinstance(joint, JointHead) else None)
        metadata = material.describe(linked)
        metadata = replace(metadata, built={"precision": precision, **metadata.built})
        if isinstance(joint, JointHead):
            metadata = replace(metadata, joint=joint.to_json())
    with stages("verify", len(material.verification.pixels)) as advance:
        draft.write_bytes(append_members(linked.model, metadata))
        quality = verify(draft, merged, material.verification, advance)
        latency = backbone_ms(draft, material.verification.pixels[0])
    metadata = replace(metadata, quality=quality.to_json())
    return Rung(precision, linked, metadata, append_members(linked.model, metadata), quality, noise, joint, latency)


def backbone_ms(path: Path, pixels: np.ndarray) -> float:
    """Median milliseconds of the backbone for one picture, 1 thread; ``pixels``: uint8 (height, width, 3)."""
    with MultiHeadClassifier(path, num_threads=1) as classifier:
        times = measure({BACKBONE: lambda: classifier.features_of(pixels[None])}, _LATENCY_RUNS)
    return float(np.median(times[BACKBONE]))


def last_built(tried: Sequence[Rung | Skipped]) -> Rung:
    """The rung to take: ``climb`` ends with one that was built."""
    return next(rung for rung in reversed(tried) if isinstance(rung, Rung))
