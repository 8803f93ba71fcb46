"""What each operator costs: how far it alone, quantized, moves the answers of the heads, and how long it takes.

The noise of operators is taken to add up, as that of independent rounding does while it is small. So it is measured one
operator at a time in an otherwise float network, where it is small; in an int8 network that has lost its way, putting one
operator right shows nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.flatbuffer import Part, operator_name, quantization, write_parts
from builder.islands import result_name, splice
from builder.layerwise import as_held, one_operator
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

HEADS = 8  # that answer; of more, some are drawn evenly
_TIMED = 12  # runs, of which the shortest counts: all that disturbs a run makes it longer


@dataclass(frozen=True)
class OperatorCost:
    """``head_noise``: mean squared change of the heads' scores when this operator alone is quantized. ``float_us``,
    ``int8_us``: microseconds of the operator by itself, 1 thread; ``shore_us``: of converting what it reads and gives.
    """

    layer: str
    kind: str
    head_noise: float
    float_us: float
    int8_us: float
    shore_us: float


def measure_costs(
    float_parts: Mapping[str, Part],
    int8: Part,
    images: np.ndarray,
    advance: Callable[[], None] = lambda: None,
) -> list[OperatorCost]:
    """Every operator of the backbone ``int8`` that its float twin also has.

    ``images``: float32 (samples, height, width, 3), as the float model's ``image`` takes them. ``advance`` is called
    after each operator.
    """
    backbone = float_parts[BACKBONE]
    heads = some_heads(float_parts)
    truth = answers(backbone, heads, images)
    theirs = {result_name(int8, op): op for op in int8.operators}
    found = []
    for op in backbone.operators:
        name = result_name(backbone, op)
        if name in theirs and quantization_differs(backbone, op, int8, theirs[name]):
            noisy = answers(splice(backbone, int8, {name}), heads, images)
            noise = float(np.mean([np.mean((noisy[head] - truth[head]) ** 2) for head in heads]))
            times = _microseconds(backbone, op), _microseconds(int8, theirs[name])
            found.append(OperatorCost(name, operator_name(backbone, op), noise, *times, _shore_us(backbone, op)))
        advance()
    return found


def quantization_differs(part: Part, op: Any, other: Part, its: Any) -> bool:
    """Is what ``op`` gives of another type than what its twin ``its`` gives?"""
    return bool(part.tensors[op.outputs[0]].type != other.tensors[its.outputs[0]].type)


def answers(backbone: Part, heads: Mapping[str, Part], inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Scores, float32 (samples, labels), of each head for what the input stands for."""
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts({BACKBONE: backbone, **heads}), num_threads=2)
    runners = {name: interpreter.get_signature_runner(name) for name in (BACKBONE, *heads)}
    ((source, index),) = backbone.inputs.items()
    seam = {name: quantization(backbone.tensors[i]) for name, i in backbone.outputs.items()}
    rows = []
    for sample in as_held(backbone.tensors[index], inputs):
        features = {name: values.copy() for name, values in runners[BACKBONE](**{source: sample[None]}).items()}
        rows.append([_head_scores(runners[name], part, features, seam) for name, part in heads.items()])
    return {name: np.stack(column) for name, column in zip(heads, zip(*rows, strict=True), strict=True)}


def _head_scores(runner: Any, part: Part, features: Mapping[str, np.ndarray], seam: Mapping[str, Any]) -> np.ndarray:
    inputs = {
        name: quantization(part.tensors[i]).quantize(seam[name].dequantize(features[name]))
        for name, i in part.inputs.items()
    }
    scores = quantization(part.tensors[part.outputs["scores"]])
    found: np.ndarray = scores.dequantize(runner(**inputs)["scores"][0])
    return found


def some_heads(parts: Mapping[str, Part]) -> dict[str, Part]:
    """At most ``HEADS`` of the heads among ``parts``."""
    names = [name for name in parts if name != BACKBONE]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), HEADS)).round().astype(int))
    return {names[i]: parts[names[i]] for i in chosen.tolist()}


def _microseconds(part: Part, op: Any) -> float:
    """Of one operator by itself, least of several runs."""
    inputs = [i for i in op.inputs if i >= 0 and part.buffers[part.tensors[i].buffer] is None]
    inputs = [i for i in inputs if not any(i in other.outputs for other in _constants(part))]
    return _least(one_operator(part, op, inputs, threads=1))


def _constants(part: Part) -> list[Any]:
    return [op for op in part.operators if all(part.buffers[part.tensors[i].buffer] is not None for i in op.inputs)]


def _least(interpreter: Any) -> float:
    times = []
    for _ in range(_TIMED):
        begin = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e6


_BYTES_PER_US = 20_000.0  # of a conversion, which reads and writes five bytes an element: measured on a whole model


def _shore_us(part: Part, op: Any) -> float:
    """What converting the activations around an operator takes, by their size."""
    around = [i for i in (*op.inputs, *op.outputs) if i >= 0 and part.buffers[part.tensors[i].buffer] is None]
    return sum(5 * int(np.prod(part.tensors[i].shape)) for i in around) / _BYTES_PER_US


def by_gain(costs: Sequence[OperatorCost]) -> list[OperatorCost]:
    """The operators in the order in which they are worth being float: noise that goes, for each microsecond it costs."""
    return sorted(costs, key=lambda c: (-c.head_noise / max(c.float_us - c.int8_us + c.shore_us, 1.0), c.layer))
