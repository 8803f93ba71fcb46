"""Digests of a file's tensors: equal for equal values, whatever their shape.

As in ``builder.reading.digests``, but for operators: fused and separate activations, padding in numbers, operators whose
inputs commute. Shapes count only where an operator needs them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from builder.reading.content import digest
from builder.reading.graph import INPUT, Graph, Node, Ref
from builder.reading.tflite.forms import ACTIVATIONS, same_padding, size, zeros_around
from builder.reading.tflite.operators import Held
from builder.tflite.flatbuffer import NO_ACTIVATION, activation_name

_COMMUTATIVE = ("ADD", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")
_ELEMENTWISE = (
    *ACTIVATIONS,
    "ELU",
    "EXP",
    "GELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "NEG",
    "RSQRT",
    "SQRT",
    "TANH",
)
_SPELLINGS = ("fusedActivationFunction", "padding")  # covered by other parts of a digest


def operator_digests(graph: Graph, source: str, *, with_weights: bool = True) -> list[str]:
    """The digest of each node's first output, in the graph's order; further outputs differ by their index.

    ``source``: the identity of the input. Without weights only their shapes count.
    """
    found: list[str] = []

    def of(ref: Ref) -> str:
        own = source if ref.node == INPUT else found[ref.node]
        return own if ref.output == 0 else digest("output", own, ref.output)

    for node in graph.nodes:
        found.append(_digest(graph, node, of, with_weights))
    return found


def _digest(graph: Graph, node: Node, of: Any, with_weights: bool) -> str:
    settings = node.config["settings"]
    refs, shapes = list(node.inputs()), [s for s in node.config["shapes"] if s is not None]
    if node.kind in ACTIVATIONS:
        return digest("activation", node.kind, of(refs[0]))
    own = {key: value for key, value in settings.items() if key not in _SPELLINGS}
    if isinstance(own.get("axis"), int) and shapes:
        own["axis"] %= max(len(shapes[0]), 1)
    padding = same_padding(node)
    if padding is not None:
        before = graph.nodes[refs[0].node] if refs[0].node != INPUT else None
        zeros = zeros_around(before) if before is not None and not any(map(any, padding)) else None
        if before is not None and zeros is not None and not node.kind.endswith("POOL_2D"):
            padding, refs, shapes = zeros, list(before.inputs()), [before.config["shapes"][0]]
        own["padding"] = padding
    if node.kind == "FULLY_CONNECTED":
        shapes = [(size(shapes[0]) // node.weights[0].value.shape[-1],)] if node.weights else shapes
        own.pop("keepNumDims", None)
    elif node.kind == "SOFTMAX":
        shapes = [(shapes[0][-1],)]
    elif node.kind in _ELEMENTWISE:
        shapes = []
    weights = [w.digest if with_weights else w.value.shape for w in node.weights]
    constants = [a.tolist() if isinstance(a, np.ndarray) else None for a in node.args]
    inputs = [of(ref) for ref in refs]
    if node.kind in _COMMUTATIVE:
        order = sorted(zip(inputs, shapes, strict=True), key=str)
        inputs, shapes, places = [a for a, _ in order], [b for _, b in order], None
    else:
        places = [isinstance(a, Held) for a in node.args]
    result = digest(node.kind, own, shapes, weights, constants, places, inputs)
    fused = settings.get("fusedActivationFunction", NO_ACTIVATION)
    return result if fused == NO_ACTIVATION else digest("activation", activation_name(fused), result)
