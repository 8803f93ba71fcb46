"""The canonical form of operators: converters of different years and frameworks write one function differently."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, WeightPool, renumber
from builder.reading.tflite.operators import Held, Shape, operator_node
from builder.tflite.flatbuffer import NO_ACTIVATION, VALID, activation_code

Amounts = tuple[tuple[int, int], ...]
FUSABLE = (
    "ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "MUL", "SUB",
)  # fmt: skip
ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")
WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D")


def in_one_form(graph: Graph, pool: WeightPool) -> Graph:
    """The same function with activations fused into the operators before them, global pools as means, 1x1 convolutions at
    one position as dense layers, and without no-ops.
    """
    graph = replace(graph, nodes=tuple(_as_dense(_as_mean(node), pool) for node in graph.nodes))
    readers: dict[Ref, int] = {graph.output: 1}
    for node in graph.nodes:
        for ref in node.inputs():
            readers[ref] = readers.get(ref, 0) + 1
    nodes, alias = list(graph.nodes), dict[Ref, Ref]()
    for i, node in enumerate(nodes):
        refs = list(node.inputs())
        if _does_nothing(node):
            alias[Ref(i, 0)] = refs[0]
            continue
        source = refs[0] if node.kind in ACTIVATIONS else None
        if source is not None and source.node != INPUT and readers[source] == 1:
            fused = _with_activation(nodes[source.node], node.kind)
            if fused is not None:
                nodes[source.node] = fused
                alias[Ref(i, 0)] = source
    keep = [i for i in range(len(nodes)) if Ref(i, 0) not in alias]
    return renumber(Graph(tuple(nodes), graph.output), keep, alias) if keep else graph


def size(shape: Shape) -> int:
    return math.prod(shape)


def same_padding(node: Node) -> Amounts | None:
    """The padding of a window before and after, for height and width; None for other operators."""
    if node.kind not in WINDOWS:
        return None
    settings, shape = node.config["settings"], node.config["shapes"][0]
    if settings["padding"] == VALID:
        return (0, 0), (0, 0)
    window = _window(node)
    totals = [
        max((-(-length // stride) - 1) * stride + k - length, 0)
        for length, k, stride in zip(shape[1:3], window, (settings["strideH"], settings["strideW"]), strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def zeros_around(node: Node) -> Amounts | None:
    """The amounts of a PAD that adds zeros around a picture; None for any other operator."""
    if node.kind != "PAD" or not isinstance(node.args[1], np.ndarray):
        return None
    amounts = np.asarray(node.args[1]).tolist()
    if len(amounts) != 4 or any(amounts[0]) or any(amounts[3]):
        return None
    return tuple((int(a), int(b)) for a, b in amounts[1:3])


def _window(node: Node) -> tuple[int, int]:
    settings = node.config["settings"]
    if node.kind.endswith("POOL_2D"):
        return settings["filterHeight"], settings["filterWidth"]
    kernel = node.weights[node.args[1].index].value.shape
    return tuple(
        (k - 1) * step + 1
        for k, step in zip(kernel[1:3], (settings["dilationHFactor"], settings["dilationWFactor"]), strict=True)
    )


def _as_mean(node: Node) -> Node:
    """A mean over all positions, in the order of MEAN's axes, without removed axes."""
    shapes: tuple[Shape | None, ...] = node.config["shapes"]
    shape = shapes[0] if shapes else None
    if shape is None:
        return node
    if node.kind == "AVERAGE_POOL_2D":
        whole = _window(node) == shape[1:3] and size(node.config["outputs"][0][1:3]) == 1
        if not whole or any(map(any, same_padding(node) or ())) or _fused(node) != NO_ACTIVATION:
            return node
        axes = [1, 2]
    elif node.kind == "MEAN" and isinstance(node.args[1], np.ndarray):
        axes = sorted({int(axis) % len(shape) for axis in np.ravel(node.args[1])})
    else:
        return node
    left = tuple(n for i, n in enumerate(shape) if i not in axes)
    return operator_node(
        node.layer, "MEAN", [node.args[0], np.asarray(axes, np.int32)], [],
        shapes=[shape, None], outputs=[left], table="ReducerOptions", settings={"keepDims": False},
    )  # fmt: skip


def _as_dense(node: Node, pool: WeightPool) -> Node:
    if node.kind != "CONV_2D" or not all(isinstance(arg, Held) for arg in node.args[1:]):
        return node
    kernel, bias = (node.weights[arg.index] for arg in node.args[1:])
    shape = node.config["shapes"][0]
    if kernel.value.shape[1:3] != (1, 1) or size(shape[:3]) != 1 or kernel.value.shape[3] != shape[3]:
        return node
    flat = pool.add(kernel.value.reshape(len(kernel.value), -1), kernel.slack)
    return operator_node(
        node.layer, "FULLY_CONNECTED", [node.args[0], Held(0), Held(1)], [flat, bias],
        shapes=[(1, shape[3]), None, None], outputs=[(1, len(kernel.value))], table="FullyConnectedOptions",
        settings={"fusedActivationFunction": _fused(node)},
    )  # fmt: skip


def _fused(node: Node) -> int:
    return int(node.config["settings"].get("fusedActivationFunction", NO_ACTIVATION))


def _with_activation(node: Node, kind: str) -> Node | None:
    """The node with a fused activation; None where it cannot have one or already has one."""
    if node.kind not in FUSABLE or _fused(node) != NO_ACTIVATION:
        return None
    settings = {**node.config["settings"], "fusedActivationFunction": activation_code(kind)}
    return replace(node, definition={**node.definition, "config": {**node.config, "settings": settings}})


def _does_nothing(node: Node) -> bool:
    shapes, outputs = node.config["shapes"], node.config["outputs"]
    if node.kind in ("PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        return bool(shapes[0] == outputs[0])
    if node.kind == "TRANSPOSE" and isinstance(node.args[1], np.ndarray):  # axes of length 1 may go anywhere
        moved = [int(axis) for axis in np.ravel(node.args[1]) if shapes[0][int(axis)] > 1]
        return bool(moved == sorted(moved))
    return False
