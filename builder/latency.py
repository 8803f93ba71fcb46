"""How long a backbone takes here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from builder.flatbuffer import Part, dtype_of, write_parts
from edge_runtime.benchmark import measure
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

_RUNS = 15


def backbone_ms(*parts: Part) -> list[float]:
    """Median milliseconds of one sample for each of ``parts``, 1 thread, in ai-edge-litert.

    They take turns, so that whatever else the machine does disturbs all of them alike.
    """
    times = measure({str(i): _one_sample(part) for i, part in enumerate(parts)}, _RUNS)
    return [float(np.median(found)) for found in times.values()]


def _one_sample(part: Part) -> Callable[[], object]:
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts({BACKBONE: part}), num_threads=1)
    runner = interpreter.get_signature_runner(BACKBONE)
    sample = {name: np.ones(part.tensors[i].shape, dtype_of(part.tensors[i])) for name, i in part.inputs.items()}
    return lambda: runner(**sample)
