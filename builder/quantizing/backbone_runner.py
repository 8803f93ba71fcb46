"""The float backbone, run sample by sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from builder.support.threads import OfEachThread
from builder.tflite.flatbuffer import Part
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE


def backbone_runner(model: bytes) -> OfEachThread[Any]:
    """Gives the runner of the backbone's signature, one for each thread; each computes on one thread."""
    _, factory = find_interpreter("ai_edge_litert")
    return OfEachThread(lambda: factory(model_content=model, num_threads=1).get_signature_runner(BACKBONE))


def by_channel(
    model: bytes, backbone: Part, tensors: Collection[int], samples: np.ndarray
) -> Iterator[dict[int, np.ndarray]]:
    """Run the backbone and yield what each of ``tensors`` holds, (positions, channels), sample by sample.

    ``samples``: (samples, ...), as the backbone takes them.
    """
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=model, num_threads=2, experimental_preserve_all_tensors=True)
    runner, (name,) = interpreter.get_signature_runner(BACKBONE), backbone.inputs
    for sample in samples:
        runner(**{name: sample[None]})
        held = {i: interpreter.get_tensor(i, backbone.subgraph) for i in tensors}
        yield {i: values.reshape(-1, values.shape[-1]) for i, values in held.items()}
