"""Runs a subgraph one operator at a time on many samples, with the kernels of the interpreter.

The float and the int8 network can therefore be compared after every operator, and an operator can be changed before its
readers run. Samples run in batches where an operator processes each one independently (``batches.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from builder.support.errors import ConversionError
from builder.tflite.batches import batch_of, batched, elementwise, reshaped
from builder.tflite.flatbuffer import Part, operator_name
from builder.tflite.parts import constant_operators, makers, without_unused
from builder.tflite.writer import Writer
from edge_runtime.errors import reason
from edge_runtime.interpreter import find_interpreter

Values = dict[int, np.ndarray]  # tensor -> (samples, ...), without the batch axis, which has length 1


class Stepper:
    """One run of ``part`` on samples, operator by operator. It holds only the tensors that are still needed.

    An elementwise operator overwrites an input that nothing reads after it: whoever goes on with such an array copies it.
    What was given or ``put`` is not overwritten.

    Args:
        part: The subgraph.
        inputs: Tensor -> (samples, ...), in the dtype of the tensor.
        threads: Number of threads of the interpreters.
    """

    def __init__(self, part: Part, inputs: Mapping[int, np.ndarray], *, threads: int = 2) -> None:
        self._part, self._threads = part, threads
        self._values: Values = dict(inputs)
        self._own = set[int]()  # tensors whose memory is this run's
        self._next = 0
        self._last_use = {i: n for n, op in enumerate(part.operators) for i in op.inputs}
        for i in part.outputs.values():
            self._last_use[i] = len(part.operators)

    def value(self, tensor: int) -> np.ndarray:
        """The tensor on all samples, (samples, ...). Raises ``KeyError`` before it is computed and after its last use."""
        return self._values[tensor]

    def put(self, tensor: int, values: np.ndarray) -> None:
        """Replace a computed tensor by ``values`` for the operators that follow."""
        self._values[tensor] = values
        self._own.discard(tensor)

    def step(self) -> None:
        """Run the next operator."""
        op = self._part.operators[self._next]
        inputs = [i for i in op.inputs if i in self._values]
        if inputs:  # operators that read only constants run with the operators that need them
            values = [self._values[i] for i in inputs]
            results = run_operator(self._part, op, values, inputs, threads=self._threads, over=self._free(op, inputs))
            self._values.update(zip(op.outputs, results, strict=True))
            self._own.update(i for i, result in zip(op.outputs, results, strict=True) if result.base is None)
        self._next += 1
        for i in [i for i in self._values if self._last_use.get(i, -1) < self._next]:
            del self._values[i]

    def _free(self, op: Any, inputs: list[int]) -> list[np.ndarray]:
        """The inputs of ``op`` that its result may overwrite."""
        if len(op.outputs) > 1 or not elementwise(self._part, op):
            return []
        last = [self._values[i] for i in inputs if self._last_use.get(i) == self._next]
        others = [value for i, value in self._values.items() if i not in self._own]  # what was given, and views
        return [value for value in last if not any(np.may_share_memory(value, other) for other in others)]

    def rest(self) -> tuple[Part, dict[str, np.ndarray]]:
        """The operators that have not run, as a part, and the values of its inputs: the input of tensor 7 is ``in7``."""
        held = [i for i in self._values if self._last_use.get(i, -1) >= self._next]
        waiting = [*constant_operators(self._part), *self._part.operators[self._next :]]
        rest = replace(self._part, operators=waiting, inputs={f"in{i}": i for i in held})
        return without_unused(rest), {f"in{i}": self._values[i] for i in held}

    def until(self, tensor: int) -> np.ndarray:
        """Step until ``tensor`` is computed, and return it."""
        while tensor not in self._values:
            self.step()
        return self._values[tensor]


def run_operator(
    part: Part,
    op: Any,
    values: list[np.ndarray],
    tensors: list[int],
    *,
    threads: int = 2,
    over: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Run one operator on samples.

    Args:
        part: The subgraph.
        op: Its operator.
        values: (samples, ...) of each activation input.
        tensors: Index of each activation input.
        threads: Number of threads.
        over: Arrays that the only output may overwrite, ``values`` among them; the first that fits takes it.

    Returns:
        (samples, ...) of each output.
    """
    samples = len(values[0])
    reshape = reshaped(part, op, values[0])
    if reshape is not None:
        return [reshape]
    size = batch_of(part, op, tensors, samples)
    interpreter = one_operator(part, op, tensors, threads=threads, batch=size)
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    results = [_memory((samples, *_own(d["shape"], size)), d["dtype"], over) for d in targets]
    for start in range(0, samples, size):
        first = max(0, min(start, samples - size))  # the last batch is filled up with samples of the one before
        for source, value in zip(sources, values, strict=True):
            # Not ``set_tensor``, which holds Python's lock while it copies.
            given = value[first : first + size].reshape(source["shape"])
            np.copyto(interpreter.tensor(source["index"])(), given, casting="equiv")
        interpreter.invoke()
        for result, target in zip(results, targets, strict=True):
            # What comes before ``start`` is written, and so may be what it was made of. A view: nothing is copied twice.
            there = result[start : first + size]
            there[:] = interpreter.tensor(target["index"])().reshape(size, *there.shape[1:])[start - first :]
    return results


def _memory(shape: tuple[int, ...], dtype: Any, over: Sequence[np.ndarray]) -> np.ndarray:
    for array in over:
        if array.shape == shape and array.dtype == dtype:
            return array
    return np.empty(shape, dtype)


def _own(shape: Any, batch: int) -> tuple[int, ...]:
    """A tensor's shape without the batch axis. A transposed sequence has its steps first, and no batch axis there."""
    lengths = tuple(int(n) for n in shape)
    return lengths[1:] if lengths[:1] == (batch,) else lengths


def one_operator(part: Part, op: Any, tensors: list[int], *, threads: int, batch: int = 1) -> Any:
    """An interpreter, ready to run, for one operator.

    Args:
        part: The subgraph.
        op: Its operator.
        tensors: Index of each activation input.
        threads: Number of threads.
        batch: Batch size, as ``batch_of`` allows.

    Raises:
        ConversionError: The interpreter has no kernel for it, or refuses its scales.
    """
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=_model_of(part, op, tensors, batch), num_threads=threads)
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise ConversionError(f"the interpreter refuses {operator_name(part, op)}: {reason(error)}") from error
    return interpreter


def _model_of(part: Part, op: Any, tensors: list[int], batch: int) -> bytes:
    operators = [*makers(part, op, tensors), op]
    used = list(dict.fromkeys([i for each in operators for i in (*each.inputs, *each.outputs) if i >= 0]))
    place = {old: new for new, old in enumerate(used)}
    wide = {*tensors, *op.outputs} if batch > 1 else set()
    small = Part(
        "operator", 0, [batched(part.tensors[i], batch) if i in wide else part.tensors[i] for i in used], operators,
        {f"in{k}": place[i] for k, i in enumerate(tensors)}, {f"out{k}": place[i] for k, i in enumerate(op.outputs)},
        part.codes, part.buffers,
    )  # fmt: skip
    writer = Writer()
    writer.add_subgraph("operator", writer.tensors(small), writer.operators(small, place), small.inputs, small.outputs)
    return writer.finish("one operator")
