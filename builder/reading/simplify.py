"""What a graph computes at inference: no-ops leave, and leading pixel arithmetic becomes part of the pixel transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, renumber
from builder.settings.input_scaling import CHANNELS, PixelTransform

_NO_OPS = {
    "ActivityRegularization",
    "AlphaDropout",
    "AutoContrast",
    "CutMix",
    "Dropout",
    "Equalization",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "MixUp",
    "RandAugment",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
}
ACTIVATION_LAYERS = ("Activation", "ReLU", "Softmax")  # which are nothing else, where ``activation_of`` names them
_ACTIVATION_LAST = {
    "Activation", "Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose",
    "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
}  # fmt: skip
_RELUS = {None: "relu", 6: "relu6"}
# These change pictures at inference too, whatever their names suggest.
_ALWAYS_ON = {"RandomCrop", "Equalization", "AutoContrast"}


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
    if node.kind in _ALWAYS_ON:
        return False
    return node.kind in _NO_OPS or node.kind.startswith("Random")


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
    """(scale, offset) of a layer that is affine in each channel; None for others."""
    if node.kind == "Rescaling":
        scale, offset = node.config["scale"], node.config.get("offset", 0.0)
    elif node.kind == "Normalization" and set(np.ravel(node.config["axis"]).tolist()) <= {-1, 3, None}:
        mean, variance = _moments(node)
        # As Keras computes it: (x - mean) / max(sqrt(variance), epsilon), and its inverse on request.
        deviation = np.maximum(np.sqrt(variance), 1e-7)
        scale, offset = 1 / deviation, -mean / deviation
        if node.config.get("invert"):
            scale, offset = deviation, mean
    else:
        return None
    if not all(np.size(v) in (1, CHANNELS) for v in (scale, offset)):
        return None
    return scale, offset


def _moments(node: Node) -> tuple[np.ndarray, np.ndarray]:
    if node.config.get("mean") is not None:
        return np.asarray(node.config["mean"], np.float64), np.asarray(node.config["variance"], np.float64)
    mean, variance = (weight.value.astype(np.float64) for weight in node.weights[:2])
    return mean, variance
