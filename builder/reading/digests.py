"""What a tensor is, by content: one digest for the function of the input that makes it.

Two tensors have one digest when the same kinds of layers, with the same settings that matter at inference and the same
weights, make them from the same pixels or tokens. A digest covers everything before it, so that equal digests of a
tensor mean equal everything up to there. Names, nesting and training-time settings do not enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from builder.reading.graph import INPUT, Graph, Node, Ref
from builder.reading.padding import Padding, explicit_padding
from builder.reading.simplify import ACTIVATION_LAYERS, activation_of


def tensor_digests(graph: Graph, source: str, size: tuple[int, int] | None, *, with_weights: bool = True) -> list[str]:
    """The digest of each node's first output, in the graph's order.

    ``source``: the identity of what enters. ``size``: height and width of the input, where it is a picture. Without
    weights only their shapes count: equal digests then mean one architecture.
    """
    found: list[str] = []
    padding = explicit_padding(graph, size)

    def digest_of(ref: Ref) -> str:
        return f"{source if ref.node == INPUT else found[ref.node]}.{ref.output}"

    for i, node in enumerate(graph.nodes):
        activation = activation_of(node)
        if node.kind in ACTIVATION_LAYERS and activation is not None:
            result = digest_of(next(node.inputs()))
        else:
            result = f"{_digest_of_call(node, activation, padding.get(i), digest_of, with_weights)}.0"
        # An activation is the same function inside a layer and behind it.
        plain = activation is None or activation == "linear"
        found.append(result.rpartition(".")[0] if plain else digest("activation", activation, result))
    return found


def settings_of(node: Node) -> dict[str, Any]:
    """A layer's settings in plain values, for comparing them."""
    settings: dict[str, Any] = _plain(node.config)
    return settings


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of_call(
    node: Node,
    activation: str | None,
    padding: Padding | None,
    digest_of: Callable[[Ref], str],
    with_weights: bool,
) -> str:
    settings, arguments = settings_of(node), [node.args, node.kwargs]
    if activation is not None:
        settings.pop("activation")
    if padding is not None:
        settings["padding"] = padding[:2]
        arguments = [[padding.source], node.kwargs]
    weights = [w.digest if with_weights else w.value.shape for w in node.weights]
    return digest(node.kind, settings, weights, _plain(_named(arguments, digest_of)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            return [value["class_name"], _plain(value["config"])]
        return {key: _plain(item) for key, item in value.items() if not (key == "mask" and item is None)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _named(value: Any, name: Callable[[Ref], str]) -> Any:
    if isinstance(value, Ref):
        return name(value)
    if isinstance(value, dict):
        return {key: _named(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(item, name) for item in value]
    return value
