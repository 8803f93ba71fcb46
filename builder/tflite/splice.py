"""Two precisions in one subgraph: some operators come from a second part, with conversions where the two meet."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from builder.tflite.flatbuffer import FLOAT32, QUANTIZE, Part, tensor_name
from builder.tflite.parts import makers, names, without_unused


def result_name(part: Part, op: Any) -> str:
    """The name by which operators are matched: that of the first output."""
    return tensor_name(part.tensors[op.outputs[0]])


def splice(base: Part, second: Part, chosen: Collection[str]) -> Part:
    """``base`` with the operators whose ``result_name`` is in ``chosen`` taken from ``second``.

    Requires that both parts were made from one float part, so that tensors of equal names correspond. Where an operator
    of one part reads a tensor of the other, a QUANTIZE or DEQUANTIZE is inserted. Inputs and outputs are those of
    ``base``.
    """
    both = _Both(base, second)
    for op in base.operators:
        name = result_name(base, op)
        if name in chosen and name in both.operators:
            both.take_from_second(both.operators[name])
        else:
            both.take(op)
    for index in base.outputs.values():
        both.bring(index)
    return without_unused(both.part)


class _Both:
    """One part with the tensors of both, those of the second after those of the base; operators are added in order."""

    def __init__(self, base: Part, second: Part) -> None:
        moved, self._shift = copy.deepcopy(second.tensors), len(base.tensors)
        for tensor in moved:
            tensor.buffer += len(base.buffers)
        self.part = replace(
            base,
            tensors=[*base.tensors, *moved],
            operators=[],
            codes=[*base.codes, *second.codes],
            buffers=[*base.buffers, *second.buffers],
        )
        self._codes = len(base.codes)
        self._second = second
        self.operators = {result_name(second, op): op for op in second.operators}
        ours, theirs = dict(names(base)), dict(names(second))
        pairs = {index: theirs[name] + self._shift for name, index in ours.items() if name in theirs}
        self._other = {**pairs, **{there: here for here, there in pairs.items()}}
        made = {i for part, shift in ((base, 0), (second, self._shift)) for op in part.operators for i in _at(op, shift)}
        self._variable = made | set(base.inputs.values()) | {i + self._shift for i in second.inputs.values()}
        self._ready = set(base.inputs.values())

    def take(self, op: Any) -> None:
        """Add an operator of the base."""
        for index in op.inputs:
            self.bring(index)
        self._append(op)

    def take_from_second(self, op: Any) -> None:
        """Add an operator of the second part, with the operators that unpack its constants."""
        for maker in makers(self._second, op):
            if all(self._second.buffers[self._second.tensors[i].buffer] is not None for i in maker.inputs):
                self._append(self._moved(maker))
        own = self._moved(op)
        for index in own.inputs:
            self.bring(index)
        self._append(own)

    def bring(self, index: int) -> None:
        """Make the tensor available; convert it from the other precision where only that has been computed."""
        if index not in self._variable or index in self._ready:
            return
        kind = "DEQUANTIZE" if self.part.tensors[index].type == FLOAT32 else QUANTIZE
        self._append(self.part.operator(kind, [self._other[index]], [index]))

    def _moved(self, op: Any) -> Any:
        own = copy.copy(op)
        own.opcodeIndex += self._codes
        own.inputs = [i + self._shift if i >= 0 else i for i in op.inputs]
        own.outputs = [i + self._shift for i in op.outputs]
        return own

    def _append(self, op: Any) -> None:
        if not self._ready.issuperset(op.outputs):
            self.part.operators.append(op)
            self._ready.update(op.outputs)


def _at(op: Any, shift: int) -> list[int]:
    return [i + shift for i in op.outputs]
