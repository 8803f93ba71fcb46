"""The operators of a file as a float graph, without those that only change types and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, UnreadableModelError, Weight, WeightPool, renumber, upstream
from builder.reading.tflite.constants import Constant, dequantized, read_constant
from builder.tflite.flatbuffer import Part, operator_name, settings_of, shape_of, tensor_name

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ALIASES = ("QUANTIZE", "DEQUANTIZE", "CAST")  # the same numbers in another type
_SHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")  # the same numbers in another shape
# Settings of how a kernel computes, not of what.
_HOW = ("quantizedBiasType", "asymmetricQuantizeInputs", "quantSpec", "potScaleInt16", "newShape", "squeezeDims")
Shape = tuple[int, ...]  # batch axis included


@dataclass(frozen=True)
class Held:
    """Stands in the arguments of a node for its weight ``index``."""

    index: int


MISSING = "missing"  # an argument: a tensor that no operator writes


def operator_node(
    name: str,
    kind: str,
    args: Sequence[Any],
    weights: Sequence[Weight],
    *,
    shapes: Sequence[Shape | None],
    outputs: Sequence[Shape],
    table: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Node:
    """One operator.

    Args:
        name: Of the layer, for people.
        kind: The builtin's name, as ``CONV_2D``.
        args: In the operator's order: a ``Ref`` for an activation, a ``Held`` for a weight, an array of integers for axes
            and shapes, None for an omitted input.
        weights: Float arrays.
        shapes: The shape in which each activation is read, None for other arguments; its operator may write another.
        outputs: Shapes.
        table: The schema's table of its settings.
        settings: Those settings.
    """
    config = {"settings": dict(settings or {}), "table": table, "shapes": tuple(shapes), "outputs": tuple(outputs)}
    return Node(name, {"module": "tflite", "class_name": kind, "config": config}, tuple(weights), tuple(args), {})


def read_operators(part: Part, pool: WeightPool) -> Graph:
    """The graph of a part with one input and one output. Raises ``UnreadableModelError``."""
    reader = _Reader(part, pool)
    for op in part.operators:
        reader.read(op)
    (output,) = part.outputs.values()
    found = reader.values.get(output)
    if not isinstance(found, Ref):
        raise UnreadableModelError("its output is a constant, or no operator writes it; not a classifier")
    graph = Graph(tuple(reader.nodes), found)
    graph = renumber(graph, upstream(graph, [graph.output]))
    for node in graph.nodes:
        if any(arg is MISSING for arg in node.args):
            raise UnreadableModelError(
                f"operator {node.layer!r:.80} ({node.kind}) reads a tensor that no operator writes"
            )
    return graph


class _Reader:
    """A walk through the operators in order. ``values``: what each visited tensor is."""

    def __init__(self, part: Part, pool: WeightPool) -> None:
        self.part, self.nodes = part, list[Node]()
        self._pool = pool
        self.values: dict[int, Any] = {i: Ref(INPUT, 0) for i in part.inputs.values()}

    def read(self, op: Any) -> None:
        kind = operator_name(self.part, op)
        if kind in _ALIASES or kind in _SHAPES:
            self.values[op.outputs[0]] = self._moved(op)
            return
        args, weights, name = list[Any](), list[Weight](), tensor_name(self.part.tensors[op.outputs[0]])
        for place, index in enumerate(op.inputs):
            value = self._value(index)
            if place == 2 and kind in LAYERS:
                value = self._bias(op, value)
            if isinstance(value, Constant) and value.is_quantity:
                args.append(Held(len(weights)))
                weights.append(self._pool.add(value.values, value.slack))
            else:
                args.append(value.values if isinstance(value, Constant) else value)
        if len(args) == 2 and kind in LAYERS:
            args.append(self._held_bias(op, weights))
        shapes = [self._shape(i) if isinstance(a, Ref) else None for i, a in zip((*op.inputs, -1), args, strict=False)]
        outputs = [self._shape(i) for i in op.outputs]
        table, settings = settings_of(op) or (None, {})
        settings = {key: value for key, value in settings.items() if key not in _HOW}
        place = len(self.nodes)
        self.nodes.append(
            operator_node(name, kind, args, weights, shapes=shapes, outputs=outputs, table=table, settings=settings)
        )
        self.values.update((index, Ref(place, k)) for k, index in enumerate(op.outputs))

    def _moved(self, op: Any) -> Any:
        value = self._value(op.inputs[0])
        if isinstance(value, Constant):
            return Constant(value.values.reshape(self._shape(op.outputs[0])), value.slack)
        return value

    def _value(self, index: int) -> Any:
        if index < 0:
            return None
        if index not in self.values:
            self.values[index] = read_constant(self.part, index) or MISSING
        return self.values[index]

    def _bias(self, op: Any, value: Any) -> Any:
        """A bias without a scale has that of the product; an omitted bias is zeros."""
        if value is None:
            return Constant(np.zeros(self._outputs(op), np.float32))
        if isinstance(value, Constant) and not value.is_quantity and value.values.dtype == np.int32:
            scales = [self.part.tensors[i].quantization.scale for i in op.inputs[:2]]
            product = np.asarray(scales[0], np.float32) * np.asarray(scales[1], np.float32)
            return dequantized(value.values, self.part.tensors[op.inputs[2]], product)
        return value

    def _held_bias(self, op: Any, weights: list[Weight]) -> Held:
        weights.append(self._pool.add(np.zeros(self._outputs(op), np.float32), None))
        return Held(len(weights) - 1)

    def _outputs(self, op: Any) -> int:
        return self._shape(op.outputs[0])[-1]

    def _shape(self, index: int) -> Shape:
        return shape_of(self.part.tensors[index])
