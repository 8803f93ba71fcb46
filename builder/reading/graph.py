"""A Keras model as plain data: which layer is called on what, with which weights. Nested models are flattened.

Read from the configuration that Keras itself saves, so that a graph needs no live model and runs nobody's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from builder.support.naming import advice

MODEL_CLASSES = ("Functional", "Model", "Sequential")
INPUT = -1  # the node index that stands for the model's input


class Ref(NamedTuple):
    """Output ``output`` of node ``node``; node ``INPUT`` is the model's input."""

    node: int
    output: int


@dataclass(frozen=True, eq=False)
class Weight:
    """One array. ``digest``: of its dtype, its shape and every byte. ``slack``: how far each number may be from the one
    that it was rounded from, by a scale that differs between files; None where nothing is known to be lost.
    """

    value: np.ndarray
    digest: str
    slack: np.ndarray | None = None


class WeightPool:
    """Arrays by content: of 200 models with one base, the base's weights are in memory once."""

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
        yield from _refs([self.args, self.kwargs])


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, and the one output."""

    nodes: tuple[Node, ...]
    output: Ref

    @property
    def head_start(self) -> int:
        """The last node with weights: it and what follows is always the head's."""
        return max((i for i, node in enumerate(self.nodes) if node.weights), default=0)


Path = tuple[str, ...]  # names of the models around a layer, outermost child first, and its own


class UnreadableModelError(ValueError):
    """The model is not a graph of layers with one input and one output."""


class _Reader(NamedTuple):
    """What a walk through a definition carries along."""

    nodes: list[Node]
    weights: Mapping[Path, Sequence[np.ndarray]]
    pool: WeightPool
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def read_graph(
    definition: Mapping[str, Any],
    weights: Mapping[Path, Sequence[np.ndarray]],
    *,
    pool: WeightPool,
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    output: int | None = None,
) -> Graph:
    """The graph of a serialized Functional or Sequential model.

    ``weights``: of each layer that has any. ``canonical``: a layer's definition in the one spelling that all models are
    compared in. ``output``: the place of one in ``output_names``, of a model with several. Raises
    ``UnreadableModelError``.
    """
    reader = _Reader([], weights, pool, canonical)
    outputs = _read_model(definition, (), ([Ref(INPUT, 0)],), reader)
    if output is None and len(outputs) != 1:
        names = output_names(definition)
        raise UnreadableModelError(
            f"expected one output (batch, labels), found {len(outputs)}: {', '.join(names)!s:.200}; each can be a head: "
            f"add {advice('output_name', names[0] if names else 'NAME')}"
        )
    return _reachable(Graph(tuple(reader.nodes), outputs[output or 0]))


def output_names(definition: Mapping[str, Any]) -> list[str]:
    """What the outputs of a serialized model are called, in the order in which Keras gives them: by the keys of a dict,
    else by the layers that make them, numbered where one makes several. Of a Sequential model there is one.
    """
    structure = definition["config"].get("output_layers", [["output", 0, 0]])
    if isinstance(structure, dict):
        return [str(key) for key in sorted(structure)]
    layers = [str(name) for name, *_ in _histories(structure)]
    return [f"{name}_{layers[:i].count(name) + 1}" if name in layers[:i] else name for i, name in enumerate(layers)]


def input_shapes(definition: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The shape of each input of a serialized model, batch axis and all; None where it is left open."""
    config = definition["config"]
    if "input_layers" in config:
        names = [entry[0] for entry in _histories(config["input_layers"])]
        return [_shape_of(layer) for name in names for layer in config["layers"] if layer["config"]["name"] == name]
    first = config["layers"][0] if config["layers"] else definition
    if first["class_name"] in MODEL_CLASSES and first["config"].get("layers"):
        return input_shapes(first)
    shape = _shape_of(first) or (definition.get("build_config") or {}).get("input_shape")
    return [tuple(shape)] if shape else []


def _shape_of(layer: Mapping[str, Any]) -> tuple[Any, ...]:
    config = layer["config"]
    return tuple(config.get("batch_shape") or config.get("batch_input_shape") or ())


def map_refs(value: Any, change: Callable[[Ref], Any]) -> Any:
    """``value`` with every ``Ref`` in it replaced; lists, tuples and dicts keep their kind."""
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map_refs(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_refs(item, change) for key, item in value.items()}
    return value


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _refs(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _refs(item)


def _read_model(definition: Mapping[str, Any], path: Path, args: tuple[Any, ...], reader: _Reader) -> list[Ref]:
    if definition.get("class_name") not in MODEL_CLASSES:
        name = definition.get("class_name")
        raise UnreadableModelError(
            f"{name} is a model class of its own; rebuild it with Sequential or keras.Model(inputs, outputs)"
        )
    config = definition["config"]
    if "input_layers" not in config:
        return _read_sequential(config, path, list(_refs(args)), reader)
    return _read_functional(config, path, _in_order(config["input_layers"], args), reader)


def _in_order(wanted: Any, args: tuple[Any, ...]) -> list[Ref]:
    """The tensors of a call in the order of a model's inputs, which may both be dicts."""
    given = args[0] if args else None
    if isinstance(wanted, dict) and isinstance(given, dict):
        return [given[key] for key in sorted(wanted) if key in given]
    return list(_refs(args))


def _call(
    definition: Mapping[str, Any], path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any], reader: _Reader
) -> list[Ref]:
    """Append the call of one layer, or the inside of a nested model; returns its outputs as far as they are known."""
    if definition["class_name"] in MODEL_CLASSES:
        return _read_model(definition, path, args or tuple(kwargs.values()), reader)
    weights = tuple(map(reader.pool.add, reader.weights.get(path, ())))
    reader.nodes.append(Node("/".join(path), reader.canonical(definition), weights, args, kwargs))
    return [Ref(len(reader.nodes) - 1, 0)]


