"""How far quantizing one operator changes the answers of the heads.

The noise of operators is assumed to add up, as that of independent rounding does while it is small. So it is measured for
one operator at a time in an otherwise float network; in an int8 network whose answers are wrong, correcting a single
operator shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import Part, quantization
from builder.tflite.parts import as_held
from builder.tflite.stepper import Stepper
from builder.tflite.writer import write_parts
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

HEADS = 8  # that are run; of more, some are chosen evenly
SAMPLES = 8  # on which they run


class AtTheHeads:
    """The float network's answers to the first ``SAMPLES`` of ``inputs``, as its ``image`` or ``tokens`` takes them."""

    def __init__(self, float_parts: Mapping[str, Part], inputs: np.ndarray) -> None:
        self._heads = some_heads(float_parts)
        self._truth = answers(float_parts[BACKBONE], self._heads, inputs[:SAMPLES])

    def noise(self, truth: Stepper, tensor: int, found: np.ndarray) -> float:
        """Mean squared change of the heads' scores when the backbone continues from ``truth`` with ``found`` for
        ``tensor``.

        ``found``: float32 (samples, ...), of as many samples as there are answers, or more.
        """
        rest, values = truth.rest()
        given = {name: value[:SAMPLES] for name, value in {**values, f"in{tensor}": found}.items()}
        moved = _run({BACKBONE: rest, **self._heads}, given)
        return float(np.mean([np.mean((moved[head] - scores) ** 2) for head, scores in self._truth.items()]))


def answers(backbone: Part, heads: Mapping[str, Part], inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of each head, float32 (samples, labels), for real-valued ``inputs``."""
    ((source, index),) = backbone.inputs.items()
    return _run({BACKBONE: backbone, **heads}, {source: as_held(backbone.tensors[index], inputs)})


def _run(parts: Mapping[str, Part], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``inputs``: (samples, ...) by the name of the backbone's input, as its tensor holds them."""
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts(dict(parts)), num_threads=2)
    runners = {name: interpreter.get_signature_runner(name) for name in parts}
    backbone, heads = parts[BACKBONE], {name: part for name, part in parts.items() if name != BACKBONE}
    seam = {name: quantization(backbone.tensors[i]) for name, i in backbone.outputs.items()}
    rows = []
    for n in range(len(next(iter(inputs.values())))):
        sample = {name: values[n][None] for name, values in inputs.items()}
        features = {name: values.copy() for name, values in runners[BACKBONE](**sample).items()}
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


def some_heads(parts: Mapping[str, Part], *, first: Sequence[str] = ()) -> dict[str, Part]:
    """At most ``HEADS`` of the heads among ``parts``: those in ``first`` before any other."""
    names = [name for name in parts if name != BACKBONE and name not in first]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), HEADS)).round().astype(int))
    found = [*first, *(names[i] for i in chosen.tolist())][:HEADS]
    return {name: parts[name] for name in found}
