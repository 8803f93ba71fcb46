"""Run a subgraph one operator at a time, by the interpreter's own kernels, on many samples.

So the float and the int8 network can be compared behind every operator, and an operator can be changed before those that
read it run.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from builder.flatbuffer import INT32, Part, Writer, quantization
from edge_runtime.interpreter import find_interpreter

Values = dict[int, np.ndarray]  # tensor -> (samples, ...), without the first axis where that is 1 long: the batch


class Stepper:
    """One run of ``part`` on samples, operator by operator; holds only the tensors that are still needed.

    ``inputs``: tensor -> (samples, ...) in the tensor's own dtype.
    """

    def __init__(self, part: Part, inputs: Mapping[int, np.ndarray]) -> None:
        self._part = part
        self._values: Values = dict(inputs)
        self._next = 0
        self._last_use = {i: n for n, op in enumerate(part.operators) for i in op.inputs}
        for i in part.outputs.values():
            self._last_use[i] = len(part.operators)

    def value(self, tensor: int) -> np.ndarray:
        """The tensor on all samples. Raises ``KeyError`` before it was made and after its last use."""
        return self._values[tensor]

    def put(self, tensor: int, values: np.ndarray) -> None:
        """From here on, ``values`` for a tensor that was made."""
        self._values[tensor] = values

    def step(self) -> None:
        """Run the next operator."""
        op = self._part.operators[self._next]
        inputs = [i for i in op.inputs if i in self._values]
        if inputs:  # what reads constants alone runs with the operators that need it
            results = run_operator(self._part, op, [self._values[i] for i in inputs], inputs)
            self._values.update(zip(op.outputs, results, strict=True))
        self._next += 1
        for i in [i for i in self._values if self._last_use.get(i, -1) < self._next]:
            del self._values[i]

    def rest(self) -> tuple[Part, dict[str, np.ndarray]]:
        """The operators that have not run as a part of its own, and what its inputs hold: tensor 7 is called ``in7``."""
        held = [i for i in self._values if self._last_use.get(i, -1) >= self._next]
        waiting = [*constant_operators(self._part), *self._part.operators[self._next :]]
        rest = replace(self._part, operators=waiting, inputs={f"in{i}": i for i in held})
        return without_unused(rest), {f"in{i}": self._values[i] for i in held}

    def until(self, tensor: int) -> np.ndarray:
        """Step until ``tensor`` is there."""
        while tensor not in self._values:
            self.step()
        return self._values[tensor]


def run_operator(part: Part, op: Any, values: list[np.ndarray], tensors: list[int]) -> list[np.ndarray]:
    """The outputs of one operator for ``values`` of its activation inputs ``tensors``: (samples, ...) each."""
    interpreter = one_operator(part, op, tensors, threads=2)
    sources = [d["index"] for d in interpreter.get_input_details()]
    targets = [d["index"] for d in interpreter.get_output_details()]
    results = [np.empty((len(values[0]), *_own(d["shape"])), d["dtype"]) for d in interpreter.get_output_details()]
    shapes = [tuple(d["shape"]) for d in interpreter.get_input_details()]
    for n, sample in enumerate(zip(*values, strict=True)):
        for index, value, shape in zip(sources, sample, shapes, strict=True):
            interpreter.set_tensor(index, value.reshape(shape))
        interpreter.invoke()
        for result, index in zip(results, targets, strict=True):
            result[n] = interpreter.get_tensor(index).reshape(result.shape[1:])
    return results


def _own(shape: Any) -> tuple[int, ...]:
    """A tensor's shape without the batch axis; sequences that were turned have their steps in front."""
    lengths = tuple(int(n) for n in shape)
    return lengths[1:] if lengths[:1] == (1,) else lengths


def one_operator(part: Part, op: Any, tensors: list[int], *, threads: int) -> Any:
    """An interpreter, ready to run, of one operator whose activation inputs are ``tensors``."""
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=_model_of(part, op, tensors), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def dequantized(part: Part, tensor: int, values: np.ndarray) -> np.ndarray:
    """float32 of ``values`` of ``tensor``, which may be float already."""
    return quantization(part.tensors[tensor]).dequantize(values)


def as_held(tensor: Any, values: np.ndarray) -> np.ndarray:
    """``values`` as the tensor holds them: quantized, unless they are numbers of tokens."""
    return values if tensor.type == INT32 else quantization(tensor).quantize(values)


def constant(part: Part, tensor: int, dtype: Any) -> np.ndarray | None:
    """A constant tensor's content in its shape; None for an activation."""
    content = part.buffers[part.tensors[tensor].buffer]
    return None if content is None else content.view(dtype).reshape(part.tensors[tensor].shape)


def is_constant(part: Part, tensor: int) -> bool:
    """Does the file hold its content?"""
    return part.buffers[part.tensors[tensor].buffer] is not None


def constant_operators(part: Part) -> list[Any]:
    """The operators that read constants alone, as those that unpack weights."""
    return [op for op in part.operators if all(i < 0 or is_constant(part, i) for i in op.inputs)]


def makers(part: Part, op: Any, given: Collection[int] = ()) -> list[Any]:
    """The operators that make inputs of ``op`` other than ``given``."""
    wanted = set(op.inputs) - set(given)
    return [other for other in part.operators if wanted.intersection(other.outputs)]


def _model_of(part: Part, op: Any, tensors: list[int]) -> bytes:
    operators = [*makers(part, op, tensors), op]
    used = list(dict.fromkeys([i for each in operators for i in (*each.inputs, *each.outputs) if i >= 0]))
    place = {old: new for new, old in enumerate(used)}
    small = Part(
        "operator", 0, [part.tensors[i] for i in used], operators,
        {f"in{k}": place[i] for k, i in enumerate(tensors)}, {f"out{k}": place[i] for k, i in enumerate(op.outputs)},
        part.codes, part.buffers,
    )  # fmt: skip
    writer = Writer()
    writer.add_subgraph("operator", writer.tensors(small), writer.operators(small, place), small.inputs, small.outputs)
    return writer.finish("one operator")


def names(part: Part) -> Iterator[tuple[str, int]]:
    """(name, index) of every tensor, as the file had it."""
    for i, tensor in enumerate(part.tensors):
        yield (tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name), i


def without_unused(part: Part) -> Part:
    """Operators that nothing reads are dropped, and tensors that nothing names."""
    wanted, kept = set(part.outputs.values()), list[Any]()
    for op in reversed(part.operators):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(op.inputs)
    used = sorted({i for i in wanted if i >= 0} | {i for op in kept for i in op.outputs} | set(part.inputs.values()))
    place = {old: new for new, old in enumerate(used)}
    operators = []
    for op in reversed(kept):
        own = copy.copy(op)
        own.inputs, own.outputs = ([place.get(i, i) for i in indices] for indices in (op.inputs, op.outputs))
        operators.append(own)
    inputs, outputs = ({name: place[i] for name, i in ends.items()} for ends in (part.inputs, part.outputs))
    return replace(part, tensors=[part.tensors[i] for i in used], operators=operators, inputs=inputs, outputs=outputs)