def _read_sequential(config: Mapping[str, Any], path: Path, inputs: list[Ref], reader: _Reader) -> list[Ref]:
    current = inputs
    for layer in config["layers"]:
        if layer["class_name"] != "InputLayer":
            current = _call(layer, (*path, layer["config"]["name"]), tuple(current), {}, reader)
    return current


def _read_functional(config: Mapping[str, Any], path: Path, inputs: list[Ref], reader: _Reader) -> list[Ref]:
    names = [entry[0] for entry in _histories(config["input_layers"])]
    if len(names) != len(inputs):
        raise UnreadableModelError(f"expected {len(inputs)} input, found {len(names)}: {', '.join(names)}")
    values: dict[tuple[str, int], list[Ref]] = {(name, 0): [ref] for name, ref in zip(names, inputs, strict=True)}
    pending = [
        (layer, number, call)
        for layer in config["layers"]
        if layer["class_name"] != "InputLayer"
        for number, call in enumerate(layer["inbound_nodes"])
    ]
    first = _first_calls(config)
    while pending:
        waiting = []
        for layer, number, call in pending:
            arguments = [call["args"], call["kwargs"]]
            if any(_find(values, h, first) is None for h in _tensor_histories(arguments)):
                waiting.append((layer, number, call))
                continue
            args, kwargs = _with_refs(arguments, values, first)
            # In Keras 3 the outermost call decides, and predict() says False; see ``formats.training`` for Keras 2.
            kwargs.pop("training", None)
            name = layer["config"]["name"]
            values[name, number] = _call(layer, (*path, name), tuple(args), kwargs, reader)
        if len(waiting) == len(pending):
            raise UnreadableModelError(f"layer {pending[0][0]['config']['name']} reads a tensor that no layer makes")
        pending = waiting
    models = {layer["config"]["name"] for layer in config["layers"] if layer["class_name"] in ("Functional", "Model")}
    # The calls of a nested Functional are counted from 1 here, and from 0 where other layers read them.
    ends = [
        (name, call - (name in models and call > 0), output) for name, call, output in _histories(config["output_layers"])
    ]
    outputs = [_find(values, entry, {}) for entry in ends]
    return [ref for ref in outputs if ref is not None]


def _first_calls(config: Mapping[str, Any]) -> dict[str, int]:
    """The number of the first call of each layer that is not counted from 0.

    Keras counts the calls of a nested model from 1 in some versions; then a number is as large as there are calls.
    """
    calls = {layer["config"]["name"]: len(layer.get("inbound_nodes") or ()) for layer in config["layers"]}
    read = _tensor_histories([layer.get("inbound_nodes") for layer in config["layers"]])
    return {name: 1 for name, call, _ in read if 0 < calls.get(name, 0) <= call}


def _find(values: Mapping[tuple[str, int], list[Ref]], history: Any, first: Mapping[str, int]) -> Ref | None:
    """The tensor of a Keras history [layer, call, output]; None where it is not there yet."""
    name, call, output = history
    found = values.get((name, call - first.get(name, 0)))
    if found is None:
        return None
    return found[output] if output < len(found) else Ref(found[0].node, output)


def _histories(structure: Any) -> list[Any]:
    """[layer, call, output] entries of ``input_layers`` and ``output_layers``, which may be one, a list, or a dict."""
    if isinstance(structure, dict):
        structure = [structure[key] for key in sorted(structure)]  # the order in which Keras counts a dict's tensors
    if structure and isinstance(structure[0], str):
        return [structure]
    return [entry for item in structure for entry in _histories(item)]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _tensor_histories(value: Any) -> Iterator[Any]:
    if _is_tensor(value):
        yield value["config"]["keras_history"]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensor_histories(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensor_histories(item)


def _with_refs(value: Any, values: Mapping[tuple[str, int], list[Ref]], first: Mapping[str, int]) -> Any:
    if _is_tensor(value):
        return _find(values, value["config"]["keras_history"], first)
    if isinstance(value, dict):
        return {key: _with_refs(item, values, first) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_refs(item, values, first) for item in value]
    return value


def _reachable(graph: Graph) -> Graph:
    """Without the nodes that the output does not need."""
    needed = upstream(graph, [graph.output])
    return graph if len(needed) == len(graph.nodes) else renumber(graph, needed)


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
    """The graph of the nodes ``keep``, in that order; a ``Ref`` in ``alias`` is read as what it stands for."""
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
