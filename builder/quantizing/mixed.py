"""Mixed precision: the fewest operators of an int8 backbone to compute in float so that the heads agree with float.

Operators are chosen by runs. A run ends where a single activation is all that later operators read. No conversion is
needed between two neighbouring float runs, so the cost of a run depends on which others are in float already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from builder.boards.times import Times
from builder.quantizing.noise import LayerNoise
from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import Part
from builder.tflite.splice import result_name, splice
from edge_runtime.counting import count_of
from edge_runtime.metadata import BACKBONE

WORTH_IT = 0.95  # of the time in float, at most: otherwise float is as quick, and more exact
_GROWTH = 1.15  # factor of the number of runs from one attempt to the next


@dataclass(frozen=True)
class OperatorCost:
    """``head_noise``: mean squared change of the heads' scores when only this operator is quantized. ``float_us``,
    ``int8_us``: microseconds of the operator by itself, 1 thread.
    """

    layer: str
    kind: str
    head_noise: float
    float_us: float
    int8_us: float


@dataclass(frozen=True)
class Plan:
    """``layers``: the operators in float, by the names of their results. ``costs``: of all operators."""

    layers: tuple[str, ...]
    costs: Sequence[OperatorCost]

    def to_json(self) -> dict[str, Any]:
        costs = [{key: _short(value) for key, value in asdict(cost).items()} for cost in self.costs]
        return {"float_operators": list(self.layers), "operators": costs}


class Judged(Protocol):
    """How the heads agree with float; see ``judging.verify.Quality``."""

    @property
    def agreement(self) -> float: ...

    def reaches(self, min_agreement: float) -> bool: ...


def plans(
    float_parts: Mapping[str, Part],
    int8_parts: Mapping[str, Part],
    weights_only: Part,
    noise: Sequence[LayerNoise],
    judge: Callable[[Part], Judged],
    bar: float,
    times: Times,
) -> Iterator[Plan]:
    """Yield plans with more and more runs of float operators, added in the order of their gain for each microsecond.

    The first has as few as pass on calibration samples with a bar half way from ``bar`` to 1; later ones have more, as
    long as the backbone takes at most ``WORTH_IT`` of its time in float. Where none passes so, the only plan is the
    largest one within that time, if it reaches ``bar``.

    Args:
        float_parts: Backbone and heads in float.
        int8_parts: Backbone and heads in int8, their weights rounded.
        weights_only: The backbone in float with int8 weights, the source of the float operators. Its rounding must be as
            good as that of ``int8_parts``: otherwise operators get worse in float.
        noise: Of the operators of ``int8_parts``.
        judge: Judges a backbone on calibration samples.
        bar: The agreement that the heads have to reach, 0 to 1.
        times: Latencies of the board that the file is for.

    Raises:
        ConversionError: There is no such plan.
    """
    backbone, base = float_parts[BACKBONE], int8_parts[BACKBONE]
    costs = _costs(noise, times.operators(backbone), times.operators(base))
    if not costs:
        raise ConversionError(f"{len(base.operators)} operators are too many to measure the noise of each at the heads")
    order = by_gain(backbone, costs, times)
    count, plan, judged, enough = 1, None, None, False
    while count < len(order):
        layers = tuple(layer for run in order[:count] for layer in run)
        mixed = splice(base, weights_only, set(layers))
        own_ms, float_ms = times.backbones(mixed, weights_only)
        if own_ms > WORTH_IT * float_ms:
            break
        plan, judged = Plan(layers, costs), judge(mixed)
        enough = enough or judged.reaches((1 + bar) / 2)
        if enough:
            yield plan
        count = _next_count(count, len(order), passing=enough)
    if enough:
        return
    if plan is None or judged is None:
        raise ConversionError(f"no mix of float and int8 operators takes at most {WORTH_IT:g} of float's time")
    if not judged.reaches(bar):
        most = f"{count_of(len(plan.layers), 'operators')} in float, the most within {WORTH_IT:g} of float's time"
        raise ConversionError(
            f"{most}: not enough; on calibration samples the heads agree on {judged.agreement:.1%}"
            + (", but one of them alone does not pass" if judged.agreement >= bar else "")
        )
    yield plan  # its rounding is not learnt yet


def _costs(
    noise: Sequence[LayerNoise], float_us: Mapping[str, float], int8_us: Mapping[str, float]
) -> list[OperatorCost]:
    """The costs of the operators whose noise at the heads and whose latencies are known."""
    return [
        OperatorCost(layer.layer, layer.kind, layer.head_noise, float_us[layer.layer], int8_us[layer.layer])
        for layer in noise
        if layer.head_noise is not None and layer.layer in float_us and layer.layer in int8_us
    ]


def _next_count(count: int, total: int, *, passing: bool) -> int:
    """The number of runs of the next attempt: half of the rest more once plans pass, until then by ``_GROWTH``."""
    rest = total - count
    if passing or rest == 1:
        return count + (rest + 1) // 2
    return min(int(np.ceil(count * _GROWTH)), total - 1)


def float_runs(part: Part) -> list[list[str]]:
    """The operators of ``part`` in order, by their ``result_name``, split where only one activation is read later."""
    last = {i: n for n, op in enumerate(part.operators) for i in op.inputs}
    last.update(dict.fromkeys(part.outputs.values(), len(part.operators)))
    live, found, current = set(part.inputs.values()), list[list[str]](), list[str]()
    for n, op in enumerate(part.operators):
        current.append(result_name(part, op))
        live = {i for i in (*live, *op.outputs) if last.get(i, -1) > n}
        if len(live) == 1:
            found.append(current)
            current = []
    return [*found, current] if current else found


def by_gain(part: Part, costs: Sequence[OperatorCost], times: Times) -> list[list[str]]:
    """The runs of the float ``part``, ordered by the noise that each removes for each microsecond that it adds, given
    that the runs before it in this order are in float already.
    """
    known = {cost.layer: cost for cost in costs}
    left = [[layer for layer in run if layer in known] for run in float_runs(part)]
    left, order = [run for run in left if run], list[list[str]]()
    conversions = _Conversions(part, times)
    while left:
        there = {layer for run in order for layer in run}
        now = conversions.microseconds(there)

        def worth(run: list[str], there: set[str] = there, now: float = now) -> float:
            noise = sum(known[layer].head_noise for layer in run)
            more = sum(known[layer].float_us - known[layer].int8_us for layer in run)
            return noise / max(more + conversions.microseconds(there | set(run)) - now, 1.0)

        best = max(left, key=worth)
        left.remove(best)
        order.append(best)
    return order


class _Conversions:
    """The cost of converting activations between operators in float and in int8, by the activations' size."""

    def __init__(self, part: Part, times: Times) -> None:
        self._ends: dict[int, tuple[str | None, set[str | None]]] = {i: (None, set()) for i in part.inputs.values()}
        for op in part.operators:
            name = result_name(part, op)
            for i in op.inputs:
                if i in self._ends:
                    self._ends[i][1].add(name)
            self._ends.update((i, (name, set())) for i in op.outputs)
        for i in part.outputs.values():
            self._ends[i][1].add(None)  # the seam is int8
        self._us = {i: times.conversion_us(float(np.prod(part.tensors[i].shape))) for i in self._ends}

    def microseconds(self, floating: Collection[str]) -> float:
        return sum(
            self._us[i]
            for i, (maker, readers) in self._ends.items()
            if any((reader in floating) != (maker in floating) for reader in readers)
        )


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
