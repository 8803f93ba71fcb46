"""The range of every activation of a float ``.tflite`` on representative data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from builder.flatbuffer import Part, read_parts
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

# Attention writes numbers like -1e38 where a softmax shall give 0. In int8 a number so far below the others does as well,
# and leaves them a scale of their own.
MASKED, FAR = -1e6, 16.0
HEAD_SAMPLES = 200  # heads are small and may be many
Range = tuple[float, float]  # least and greatest value
Sample = dict[str, np.ndarray]  # (1, ...) by the name of an input or output


def measure_ranges(
    model: bytes, inputs: np.ndarray, heads: Iterable[str], advance: Callable[[], None] = lambda: None
) -> dict[str, Range]:
    """Run the backbone on ``inputs`` and each head on the features; the range of every float tensor by its name.

    ``inputs``: (samples, ...), as the model's ``image`` or ``tokens`` takes them. ``advance`` is called after
    each sample of each signature.
    """
    interpreter, parts, found = _watched(model), read_parts(model), dict[str, Range]()
    (name,) = parts[BACKBONE].inputs
    features = _run(interpreter, parts[BACKBONE], ({name: sample[None]} for sample in inputs), found, advance)
    few = features[:HEAD_SAMPLES]
    for head in heads:
        _run(interpreter, parts[head], few, found, advance)
    return found


def measure_head(model: bytes, head: str, features: Iterable[Sample]) -> dict[str, Range]:
    """The same for the signature ``head`` alone, on what the backbone made of pictures."""
    found = dict[str, Range]()
    _run(_watched(model), read_parts(model)[head], features, found, lambda: None)
    return found


def _watched(model: bytes) -> Any:
    _, factory = find_interpreter("ai_edge_litert")
    return factory(model_content=model, num_threads=2, experimental_preserve_all_tensors=True)


def _run(
    interpreter: Any, part: Part, samples: Iterable[Sample], found: dict[str, Range], advance: Callable[[], None]
) -> list[Sample]:
    """Run one signature on samples, widen ``found`` by what is seen; returns its outputs."""
    runner = interpreter.get_signature_runner(part.name)
    # Weights must not be among them: a range for a weight would make the quantizer give all its channels one scale.
    tensors = {part.tensors[i].name.decode(): i for i in part.activations()}
    outputs = []
    for sample in samples:
        outputs.append(runner(**{name: sample[name] for name in part.inputs}))
        for name, index in tensors.items():
            _widen(found, name, interpreter.get_tensor(index, part.subgraph))
        advance()
    return outputs


def _widen(found: dict[str, Range], name: str, values: np.ndarray) -> None:
    low, high = found.get(name, (np.inf, -np.inf))
    if float(values.min()) < MASKED:
        real = values[values >= MASKED]
        values = np.append(real, (real.max() if real.size else 0.0) - FAR)
    found[name] = (min(low, float(values.min())), max(high, float(values.max())))
