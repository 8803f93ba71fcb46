"""The shape of every tensor of a graph, computed by Keras's layers without building or running them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from builder.reading.graph import INPUT, Graph, Node, Ref, map_refs
from builder.reading.layers import is_keras, made
from builder.support.lazy import Lazy

keras: Any = Lazy("keras")

Shape = tuple[int | None, ...]  # batch axis included
# What Keras raises on contradictory settings and shapes: they come from an untrusted file.
_UNFIT = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, ImportError, NotImplementedError)


def is_operation(node: Node) -> bool:
    return ".ops." in f"{node.definition.get('module')}."


def tensor_shapes(
    graph: Graph,
    shape: tuple[int | None, ...],
    nodes: Iterable[int] | None = None,
    given: Mapping[Ref, Shape | None] | None = None,
) -> dict[Ref, Shape | None]:
    """Shapes of all first outputs; None where unknown. ``shape``: of the input, without the batch axis.

    ``nodes``: only these, starting from the tensors in ``given``.
    """
    found: dict[Ref, Shape | None] = {Ref(INPUT, 0): (None, *shape), **(given or {})}
    for i in range(len(graph.nodes)) if nodes is None else nodes:
        node = graph.nodes[i]
        known = all(found.get(ref) is not None for ref in node.inputs())
        found[Ref(i, 0)] = _shape_behind(node, found) if known and is_keras(node.definition) else None
    return found


def _shape_behind(node: Node, shapes: Mapping[Ref, Shape | None]) -> Shape | None:
    try:
        layer = _made(json.dumps({**node.definition, "config": dict(node.config)}, default=str))
        if is_operation(node):
            symbols = [map_refs(_constants(part), lambda ref: keras.KerasTensor(shapes[ref])) for part in _parts(node)]
            result = layer.compute_output_spec(*symbols[0], **symbols[1])
            return _first(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), result))
        if type(layer).compute_output_shape is keras.layers.Layer.compute_output_shape:
            return None  # Keras would run it
        given = [map_refs(arg, shapes.__getitem__) for arg in node.args if _has_ref(arg)]
        return _first(layer.compute_output_shape(*given))
    except _UNFIT:
        return None


def _parts(node: Node) -> tuple[Any, Any]:
    return list(node.args), dict(node.kwargs)


def _has_ref(value: Any) -> list[Ref]:
    found: list[Ref] = []
    map_refs(value, found.append)
    return found


def _first(shape: Any) -> Shape | None:
    """The shape of the first of one or several outputs."""
    if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], (list, tuple)):
        shape = shape[0]
    return tuple(shape) if isinstance(shape, (list, tuple)) else None


@lru_cache(maxsize=4096)
def _made(definition: str) -> Any:
    return made(json.loads(definition))


def _constants(value: Any) -> Any:
    if isinstance(value, Ref):
        return value
    if isinstance(value, Mapping):
        return made(dict(value)) if "class_name" in value else value
    return type(value)(_constants(item) for item in value) if isinstance(value, (list, tuple)) else value
