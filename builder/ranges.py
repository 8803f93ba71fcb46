"""The range of every activation of a float ``.tflite`` on representative data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_runtime.interpreter import find_interpreter

Range = tuple[float, float]  # least and greatest value


def measure_ranges(
    model: bytes, data: Mapping[str, np.ndarray], advance: Callable[[], None] = lambda: None
) -> dict[str, Range]:
    """Run each signature of ``data`` on its samples; returns the range of every float tensor by the tensor's name.

    ``data``: float32 (samples, ...) for each signature's one input. ``advance`` is called after each sample.
    """
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=model, num_threads=2, experimental_preserve_all_tensors=True)
    found: dict[str, Range] = {}
    for signature, samples in data.items():
        runner = interpreter.get_signature_runner(signature)
        (source,) = runner.get_input_details()
        subgraph = runner._subgraph_index  # no public name for it; see test_ranges
        tensors: dict[str, int] = {}
        for sample in samples:
            runner(**{source: sample[None]})
            tensors = tensors or _activations(interpreter, subgraph)
            for name, index in tensors.items():
                _widen(found, name, interpreter.get_tensor(index, subgraph))
            advance()
    return found


def _activations(interpreter: Any, subgraph: int) -> dict[str, int]:
    details = interpreter.get_tensor_details(subgraph)
    return {d["name"]: d["index"] for d in details if d["dtype"] == np.float32 and d["name"]}


def _widen(found: dict[str, Range], name: str, values: np.ndarray) -> None:
    low, high = found.get(name, (np.inf, -np.inf))
    found[name] = (min(low, float(values.min())), max(high, float(values.max())))
