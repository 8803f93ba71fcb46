"""Compare padding: a ZeroPadding layer before a convolution and ``same`` inside it may be the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from builder.reading.graph import INPUT, Graph, Node, Ref
from builder.reading.layers import is_keras
from builder.reading.shapes import Shape

Amounts = tuple[tuple[int, int], ...]  # before and after, for each spatial axis
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
_POOLS = tuple(f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3))
_ZEROS = ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")


class Padding(NamedTuple):
    """The padding of a window, and the source of its input."""

    amounts: Amounts
    source: Ref


def explicit_padding(graph: Graph, shapes: Mapping[Ref, Shape | None]) -> dict[int, Padding]:
    """The padding of each convolution and pooling in numbers, including a ZeroPadding layer before it.

    Nodes with an unknown input size are left out. A ZeroPadding before a pooling stays a separate layer: a pooling does
    not treat its own padding as zeros.
    """
    found: dict[int, Padding] = {}
    for i, node in enumerate(graph.nodes):
        if not is_keras(node.definition) or node.kind not in (*_CONVOLUTIONS, *_POOLS):
            continue
        source = next(node.inputs())
        own = _own_padding(node, shapes.get(source))
        if own is None:
            continue
        before = graph.nodes[source.node] if source.node != INPUT else None
        if before is not None and node.kind in _CONVOLUTIONS and _is_zero_padding(before) and not any(map(any, own)):
            source = next(before.inputs())
            found[i] = Padding(_read(_amounts(before), node, shapes.get(source)), source)
        else:
            found[i] = Padding(own, source)
    return found


def _own_padding(node: Node, shape: Shape | None) -> Amounts | None:
    """Padding as in TensorFlow: ``same`` adds what the last window lacks, an odd one at the end."""
    window = _window(node)
    if node.config.get("data_format") == "channels_first":
        return None
    if node.config["padding"] == "valid":
        return tuple((0, 0) for _ in window)
    if shape is None or None in shape[1:-1] or node.config["padding"] != "same":
        return None
    totals = [
        max((-(-length // stride) - 1) * stride + k - length, 0)
        for length, k, stride in zip(shape[1:-1], window, _sizes(node.config["strides"], len(window)), strict=True)
        if length is not None
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def _read(amounts: Amounts, node: Node, shape: Shape | None) -> Amounts:
    """The padding without zeros after the last window, which nothing reads."""
    if shape is None or None in shape[1:-1]:
        return amounts
    kept = []
    strides = _sizes(node.config["strides"], len(amounts))
    for (before, after), length, k, stride in zip(amounts, shape[1:-1], _window(node), strides, strict=True):
        assert length is not None
        unread = (before + length + after - k) % stride
        kept.append((before, max(after - unread, 0)))
    return tuple(kept)


def _window(node: Node) -> tuple[int, ...]:
    """The extent of a window along each spatial axis, dilation included."""
    count = int(node.kind[-2])
    if node.kind in _POOLS:
        return _sizes(node.config["pool_size"], count)
    size, dilation = _sizes(node.config["kernel_size"], count), _sizes(node.config.get("dilation_rate", 1), count)
    return tuple((k - 1) * step + 1 for k, step in zip(size, dilation, strict=True))


def _is_zero_padding(node: Node) -> bool:
    return node.kind in _ZEROS and is_keras(node.definition) and node.config.get("data_format") != "channels_first"


def _amounts(node: Node) -> Amounts:
    padding = node.config["padding"]
    return tuple((int(a), int(b)) for a, b in ([padding] if node.kind == "ZeroPadding1D" else padding))


def _sizes(value: Any, count: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),) * count
