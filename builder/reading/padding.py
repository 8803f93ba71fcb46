"""Zeros around a picture: a ``ZeroPadding2D`` in front of a convolution, or ``same`` inside it, may be one function."""

from __future__ import annotations

from typing import Any, NamedTuple

from builder.reading.graph import INPUT, Graph, Node, Ref

Size = tuple[int, int]  # height, width
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
_POOLS = ("MaxPooling2D", "AveragePooling2D")
_SAME_SIZE = ("BatchNormalization", "Activation", "ReLU", "Add", "Multiply", "LeakyReLU", "PReLU", "ELU", "Rescaling")


class Padding(NamedTuple):
    """Zeros that a convolution reads beyond its input, and where that input comes from."""

    top_bottom: tuple[int, int]
    left_right: tuple[int, int]
    source: Ref


def explicit_padding(graph: Graph, size: Size | None) -> dict[int, Padding]:
    """For each convolution of which it is known: its padding in numbers, a ZeroPadding2D in front included.

    ``size``: of the graph's input, None where that is no picture. A convolution whose input size cannot be told is left
    out.
    """
    sizes: dict[int, Size | None] = {INPUT: size}
    found: dict[int, Padding] = {}
    for i, node in enumerate(graph.nodes):
        sources = list(node.inputs())
        inside = _size_of_inputs([None if ref.output else sizes.get(ref.node) for ref in sources])
        own = _own_padding(node, inside)
        if own is not None and node.kind in _CONVOLUTIONS:
            before = graph.nodes[sources[0].node] if sources[0].node != INPUT else None
            if before is not None and _is_zero_padding(before) and own == ((0, 0), (0, 0)):
                found[i] = Padding(*_amounts(before), next(before.inputs()))
            else:
                found[i] = Padding(*own, sources[0])
        sizes[i] = _size_behind(node, inside, own)
    return found


def _size_of_inputs(sizes: list[Size | None]) -> Size | None:
    """Of several inputs the known one that broadcasting cannot widen; the others are as large, or 1."""
    known = [size for size in sizes if size is not None]
    if len(sizes) == 1:
        return sizes[0]
    return next((size for size in known if min(size) > 1), None)


def _own_padding(node: Node, inside: Size | None) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """As TensorFlow pads: ``same`` adds what the last window lacks, the odd one at the end."""
    if node.kind not in (*_CONVOLUTIONS, *_POOLS) or node.config.get("data_format") == "channels_first":
        return None
    if node.config["padding"] == "valid":
        return (0, 0), (0, 0)
    if inside is None or node.config["padding"] != "same":
        return None
    window, strides = _window(node), _pair(node.config["strides"])
    totals = [
        max((-(-length // stride) - 1) * stride + k - length, 0)
        for length, k, stride in zip(inside, window, strides, strict=True)
    ]
    (top, left) = (total // 2 for total in totals)
    return (top, totals[0] - top), (left, totals[1] - left)


def _size_behind(node: Node, inside: Size | None, padding: Any) -> Size | None:
    if inside is None:
        return None
    if node.kind in _SAME_SIZE:
        return inside
    if _is_zero_padding(node):
        padding, window, strides = _amounts(node), (1, 1), (1, 1)
    elif padding is not None:
        window, strides = _window(node), _pair(node.config["strides"])
    else:
        return None
    height, width = (
        (length + sum(zeros) - k) // stride + 1
        for length, zeros, k, stride in zip(inside, padding, window, strides, strict=True)
    )
    return height, width


def _window(node: Node) -> Size:
    """Height and width that one output reads."""
    if node.kind in _POOLS:
        return _pair(node.config["pool_size"])
    size, dilation = _pair(node.config["kernel_size"]), _pair(node.config.get("dilation_rate", 1))
    return (size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1


def _is_zero_padding(node: Node) -> bool:
    return node.kind == "ZeroPadding2D" and node.config.get("data_format") != "channels_first"


def _amounts(node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    (top, bottom), (left, right) = node.config["padding"]
    return (top, bottom), (left, right)


def _pair(value: Any) -> Size:
    return (int(value[0]), int(value[1])) if isinstance(value, (list, tuple)) else (int(value), int(value))
