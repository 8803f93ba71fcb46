"""A model as plain data: layers, their inputs and their weights. ``keras_graph.py`` reads one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

INPUT = -1  # the node index that stands for the model's input


class Ref(NamedTuple):
    """Output ``output`` of node ``node``; node ``INPUT`` is the model's input."""

    node: int
    output: int


@dataclass(frozen=True, eq=False)
class Weight:
    """One array. ``digest``: of its dtype, its shape and every byte. ``slack``: the largest rounding error of each
    number, where it was rounded by a scale that differs between files; None where it was not rounded.
    """

    value: np.ndarray
    digest: str
    slack: np.ndarray | None = None


class WeightPool:
    """Arrays by content: the weights of a base that 200 models share are in memory once."""

    def __init__(self) -> None:
        self._known: dict[str, Weight] = {}

    def add(self, value: np.ndarray, slack: np.ndarray | None = None) -> Weight:
        header = f"{value.dtype}{value.shape}".encode()
        digest = hashlib.sha256(header + np.ascontiguousarray(value).tobytes()).hexdigest()
        if slack is not None:
            return Weight(value, digest, slack)
        return self._known.setdefault(digest, Weight(value, digest))


@dataclass(frozen=True)
class Node:
    """One call of one layer. ``args`` and ``kwargs`` hold a ``Ref`` wherever Keras holds a tensor."""

    layer: str  # names from the outermost model inwards, joined by "/"
    definition: Mapping[str, Any]  # Keras's serialized layer: module, class_name, config
    weights: tuple[Weight, ...]  # in the order of ``get_weights``
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.definition["class_name"])

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.definition["config"]
        return config

    @property
    def parameters(self) -> int:
        return sum(w.value.size for w in self.weights)

    def inputs(self) -> Iterator[Ref]:
        yield from refs_in([self.args, self.kwargs])


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, and the one output."""

    nodes: tuple[Node, ...]
    output: Ref

    @property
    def head_start(self) -> int:
        """The last node with weights; it and all that follow always belong to the head."""
        return max((i for i, node in enumerate(self.nodes) if node.weights), default=0)


class UnreadableModelError(ValueError):
    """The model is not a graph of layers with one input and one output."""


def map_refs(value: Any, change: Callable[[Ref], Any]) -> Any:
    """``value`` with every ``Ref`` in it replaced; lists, tuples and dicts keep their kind."""
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map_refs(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_refs(item, change) for key, item in value.items()}
    return value


def refs_in(value: Any) -> Iterator[Ref]:
    """Every ``Ref`` in lists, tuples and dicts, in their order."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from refs_in(item)


def upstream(graph: Graph, outputs: Iterable[Ref], stops: Iterable[Ref] = ()) -> list[int]:
    """The nodes that ``outputs`` need, in the graph's order, without what lies before ``stops``."""
    ends, stack, found = set(stops), list(outputs), set[int]()
    while stack:
        ref = stack.pop()
        if ref.node != INPUT and ref not in ends and ref.node not in found:
            found.add(ref.node)
            stack.extend(graph.nodes[ref.node].inputs())
    return sorted(found)


def renumber(graph: Graph, keep: list[int], alias: Mapping[Ref, Ref] | None = None) -> Graph:
    """The graph of the nodes ``keep``, in that order; each ``Ref`` in ``alias`` is replaced."""
    place = {old: new for new, old in enumerate(keep)} | {INPUT: INPUT}
    alias = alias or {}

    def change(ref: Ref) -> Ref:
        while ref in alias:
            ref = alias[ref]
        return Ref(place[ref.node], ref.output)

    nodes = (graph.nodes[i] for i in keep)
    changed = tuple(
        Node(n.layer, n.definition, n.weights, map_refs(n.args, change), map_refs(dict(n.kwargs), change)) for n in nodes
    )
    return Graph(changed, change(graph.output))
