"""Try precisions, from the smallest to the most accurate, until the finished file agrees with its originals.

Each is built completely (quantize, round, joint, link) and verified by running its bytes. ``auto`` takes the first that
passes; a named precision is the only one tried. The report has the results of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.candidates import Candidates, QuantizedParts
from builder.joint import JointHead
from builder.judging.verify import Quality, verify
from builder.material import Material
from builder.quantizing.mixed import Plan
from builder.quantizing.noise import LayerNoise
from builder.quantizing.quantize import quantize
from builder.reporting.words import milliseconds
from builder.settings.config import DYNAMIC, MIXED, OWN
from builder.support.errors import ConversionError, TargetError
from builder.support.progress import Stages
from builder.tflite.flatbuffer import read_parts
from builder.tflite.link import LinkedModel, link
from builder.tflite.pixel_input import take_pixels
from edge_runtime.bundle import append_members
from edge_runtime.errors import InterpreterError
from edge_runtime.metadata import BACKBONE, Metadata


@dataclass(frozen=True)
class BuiltPrecision:
    """One precision, built and measured.

    ``model``: the finished file. ``backbone_ms``: latency of the backbone for one picture, 1 thread, on the board that
    the file is for; infinite where its profile has none. ``float_ms``: of the float backbone.
    """

    precision: str
    linked: LinkedModel
    metadata: Metadata
    model: bytes
    quality: Quality
    noise: Sequence[LayerNoise]
    joint: JointHead | None
    joint_reason: str
    backbone_ms: float
    float_ms: float
    plan: Plan | None = None
    float_heads: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The precision, and the heads that compute in float nevertheless."""
        return f"{self.precision}, {', '.join(self.float_heads)} in float" if self.float_heads else self.precision

    def to_json(self) -> dict[str, Any]:
        """The entry in ``report.json``; figures rounded."""
        return {
            "precision": self.precision,
            "bytes": len(self.model),
            "backbone_ms": round(self.backbone_ms, 3) if math.isfinite(self.backbone_ms) else None,
            "float_ms": round(self.float_ms, 3),
            "min_runtime": ".".join(map(str, self.linked.min_runtime)),
            **self.quality.to_json(),
            **({} if self.plan is None else self.plan.to_json()),
            **({"float_heads": list(self.float_heads)} if self.float_heads else {}),
        }


@dataclass(frozen=True)
class SkippedPrecision:
    """A precision that was skipped, and the reason."""

    precision: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"precision": self.precision, "skipped": self.reason}


def try_precisions(material: Material, draft: Path, stages: Stages) -> list[BuiltPrecision | SkippedPrecision]:
    """Build one precision after the other until one passes; the last one in the list is the result.

    ``draft``: a path to write files to for verification. Raises ``BuilderError`` where a named precision, or every one,
    is impossible.
    """
    tried: list[BuiltPrecision | SkippedPrecision] = []
    candidates, bar = Candidates(material, stages), material.config.min_agreement
    for precision in material.config.precisions:
        before = len(tried)
        try:
            stages.precision = precision
            if precision in ("int16", DYNAMIC) and len(material.config.precisions) > 1:
                _check_quicker_than_float(material, precision)
            for candidate in candidates.of(precision, _failed(tried[0], bar) if tried else ()):
                for attempt in _attempts(material, precision, candidates, candidate, tried):
                    built = _finish(material, precision, attempt, draft, stages)
                    tried.append(built)
                    if built.quality.reaches(bar):
                        if precision == MIXED and len(material.config.precisions) > 1:
                            _try_dynamic(material, candidates, attempt, tried, draft, stages)
                        return tried
        except (ConversionError, TargetError) as error:
            if len(tried) > before:
                continue
            if precision == material.config.precisions[-1]:
                raise
            tried.append(SkippedPrecision(precision, str(error)))
    return tried


def _failed(built: BuiltPrecision | SkippedPrecision, min_agreement: float) -> list[str]:
    """The names of the heads that do not pass."""
    heads = built.quality.heads if isinstance(built, BuiltPrecision) else ()
    return [head.head_name for head in heads if not head.passes(min_agreement)]


