"""A backbone and its heads in each precision, with final weights, ready to be linked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.judging.foresee import Foresight
from builder.material import Material
from builder.quantizing.baselines import baseline_int8
from builder.quantizing.learn_layer import Learning
from builder.quantizing.mixed import Plan, plans
from builder.quantizing.noise import LayerNoise
from builder.quantizing.quantize import LEARNABLE, quantize
from builder.quantizing.rounding import ROUNDING_SAMPLES, measure_noise, round_parts
from builder.settings.config import MIXED, OWN
from builder.settings.targets import check_target
from builder.support.progress import Stages
from builder.tflite.flatbuffer import Part, operator_name, read_parts
from builder.tflite.splice import result_name, splice
from builder.tflite.versions import min_runtime
from edge_runtime.metadata import BACKBONE


@dataclass(frozen=True)
class QuantizedParts:
    """Backbone and heads in one precision, with final weights; the noise after each operator of the backbone."""

    parts: Mapping[str, Part]
    noise: Sequence[LayerNoise]
    plan: Plan | None = None
    float_heads: tuple[str, ...] = ()


class Candidates:
    """Makes the candidates of every precision; each precision but mixed is quantized once."""

    def __init__(self, material: Material, stages: Stages) -> None:
        self._material, self._stages = material, stages
        self._made: dict[tuple[str, bytes], QuantizedParts] = {}

    def of(self, precision: str, failed: Sequence[str] = ()) -> Iterator[QuantizedParts]:
        """Yield the candidates of a precision; those of mixed have more and more float operators.

        ``failed``: the heads that failed in int8, for which mixed chooses operators; all if there are none.
        """
        if precision == MIXED:
            yield from self._mixed(failed)
        else:
            yield self._quantized(precision)

    def with_float_heads(self, candidate: QuantizedParts, heads: Sequence[str]) -> QuantizedParts:
        """The int8 ``candidate`` with ``heads`` in float, so that the shared backbone stays int8."""
        floating = self._in("weights")  # heads are the same in both networks
        in_float = {name: _in_float(candidate.parts[name], floating[name]) for name in heads}
        return replace(candidate, parts={**candidate.parts, **in_float}, float_heads=tuple(heads))

    def _in(self, precision: str, model: bytes | None = None) -> dict[str, Part]:
        """``model``: the float network; None for that of the precision."""
        calibrated = self._material.calibrated
        return read_parts(quantize(model or calibrated.prepared.of(precision), calibrated.ranges, precision))

    def _quantized(self, precision: str, model: bytes | None = None) -> QuantizedParts:
        """``model``: as above."""
        key = precision, model or self._material.calibrated.prepared.of(precision)
        if key not in self._made:
            self._made[key] = self._quantize(precision, key[1])
        return self._made[key]

    def _quantize(self, precision: str, model: bytes) -> QuantizedParts:
        config, calibrated = self._material.config, self._material.calibrated
        own = config.algorithm == OWN
        with self._stages("quantize"):
            if own:
                parts = self._in(precision, model)
            else:
                parts = read_parts(baseline_int8(model, calibrated.ranges, config.algorithm))
            if config.target is not None:
                check_target(config.target, *min_runtime(parts.values()))
        return self._rounded(model, parts) if own and precision in LEARNABLE else QuantizedParts(parts, [])

    def _mixed(self, failed: Sequence[str]) -> Iterator[QuantizedParts]:
        """Yield candidates in mixed precision; the heads stay int8."""
        material = self._material
        model = material.calibrated.prepared.integer  # its float operators continue those in int8
        int8, weights = self._quantized("int8"), self._quantized("weights", model)
        samples, bar = material.samples.calibration, material.config.min_agreement
        float_parts, inputs = read_parts(model), material.inputs(len(samples.tensors))
        aimed = {name: part for name, part in float_parts.items() if not failed or name in (BACKBONE, *failed)}
        with self._stages("noise", len(int8.parts[BACKBONE].operators)) as advance:
            noise = measure_noise(aimed, int8.parts[BACKBONE], inputs, advance)
        bars = material.expected.bars
        judge = Foresight(float_parts, int8.parts, material.heads, samples, inputs, first=failed, bars=bars)
        found = plans(float_parts, int8.parts, weights.parts[BACKBONE], noise, judge, bar, material.times)
        while True:
            with self._stages("plan"):
                plan = next(found, None)
            if plan is None:
                return
            parts, unlearnt = self._in("int8"), self._in("weights", model)
            parts[BACKBONE] = splice(parts[BACKBONE], unlearnt[BACKBONE], plan.layers)
            yield replace(self._rounded(model, parts), plan=plan)

    def _rounded(self, model: bytes, parts: dict[str, Part]) -> QuantizedParts:
        config = self._material.config
        if config.rounding == "nearest":
            return QuantizedParts(parts, [])
        with self._stages("round", sum(len(part.operators) for part in parts.values())) as advance:
            learning = Learning(weights=config.rounding == "learnt", refit=config.refit)
            inputs = self._material.inputs(ROUNDING_SAMPLES)
            noise = round_parts(read_parts(model), parts, inputs, advance, learning=learning)
        return QuantizedParts(parts, noise)


def _in_float(head: Part, floating: Part) -> Part:
    """An int8 head that computes in float up to its logits; its inputs and outputs stay int8."""
    inside = [op for op in head.operators if operator_name(head, op) not in ("SOFTMAX", "LOGISTIC")]
    return splice(head, floating, [result_name(head, op) for op in inside])
