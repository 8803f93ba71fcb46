"""The latency of a backbone, and of each of its operators, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from builder.tflite.flatbuffer import Part, dtype_of
from builder.tflite.parts import constant_operators
from builder.tflite.splice import result_name
from builder.tflite.stepper import one_operator
from builder.tflite.writer import write_parts
from edge_runtime.benchmark import measure
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

_RUNS = 15
_BYTES_PER_US = 20_000.0  # of a conversion, which reads and writes five bytes for each element; measured on a whole model
_OPERATOR_RUNS = 12  # the shortest counts: a disturbance only makes a run longer


class ThisMachine:
    """The machine that runs the build, as ``boards.times.Times``."""

    name = "this machine"

    def operators(self, part: Part) -> dict[str, float]:
        return operator_us(part)

    def backbones(self, *parts: Part) -> list[float]:
        return backbone_ms(*parts)

    def conversion_us(self, elements: float) -> float:
        return 5 * elements / _BYTES_PER_US

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "source": "measured during the build"}


def backbone_ms(*parts: Part) -> list[float]:
    """Median milliseconds of one sample for each of ``parts``, 1 thread, in ai-edge-litert.

    The parts run in turns, so that other load on the machine affects all of them equally.
    """
    times = measure({str(i): _one_sample(part) for i, part in enumerate(parts)}, _RUNS)
    return [float(np.median(found)) for found in times.values()]


def _one_sample(part: Part) -> Callable[[], object]:
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts({BACKBONE: part}), num_threads=1)
    runner = interpreter.get_signature_runner(BACKBONE)
    sample = {name: np.ones(part.tensors[i].shape, dtype_of(part.tensors[i])) for name, i in part.inputs.items()}
    return lambda: runner(**sample)


def operator_us(part: Part) -> dict[str, float]:
    """Microseconds of each operator by itself, by its ``result_name``: the fastest of several runs, 1 thread."""
    unpacking = constant_operators(part)
    made = {i for op in unpacking for i in op.outputs}
    found = {}
    for op in part.operators:
        if op not in unpacking:
            inputs = [i for i in op.inputs if i >= 0 and part.buffers[part.tensors[i].buffer] is None and i not in made]
            interpreter, times = one_operator(part, op, inputs, threads=1), []
            for given in interpreter.get_input_details():  # uninitialized memory may hold an index out of range
                interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
            for _ in range(_OPERATOR_RUNS):
                begin = time.perf_counter()
                interpreter.invoke()
                times.append(time.perf_counter() - begin)
            found[result_name(part, op)] = min(times) * 1e6
    return found
