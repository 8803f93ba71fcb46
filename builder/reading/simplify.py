"""Simplify a graph for inference: remove no-ops, and move leading pixel arithmetic into the pixel transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.reading.graph import INPUT, Graph, Node, Ref, renumber, upstream
from builder.reading.layers import does_nothing_at_inference, is_keras
from builder.reading.pixel_forms import without_leading_pixels
from builder.settings.input_scaling import PixelTransform


def simplify(graph: Graph, transform: PixelTransform) -> tuple[Graph, PixelTransform]:
    """The same function of the pixels with fewer nodes.

    ``transform``: the input scaling outside the model. Returns the graph, and the transform whose output is its input: it
    now includes the leading layers that treat all pixels alike.
    """
    behind, inside = without_leading_pixels(without_no_ops(graph), transform.channels)
    return behind, transform.followed_by(inside)


def without_no_ops(graph: Graph) -> Graph:
    """The graph without layers that return their input."""
    alias = {Ref(i, 0): next(node.inputs()) for i, node in enumerate(graph.nodes) if is_no_op(node)}
    return renumber(graph, [i for i in range(len(graph.nodes)) if Ref(i, 0) not in alias], alias)


def leading_resize(graph: Graph) -> tuple[Graph, tuple[int, int]] | None:
    """The graph after a ``Resizing`` that alone reads the pixels, and its height and width.

    None where there is none, or one that differs from the device's resizing: stretched, bilinear, without antialiasing.
    """
    readers = [i for i, node in enumerate(graph.nodes) if Ref(INPUT, 0) in node.inputs()]
    node = graph.nodes[readers[0]] if len(readers) == 1 else None
    if node is None or node.kind != "Resizing" or not is_keras(node.definition):
        return None
    config = node.config
    plain = config.get("interpolation", "bilinear") == "bilinear" and config.get("data_format") != "channels_first"
    if not plain or any(config.get(key) for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")):
        return None
    first = Ref(readers[0], 0)
    behind = renumber(graph, upstream(graph, [graph.output], [first]), {first: Ref(INPUT, 0)})
    return behind, (int(config["height"]), int(config["width"]))


def is_no_op(node: Node) -> bool:
    """Whether this call returns its input at inference."""
    if node.kind == "Activation":
        return is_linear(node)
    return does_nothing_at_inference(node.definition)


def is_linear(node: Node) -> bool:
    """Whether the node has no activation."""
    return _activation_name(node.config.get("activation")) == "linear"


def _activation_name(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("config")
    return "linear" if value is None else str(value)
