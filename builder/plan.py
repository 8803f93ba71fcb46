"""Which operators of an int8 backbone are worth computing in float: the fewest with which the heads answer as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from builder.errors import ConversionError
from builder.flatbuffer import Part
from builder.islands import splice
from builder.latency import backbone_ms
from builder.sensitivity import OperatorCost, answers, by_gain, measure_costs, some_heads
from edge_runtime.metadata import BACKBONE

_NOISE_PICTURES = 8
_JUDGED_PICTURES = 96
_GROWTH = 1.5  # of the number of islands from one try to the next


@dataclass(frozen=True)
class Plan:
    """``layers``: the operators in float, by the names of what they give. ``costs``: of all the operators."""

    layers: tuple[str, ...]
    costs: Sequence[OperatorCost]

    def to_json(self) -> dict[str, Any]:
        costs = [{key: _short(value) for key, value in asdict(cost).items()} for cost in self.costs]
        return {"islands": list(self.layers), "operators": costs}


def plan_islands(
    float_parts: Mapping[str, Part],
    int8_parts: Mapping[str, Part],
    twin: Part,
    images: np.ndarray,
    bar: float,
    advance: Callable[[], None] = lambda: None,
) -> Plan:
    """Islands in the order of their gain for each microsecond, as few as make the heads agree with float as often as
    half way between ``bar`` and always, on calibration pictures.

    ``int8_parts``: rounded. ``twin``: the backbone in float with int8 weights, of which the islands are taken.
    ``images``: float32 (samples, height, width, 3). Raises ``ConversionError`` where so many would be needed that float
    is as quick.
    """
    costs = measure_costs(float_parts, int8_parts[BACKBONE], images[:_NOISE_PICTURES], advance)
    judged = images[:_JUDGED_PICTURES]
    truth = answers(float_parts[BACKBONE], some_heads(float_parts), judged)
    order = [cost.layer for cost in by_gain(costs)]
    count = 1
    while count < len(order):
        mixed = splice(int8_parts[BACKBONE], twin, set(order[:count]))
        own_ms, float_ms = backbone_ms(mixed, twin)
        if own_ms >= float_ms:
            raise ConversionError(f"{count} islands take as long as float ({own_ms:.2f} ms here), and fewer do not do")
        if _agreement(truth, answers(mixed, some_heads(int8_parts), judged)) >= (1 + bar) / 2:
            return Plan(tuple(order[:count]), costs)
        count = int(np.ceil(count * _GROWTH))
    raise ConversionError("what int8 loses is lost in the heads, or everywhere: no islands make it agree")


def _agreement(truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    return min(float(np.mean(found[head].argmax(1) == truth[head].argmax(1))) for head in truth)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
