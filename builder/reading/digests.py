"""The digest of a tensor: a hash of the function that computes it from the input.

Two tensors have the same digest when the same kinds of layers, with the same settings that matter at inference and the
same weights, compute them from the same pixels or tokens. A digest covers everything before the tensor. Names, nesting,
training-time settings and the spelling of a setting do not matter: see ``spelling``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.reading.content import digest
from builder.reading.graph import INPUT, Graph, Node, Ref, renumber
from builder.reading.layers import is_keras
from builder.reading.padding import Padding, explicit_padding
from builder.reading.shapes import Shape, tensor_shapes
from builder.reading.spelling import (
    activation_form,
    does_nothing,
    is_bare_activation,
    is_commutative,
    keeps_weights,
    plain,
    reshapes,
    settings_form,
)


def tensor_digests(graph: Graph, source: str, shape: tuple[int | None, ...], *, with_weights: bool = True) -> list[str]:
    """The digest of each node's first output, in the graph's order.

    ``source``: the identity of the input; ``shape``: its shape, without the batch axis. ``with_weights``: False uses only
    the shapes of weights, so that equal digests mean the same architecture.
    """
    shapes = tensor_shapes(graph, shape)
    padding = explicit_padding(graph, shapes)
    numbers = _Numbers({source: shapes[Ref(INPUT, 0)]})
    found: list[str] = []

    def digest_of(ref: Ref) -> str:
        return f"{source if ref.node == INPUT else found[ref.node]}.{ref.output}"

    def same(ref: Ref) -> str:
        whole, _, output = digest_of(ref).rpartition(".")
        return whole if output == "0" else digest("output", whole, output)

    for i, node in enumerate(graph.nodes):
        refs = list(node.inputs())
        inputs, behind = [shapes.get(ref) for ref in refs], shapes[Ref(i, 0)]
        rank = len(inputs[0]) if inputs and inputs[0] else None
        activation = activation_form(node, len(behind) if behind else rank)
        kind, settings = settings_form(node, inputs)
        if reshapes(node) and behind is not None:
            result = numbers.reshaped(same(refs[0]), behind)
        elif does_nothing(node, kind, settings, inputs):
            result = same(refs[0])
        elif kind == "Transpose" and is_keras(node.definition) and settings["axes"] is not None and len(refs) == 1:
            result = numbers.transposed(same(refs[0]), settings["axes"])
        elif is_bare_activation(node) and activation is not None:
            result = digest("activation", activation, same(refs[0]))
        else:
            result = _digest_of_call(node, kind, settings, padding.get(i), digest_of, with_weights)
            if node.config.get("keepdims") and kind in ("ops.Mean", "ops.Max"):
                numbers.shapes.setdefault(result, _without(inputs[0], settings["axis"]))
                result = numbers.reshaped(result, behind)
            if activation is not None and "activation" in node.config:
                result = digest("activation", activation, result)
        numbers.shapes.setdefault(result, behind)
        found.append(result)
    return found


@dataclass(frozen=True)
class _Numbers:
    """Digests of reshaped and transposed tensors.

    ``shapes``: the first shape of the numbers of each digest.
    """

    shapes: dict[str, Shape | None]
    _unshaped: dict[str, str] = field(default_factory=dict)  # to the digest of the numbers before they were reshaped
    _turned: dict[str, tuple[str, list[int]]] = field(default_factory=dict)  # to that before, and the order of its axes

    def reshaped(self, numbers: str, wanted: Shape | None) -> str:
        """The digest of ``numbers`` reshaped; their own where that restores their first shape."""
        numbers = self._unshaped.get(numbers, numbers)
        if wanted is not None and wanted == self.shapes.get(numbers):
            return numbers
        result = digest("reshape", list(wanted) if wanted else None, numbers)
        self._unshaped[result] = numbers
        return result

    def transposed(self, numbers: str, order: list[int]) -> str:
        """The digest of ``numbers`` transposed; consecutive transpositions are combined."""
        first, before = self._turned.get(numbers, (numbers, list(range(len(order)))))
        both = [before[axis] for axis in order]
        if both == sorted(both):
            return first
        result = digest("Transpose", {"axes": both}, first)
        self._turned[result] = first, both
        return result


def one_node_each(graph: Graph, shape: tuple[int | None, ...]) -> Graph:
    """The graph with one node for each function: duplicates are merged, no-ops are removed."""
    first: dict[str, int] = {"input": INPUT}
    place = {i: first.setdefault(found, i) for i, found in enumerate(tensor_digests(graph, "input", shape))}
    read = {ref for node in graph.nodes for ref in node.inputs()} | {graph.output}
    alias = {ref: Ref(place[ref.node], ref.output) for ref in read if place.get(ref.node, ref.node) != ref.node}
    if graph.output in alias and alias[graph.output].node == INPUT:
        return graph  # a model that returns its input is refused elsewhere
    return renumber(graph, [i for i in place if place[i] == i], alias) if alias else graph


def _without(shape: Shape | None, axes: Any) -> Shape | None:
    return None if shape is None or axes is None else tuple(n for i, n in enumerate(shape) if i not in axes)


def settings_of(graph: Graph, index: int, shape: tuple[int | None, ...]) -> dict[str, Any]:
    """A node's settings in their canonical form. ``shape``: of the graph's input, without the batch axis."""
    shapes = tensor_shapes(graph, shape)
    node = graph.nodes[index]
    return settings_form(node, [shapes.get(ref) for ref in node.inputs()])[1]


def _digest_of_call(
    node: Node,
    kind: str,
    settings: Mapping[str, Any],
    padding: Padding | None,
    digest_of: Callable[[Ref], str],
    with_weights: bool,
) -> str:
    fused = activation_form(node, None) is not None or node.config.get("activation") == "linear"
    settings = {key: value for key, value in settings.items() if not (key == "activation" and fused)}
    arguments: list[Any] = [list(node.args), dict(node.kwargs)]
    if padding is not None:
        settings["padding"] = padding.amounts
        arguments = [[padding.source], node.kwargs]
    if is_commutative(node) and not node.kwargs:
        arguments = [[sorted(map(digest_of, node.inputs()))], _constants(node.args)]
    counted = node.weights if keeps_weights(node) else ()
    weights = [w.digest if with_weights else w.value.shape for w in counted]
    return digest(kind, settings, weights, plain(_digested(arguments, digest_of)))


def _constants(value: Any) -> list[Any]:
    """The arguments that are not tensors."""
    if isinstance(value, Ref):
        return []
    return [found for item in value for found in _constants(item)] if isinstance(value, (list, tuple)) else [value]


def _digested(value: Any, name: Callable[[Ref], str]) -> Any:
    if isinstance(value, Ref):
        return name(value)
    if isinstance(value, dict):
        return {key: _digested(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_digested(item, name) for item in value]
    return value