def _try_dynamic(
    material: Material,
    candidates: Candidates,
    mixed: QuantizedParts,
    tried: list[BuiltPrecision | SkippedPrecision],
    draft: Path,
    stages: Stages,
) -> None:
    """Try dynamic too, if it is faster than the ``mixed`` precision at the end of ``tried``, which passed. The result is
    at the end of ``tried`` afterwards.
    """
    stages.precision = DYNAMIC
    try:
        (dynamic,) = candidates.of(DYNAMIC)
    except (ConversionError, TargetError):
        return
    own_ms, mixed_ms = material.times.backbones(dynamic.parts[BACKBONE], mixed.parts[BACKBONE])
    if own_ms < mixed_ms:
        built = _finish(material, DYNAMIC, dynamic, draft, stages)
        passes = built.quality.reaches(material.config.min_agreement)
        tried.insert(len(tried) if passes else len(tried) - 1, built)


def _attempts(
    material: Material,
    precision: str,
    candidates: Candidates,
    candidate: QuantizedParts,
    tried: Sequence[BuiltPrecision | SkippedPrecision],
) -> Iterator[QuantizedParts]:
    """Yield the candidate, and then, if only some heads fail in int8, the same with those heads in float. ``tried``: must
    end with the first candidate when the second is requested.
    """
    yield candidate
    if precision != "int8" or material.config.algorithm != OWN:
        return
    failed = _failed(tried[-1], material.config.min_agreement)
    if failed and len(failed) < len(material.heads):
        yield candidates.with_float_heads(candidate, failed)


def _finish(material: Material, precision: str, candidate: QuantizedParts, draft: Path, stages: Stages) -> BuiltPrecision:
    merged = material.merged
    span, floating = merged.source_input.input_range, read_parts(material.calibrated.prepared.floating)[BACKBONE]
    parts = {**candidate.parts, BACKBONE: take_pixels(candidate.parts[BACKBONE], span)}
    joint, joint_reason = None, material.joint.impossible(parts)
    if not joint_reason:
        with stages("joint", len(material.samples.grouped)) as advance:
            joint, joint_reason = material.joint(parts, advance)
    with stages("link"):
        linked = link(parts, None if joint is None else joint.part)
        metadata = material.metadata(linked, precision, candidate.float_heads)
        if joint is not None:
            metadata = replace(metadata, joint=joint.to_json())
    with stages("verify", len(material.samples.verification.tensors)) as advance:
        draft.write_bytes(append_members(linked.model, metadata))
        try:
            quality = verify(draft, material.samples.verification, material.expected, advance)
        except InterpreterError as error:
            raise ConversionError(str(error).removeprefix(f"{draft}: ")) from error
    metadata = replace(metadata, quality=quality.to_json())
    model = append_members(linked.model, metadata)
    own_ms, float_ms = material.times.backbones(parts[BACKBONE], take_pixels(floating, span))
    return BuiltPrecision(
        precision,
        linked,
        metadata,
        model,
        quality,
        candidate.noise,
        joint,
        joint_reason,
        own_ms,
        float_ms,
        candidate.plan,
        candidate.float_heads,
    )


def _check_quicker_than_float(material: Material, precision: str) -> None:
    """Raises ``ConversionError`` for a precision slower than float with int8 weights, which has the same size.

    Such a precision is only useful on special hardware.
    """
    calibrated = material.calibrated
    models = [quantize(calibrated.prepared.of(p), calibrated.ranges, p) for p in (precision, "float")]
    own, floating = material.times.backbones(*(read_parts(model)[BACKBONE] for model in models))
    if math.isinf(own):
        raise ConversionError(f"{material.times.name} has no latencies for it; set precision to use it")
    if own > floating:
        raise ConversionError(
            f"slower than float on {material.times.name} ({milliseconds(own)} against {milliseconds(floating)}); "
            "set precision to use it"
        )


def last_built(tried: Sequence[BuiltPrecision | SkippedPrecision]) -> BuiltPrecision:
    """The resulting precision: ``try_precisions`` ends with one that was built."""
    return next(built for built in reversed(tried) if isinstance(built, BuiltPrecision))
