"""The first layer that differs between two models, with the cause and the remedy."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.reading.classifier import Classifier
from builder.reading.graph import INPUT, Node
from builder.reading.layers import is_keras, weight_name
from builder.reading.source_input import source_input_difference
from builder.reading.spelling import activation_form, is_bare_activation

_FLOAT16_STEP = 2.0**-11  # largest relative error of rounding to float16
_INT8_STEP = 1 / 127  # a whole step, where a channel's scale comes from its largest value
_STATISTICS = ("moving_mean", "moving_variance")


@dataclass(frozen=True)
class Difference:
    """The first layer, from the input on, at which ``model`` differs from the first model.

    ``what``: the difference in plain words. ``advice``: what it means and what to do.
    """

    model: str
    layer: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.what}. {self.advice}"


def first_difference(first: Classifier, other: Classifier) -> Difference | None:
    """The first layer of ``other`` that differs from ``first``; None where none does."""
    place = _first_of_its_own(other, first)
    if place is None:
        return None
    node = other.graph.nodes[place]
    what, advice = _explain(first, other, node, place)
    return Difference(other.name, node.layer, what, advice)


def _first_of_its_own(classifier: Classifier, other: Classifier) -> int | None:
    """The first node that the other does not compute, and whose readers it does not compute either.

    A ZeroPadding layer that the other has as padding inside its convolution, or a convolution whose activation the other
    has in the same layer, is no difference.
    """
    known, graph = set(other.digests), classifier.graph
    unknown = [i for i, found in enumerate(classifier.digests) if found not in known]
    for i in unknown:
        readers = [k for k, node in enumerate(graph.nodes) if any(ref.node == i for ref in node.inputs())]
        if not readers or set(readers) & set(unknown):
            return i
    return None


def _explain(first: Classifier, other: Classifier, node: Node, place: int) -> tuple[str, str]:
    entered = source_input_difference(first.source_input, other.source_input, first.name)
    if entered is not None:
        return entered
    known = counterparts(first, other)
    if place not in known:
        index = _first_of_its_own(first, other)
        index = len(first.digests) - 1 if index is None else index
        return (
            _describe_layers(first, index, other, place),
            "From here on the architectures differ; only layers of the same architecture can be shared",
        )
    return _describe_weights(known[place], node), _advice(first, other, known)


def counterparts(first: Classifier, other: Classifier) -> dict[int, Node]:
    """Map nodes of ``other`` to the nodes of ``first`` at the same place in the architecture, without the heads."""
    places: dict[str, deque[Node]] = defaultdict(deque)  # branches of one structure come in the same order
    for key, node in list(zip(first.structure, first.graph.nodes, strict=True))[: first.graph.head_start]:
        places[key].append(node)
    keys = other.structure[: other.graph.head_start]
    return {i: places[key].popleft() for i, key in enumerate(keys) if places[key]}


def _describe_layers(first: Classifier, index: int, other: Classifier, place: int) -> str:
    zeros = _is_zeros(first.graph.nodes[index]) != _is_zeros(other.graph.nodes[place])
    if zeros:
        index, place = _behind_zeros(first, index), _behind_zeros(other, place)
    ours, theirs = first.graph.nodes[index], other.graph.nodes[place]
    if ours.kind != theirs.kind and not (_is_activation(ours) and _is_activation(theirs)):
        return f"{theirs.kind} where the other has {ours.kind} ({ours.layer!r})"
    settings, others = (c.settings(i) for c, i in ((other, place), (first, index)))
    ends = [_activation(c, i) for c, i in ((other, place), (first, index))]
    if ends[0] != ends[1]:
        return f"its activation is {ends[0]} where the other has {ends[1]}"
    padding = {"padding"} if zeros else set()  # a ZeroPadding layer and a convolution's own padding are compared as one
    for key in sorted({*settings, *others} - {"activation"} - padding):
        if settings.get(key) != others.get(key):
            found, expected = (n.config.get(key, s.get(key)) for n, s in ((theirs, settings), (ours, others)))
            return f"{key} is {found!r} where the other has {expected!r}"
    shapes = [[w.value.shape for w in node.weights] for node in (theirs, ours)]
    if shapes[0] != shapes[1]:
        return f"weights of shapes {shapes[0]} where the other has {shapes[1]}"
    return f"{_zeros(other, place)} where the other has {_zeros(first, index)}" if zeros else "it reads other tensors"


def _is_zeros(node: Node) -> bool:
    return node.kind.startswith("ZeroPadding") and is_keras(node.definition)


def _behind_zeros(classifier: Classifier, place: int) -> int:
    """The only reader of a ZeroPadding layer; any other layer is itself."""
    nodes = classifier.graph.nodes
    readers = [i for i, node in enumerate(nodes) if any(ref.node == place for ref in node.inputs())]
    return readers[0] if _is_zeros(nodes[place]) and len(readers) == 1 else place


def _zeros(classifier: Classifier, place: int) -> str:
    """A layer's padding in words, its own or that of a ZeroPadding layer before it."""
    node = classifier.graph.nodes[place]
    before = [classifier.graph.nodes[ref.node] for ref in node.inputs() if ref.node != INPUT]
    said = [f"{zeros.config.get('padding')!r} zeros in front ({zeros.layer!r})" for zeros in before if _is_zeros(zeros)]
    return said[0] if said else f"padding {node.config.get('padding')!r}"


