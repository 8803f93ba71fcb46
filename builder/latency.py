"""How long a backbone takes here."""

from __future__ import annotations

import numpy as np

from builder.flatbuffer import Part, dtype_of, write_parts
from edge_runtime.benchmark import measure
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

_RUNS = 15


def backbone_ms(part: Part) -> float:
    """Median milliseconds of one sample, 1 thread, in ai-edge-litert."""
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts({BACKBONE: part}), num_threads=1)
    runner = interpreter.get_signature_runner(BACKBONE)
    sample = {name: np.ones(part.tensors[i].shape, dtype_of(part.tensors[i])) for name, i in part.inputs.items()}
    return float(np.median(measure({BACKBONE: lambda: runner(**sample)}, _RUNS)[BACKBONE]))
