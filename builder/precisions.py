"""Try precisions, from the smallest to the most accurate, until the finished file agrees with its originals.

Each is built completely (quantize, round, joint, link) and verified by running its bytes. ``auto`` takes the first that
passes; a named precision is the only one tried. The report has the results of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.joint import JointHead
from builder.judging.foresee import Foresight
from builder.judging.verify import HeadQuality, Quality, verify
from builder.material import Material
from builder.quantizing.baselines import baseline_int8
from builder.quantizing.learn_layer import Learning
from builder.quantizing.mixed import Plan, plans
from builder.quantizing.noise import LayerNoise
from builder.quantizing.quantize import LEARNABLE, quantize
from builder.quantizing.rounding import ROUNDING_SAMPLES, measure_noise, round_parts
from builder.settings.config import DYNAMIC, MIXED, OWN
from builder.settings.targets import check_target
from builder.support.errors import ConversionError, TargetError
from builder.support.progress import Stages
from builder.tflite.flatbuffer import Part, operator_name, read_parts
from builder.tflite.link import LinkedModel, link
from builder.tflite.pixel_input import take_pixels
from builder.tflite.splice import result_name, splice
from builder.tflite.versions import min_runtime
from edge_runtime.bundle import append_members
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
    made: dict[str, QuantizedParts] = {}
    for precision in material.config.precisions:
        before = len(tried)
        try:
            stages.precision = precision
            if precision in ("int16", DYNAMIC) and len(material.config.precisions) > 1:
                _check_quicker_than_float(material, precision)
            for candidate in _candidates(material, precision, made, tried, stages):
                for attempt in _attempts(material, precision, candidate, tried):
                    built = _finish(material, precision, attempt, draft, stages)
                    tried.append(built)
                    if built.quality.reaches(material.config.min_agreement):
                        if precision == MIXED and len(material.config.precisions) > 1:
                            _try_dynamic(material, attempt, tried, draft, stages)
                        return tried
        except (ConversionError, TargetError) as error:
            if len(tried) > before:
                continue
            if precision == material.config.precisions[-1]:
                raise
            tried.append(SkippedPrecision(precision, str(error)))
    return tried


def _try_dynamic(
    material: Material,
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
        dynamic = _quantized(material, DYNAMIC, stages)
    except (ConversionError, TargetError):
        return
    own_ms, mixed_ms = material.times.backbones(dynamic.parts[BACKBONE], mixed.parts[BACKBONE])
    if own_ms < mixed_ms:
        built = _finish(material, DYNAMIC, dynamic, draft, stages)
        passes = built.quality.reaches(material.config.min_agreement)
        tried.insert(len(tried) if passes else len(tried) - 1, built)


@dataclass(frozen=True)
class QuantizedParts:
    """Backbone and heads in one precision, with final weights; the noise after each operator of the backbone."""

    parts: Mapping[str, Part]
    noise: Sequence[LayerNoise]
    plan: Plan | None = None
    float_heads: tuple[str, ...] = ()


def _attempts(
    material: Material, precision: str, candidate: QuantizedParts, tried: Sequence[BuiltPrecision | SkippedPrecision]
) -> Iterator[QuantizedParts]:
    """Yield the candidate, and then, if only some heads fail in int8, the same with those heads in float, so that the
    shared backbone stays int8. ``tried``: must end with the first candidate when the second is requested.
    """
    yield candidate
    last = tried[-1]
    if precision != "int8" or material.config.algorithm != OWN or not isinstance(last, BuiltPrecision):
        return
    failed = [q.head_name for q in last.quality.heads if not q.passes(material.config.min_agreement)]
    if not failed or len(failed) == len(last.quality.heads):
        return
    calibrated = material.calibrated
    floating = read_parts(quantize(calibrated.model, calibrated.ranges, "weights"))
    heads = {name: _in_float(candidate.parts[name], floating[name]) for name in failed}
    yield replace(candidate, parts={**candidate.parts, **heads}, float_heads=tuple(failed))


def _in_float(head: Part, floating: Part) -> Part:
    """An int8 head that computes in float up to its logits; its inputs and outputs stay int8."""
    inside = [op for op in head.operators if operator_name(head, op) not in ("SOFTMAX", "LOGISTIC")]
    return splice(head, floating, [result_name(head, op) for op in inside])


def _candidates(
    material: Material,
    precision: str,
    made: dict[str, QuantizedParts],
    tried: Sequence[BuiltPrecision | SkippedPrecision],
    stages: Stages,
) -> Iterator[QuantizedParts]:
    """Yield the candidates of a precision; those of mixed have more and more float operators.

    ``made``: the candidates of other precisions, which mixed needs too, so that each is quantized once.
    """
    if precision == MIXED:
        yield from _mixed(material, made, tried, stages)
    else:
        yield _once(material, precision, made, stages)


def _once(material: Material, precision: str, made: dict[str, QuantizedParts], stages: Stages) -> QuantizedParts:
    if precision not in made:
        made[precision] = _quantized(material, precision, stages)
    return made[precision]


def _quantized(material: Material, precision: str, stages: Stages) -> QuantizedParts:
    algorithm = material.config.algorithm
    with stages("quantize"):
        if algorithm == OWN:
            parts = read_parts(quantize(material.calibrated.model, material.calibrated.ranges, precision))
        else:
            parts = read_parts(baseline_int8(material.calibrated.model, material.calibrated.ranges, algorithm))
        if material.config.target is not None:
            check_target(material.config.target, *min_runtime(parts.values()))
    learnt = algorithm == OWN and precision in LEARNABLE
    return _rounded(material, parts, stages) if learnt else QuantizedParts(parts, [])


def _mixed(
    material: Material,
    made: dict[str, QuantizedParts],
    tried: Sequence[BuiltPrecision | SkippedPrecision],
    stages: Stages,
) -> Iterator[QuantizedParts]:
    """Yield candidates in mixed precision; the heads stay int8.

    Operators are chosen for the heads that failed in int8, or for all where it was not tried.
    """
    int8, weights = (_once(material, precision, made, stages) for precision in ("int8", "weights"))
    calibrated, samples, bar = material.calibrated, material.samples.calibration, material.config.min_agreement
    float_parts, inputs = read_parts(calibrated.model), material.inputs(len(samples.tensors))
    failed = [q.head_name for built in tried[:1] for q in _heads(built) if not q.passes(bar)]
    aimed = {name: part for name, part in float_parts.items() if not failed or name in (BACKBONE, *failed)}
    with stages("noise", len(int8.parts[BACKBONE].operators)) as advance:
        noise = measure_noise(aimed, int8.parts[BACKBONE], inputs, advance)
    bars = material.expected.bars
    judge = Foresight(float_parts, int8.parts, material.heads, samples, inputs, first=failed, bars=bars)
    found = plans(float_parts, int8.parts, weights.parts[BACKBONE], noise, judge, bar, material.times)
    while True:
        with stages("plan"):
            plan = next(found, None)
        if plan is None:
            return
        parts, unlearnt = (read_parts(quantize(calibrated.model, calibrated.ranges, p)) for p in ("int8", "weights"))
        parts[BACKBONE] = splice(parts[BACKBONE], unlearnt[BACKBONE], plan.layers)
        yield replace(_rounded(material, parts, stages), plan=plan)


def _heads(built: BuiltPrecision | SkippedPrecision) -> Sequence[HeadQuality]:
    return built.quality.heads if isinstance(built, BuiltPrecision) else ()


def _rounded(material: Material, parts: dict[str, Part], stages: Stages) -> QuantizedParts:
    if material.config.rounding == "nearest":
        return QuantizedParts(parts, [])
    with stages("round", sum(len(part.operators) for part in parts.values())) as advance:
        learning = Learning(weights=material.config.rounding == "learnt", refit=material.config.refit)
        inputs = material.inputs(ROUNDING_SAMPLES)
        noise = round_parts(read_parts(material.calibrated.model), parts, inputs, advance, learning=learning)
    return QuantizedParts(parts, noise)


def _finish(material: Material, precision: str, candidate: QuantizedParts, draft: Path, stages: Stages) -> BuiltPrecision:
    merged = material.merged
    span, floating = merged.source_input.input_range, read_parts(material.calibrated.model)[BACKBONE]
    parts = {**candidate.parts, BACKBONE: take_pixels(candidate.parts[BACKBONE], span)}
    with stages("joint", len(material.samples.grouped)) as advance:
        joint, joint_reason = material.joint(parts, advance)
    with stages("link"):
        linked = link(parts, None if joint is None else joint.part)
        metadata = material.metadata(linked, precision, candidate.float_heads)
        if joint is not None:
            metadata = replace(metadata, joint=joint.to_json())
    with stages("verify", len(material.samples.verification.tensors)) as advance:
        draft.write_bytes(append_members(linked.model, metadata))
        quality = verify(draft, material.samples.verification, material.expected, advance)
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
    models = [quantize(material.calibrated.model, material.calibrated.ranges, p) for p in (precision, "float")]
    own, floating = material.times.backbones(*(read_parts(model)[BACKBONE] for model in models))
    if math.isinf(own):
        raise ConversionError(f"{material.times.name} has no latencies for it; set precision to use it")
    if own > floating:
        raise ConversionError(
            f"slower than float on {material.times.name} ({own:.1f} ms against {floating:.1f}); set precision to use it"
        )


def last_built(tried: Sequence[BuiltPrecision | SkippedPrecision]) -> BuiltPrecision:
    """The resulting precision: ``try_precisions`` ends with one that was built."""
    return next(built for built in reversed(tried) if isinstance(built, BuiltPrecision))
