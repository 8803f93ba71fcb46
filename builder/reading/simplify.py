"""What a graph computes at inference: no-ops leave, and leading pixel arithmetic becomes part of the pixel transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, renumber
from builder.reading.layers import does_nothing_at_inference, is_keras
from builder.reading.spelling import moments
from builder.settings.input_scaling import CHANNELS, PixelTransform

ACTIVATION_LAYERS = ("Activation", "ReLU", "Softmax")  # which are nothing else, where ``activation_of`` names them
_ACTIVATION_LAST = {
    "Activation", "Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose",
    "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
}  # fmt: skip
_RELUS = {None: "relu", 6: "relu6"}


def simplify(graph: Graph, transform: PixelTransform) -> tuple[Graph, PixelTransform]:
    """The same function of the pixels with fewer nodes.

    ``transform``: what happens to the pixels before the model. Returns the graph, whose input is now the output of the
    returned transform: Rescaling and Normalization layers that stood in front have moved into it.
    """
    alias = {Ref(i, 0): next(node.inputs()) for i, node in enumerate(graph.nodes) if is_no_op(node)}
    readers: dict[Ref, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if Ref(i, 0) not in alias:
            for ref in node.inputs():
                readers.setdefault(_behind(ref, alias), []).append(i)
    end, first = _behind(graph.output, alias), Ref(INPUT, 0)
    while len(found := readers.get(first, [])) == 1 and end != Ref(found[0], 0):
        affine = _affine(graph.nodes[found[0]])
        if affine is None:
            break
        transform = transform.then(*affine)
        first = Ref(found[0], 0)
        alias[first] = Ref(INPUT, 0)
    return renumber(graph, [i for i in range(len(graph.nodes)) if Ref(i, 0) not in alias], alias), transform


def _behind(ref: Ref, alias: Mapping[Ref, Ref]) -> Ref:
    while ref in alias:
        ref = alias[ref]
    return ref


def is_no_op(node: Node) -> bool:
    """Does this call return its input at inference?"""
    if node.kind == "Activation":
        return _activation_name(node.config.get("activation")) == "linear"
    return does_nothing_at_inference(node.definition)


def activation_of(node: Node) -> str | None:
    """The name of the activation a node ends with: ``softmax``, ``relu6``, ``linear``, ...; None where it has none.

    A layer that is an activation with settings of its own (a leaky ReLU, a softmax over another axis) has no name here.
    """
    if node.kind == "Softmax" and node.config.get("axis") == -1:
        return "softmax"
    if node.kind == "ReLU" and not node.config.get("negative_slope") and not node.config.get("threshold"):
        return _RELUS.get(node.config.get("max_value"))
    return _activation_name(node.config.get("activation")) if node.kind in _ACTIVATION_LAST else None


def _activation_name(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("config")
    return "linear" if value is None else str(value)


def _affine(node: Node) -> tuple[Any, Any] | None:
    """(scale, offset) of a layer or an operation that is affine in each channel; None for others."""
    if not is_keras(node.definition):
        return None
    if node.kind == "Rescaling":
        scale, offset = node.config["scale"], node.config.get("offset", 0.0)
    elif node.kind == "Normalization" and set(np.ravel(node.config["axis"]).tolist()) <= {-1, 3, None}:
        mean, deviation = moments(node)
        # As Keras computes it: (x - mean) / deviation, and its inverse on request.
        scale, offset = (deviation, mean) if node.config.get("invert") else (1 / deviation, -mean / deviation)
    elif node.kind in _ARITHMETIC and ".ops." in str(node.definition.get("module")):
        found = _arithmetic(node)
        if found is None:
            return None
        scale, offset = found
    else:
        return None
    if not all(np.size(v) in (1, CHANNELS) for v in (scale, offset)):
        return None
    return scale, offset


def _arithmetic(node: Node) -> tuple[Any, Any] | None:
    """Of one tensor with one constant, as ``preprocess_input`` leaves it in a model."""
    given = [*node.args, *node.kwargs.values()]
    tensor = [isinstance(value, Ref) for value in given]
    if len(given) != 2 or sum(tensor) != 1:
        return None
    constant = _constant(given[tensor.index(False)])
    if constant is None or constant.size not in (1, CHANNELS) or constant.shape[-1:] not in ((), (1,), (CHANNELS,)):
        return None
    return _ARITHMETIC[node.kind](constant.ravel(), tensor[0])


def _constant(value: Any) -> np.ndarray | None:
    if isinstance(value, Mapping) and value.get("class_name") in ("__tensor__", "__numpy__"):
        value = value["config"]["value"]
    return (
        np.asarray(value, np.float64) if isinstance(value, (int, float, list)) and not isinstance(value, bool) else None
    )


# From a constant, and whether the tensor stands before it, to scale and offset; None where it is not affine.
_ARITHMETIC: dict[str, Callable[[np.ndarray, bool], tuple[Any, Any] | None]] = {
    "Add": lambda c, first: (1.0, c),
    "Subtract": lambda c, first: (1.0, -c) if first else (-1.0, c),
    "Multiply": lambda c, first: (c, 0.0),
    **dict.fromkeys(("TrueDivide", "Divide"), lambda c, first: (1 / c, 0.0) if first and np.all(c) else None),
}