def _activation(classifier: Classifier, place: int) -> str:
    """A layer's activation in words, its own or that of an activation layer after it."""
    graph = classifier.graph
    behind = [node for node in graph.nodes if any(ref.node == place for ref in node.inputs())]
    chain = [graph.nodes[place], *(node for node in behind if len(behind) == 1 and _is_activation(node))]
    forms = [form for form in (activation_form(node, None) for node in chain) if form is not None]
    return " ".join(_written(form) for form in forms) or "none"


def _is_activation(node: Node) -> bool:
    return is_bare_activation(node) and activation_form(node, None) is not None


def _written(form: list[Any]) -> str:
    """An activation's name; a ReLU of three numbers becomes ``relu`` or ``relu6`` where it is one."""
    name, *numbers = form
    if name == "relu" and numbers[1:] in ([None, 0], [6, 0]) and numbers[0] == 0:
        return "relu6" if numbers[1] else "relu"
    return name if name == "softmax" or not numbers else f"{name}{tuple(numbers)}"


def _describe_weights(ours: Node, theirs: Node) -> str:
    told, same = [], []
    for name, a, b in _pairs(ours, theirs):
        if a is b:
            same.append(name)
        else:
            told.append(f"{name} differs by up to {np.max(np.abs(a.astype(np.float64) - b)):.3g}")
    return ", ".join(told) + (f" while {', '.join(same)} agree" if same else "")


def _pairs(ours: Node, theirs: Node) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (name, weight, weight of the other); both are the same object where they are equal."""
    for i, (a, b) in enumerate(zip(ours.weights, theirs.weights, strict=True)):
        yield weight_name(theirs.kind, theirs.config, i), a.value, a.value if a.digest == b.digest else b.value


def _advice(first: Classifier, other: Classifier, counterparts: dict[int, Node]) -> str:
    """The likely cause, told from all weights that differ, and what to do about it."""
    pairs = [pair for i, ours in counterparts.items() for pair in _pairs(ours, other.graph.nodes[i])]
    changed = [(name, a, b) for name, a, b in pairs if a is not b]
    if all(distance(a, b) <= _FLOAT16_STEP for _, a, b in changed):
        return (
            "All differences are as small as rounding to float16 makes them: one file was stored in float16; "
            "tolerance = 0.001 (--tolerance 0.001) treats the weights as equal"
        )
    if first.is_exact != other.is_exact and all(distance(a, b) <= _INT8_STEP for _, a, b in changed):
        rounded, exact = (other, first) if first.is_exact else (first, other)
        return (
            f"All differences are as small as rounding to int8 makes them: {rounded.name} was quantized, {exact.name} "
            "was not; use the float file of both (Teachable Machine calls it model_unquant.tflite), or the quantized "
            "file of both"
        )
    if all(name in _STATISTICS for name, _, _ in changed):
        return (
            f"All kernels agree: the base was run in training mode when {other.name} or {first.name} was trained; "
            "call it with training=False and train that head again"
        )
    kernels = [(a, b) for name, a, b in pairs if "kernel" in name]
    if kernels and all(a is not b for a, b in kernels):
        return "Every kernel differs: the bases are different checkpoints; train both heads on the same frozen base"
    return (
        "The base was fine-tuned from here on (trainable was not False); the layers before are the same. "
        "Set base.trainable = False and train that head again to share the whole base"
    )


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two arrays of one shape, relative to the largest value of the first."""
    difference = float(np.max(np.abs(a.astype(np.float64) - b), initial=0))
    return difference / max(float(np.max(np.abs(a), initial=0)), 1e-30) if difference else 0.0
