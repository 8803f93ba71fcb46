"""The joint head as a subgraph: features and the logits of every head -> one list of scores.

All of it is float: the vectors are short, and a product of two int8 probabilities would be coarse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.joint.assembler import Assembler
from builder.joint.logistic import log_softmax
from builder.joint.router import Router, pooled
from builder.tflite.flatbuffer import Part
from builder.tflite.link import JOINT_SEAM
from edge_runtime.metadata import JOINT, HeadInfo

NONE = "none"
_FAR = -1e4  # a logit that no probability is left of: fills the places of heads with fewer labels than others


@dataclass(frozen=True)
class Layout:
    """The joint list. ``members``: for each of its ``labels`` the labels (head, index) whose scores add up to it;
    ``none``, where there is one, is the last and has no members.
    """

    heads: tuple[HeadInfo, ...]
    labels: tuple[str, ...]
    members: tuple[tuple[tuple[int, int], ...], ...]
    none: bool

    @property
    def most_labels(self) -> int:
        return max(len(head.labels) for head in self.heads)

    def shared(self) -> list[str]:
        """Labels that more than one head has."""
        everything = [label for head in self.heads for label in head.labels]
        return sorted({label for label in everything if everything.count(label) > 1})


def lay_out(heads: Sequence[HeadInfo], *, none: bool, merge: bool) -> Layout:
    """All labels in the order of the heads.

    A label that two heads have is called ``head/label`` in each, or, with ``merge``, stands once, where it comes first,
    if the heads are softmax heads. A head's label ``none`` is called ``head/none`` beside the list's own.
    """
    counts: dict[str, int] = {NONE: 1} if none else {}
    for label in (label for head in heads for label in head.labels):
        counts[label] = counts.get(label, 0) + 1
    found: dict[str, list[tuple[int, int]]] = {}
    for h, head in enumerate(heads):
        for i, label in enumerate(head.labels):
            plain = counts[label] == 1 or (merge and label != NONE and head.activation == "softmax")
            found.setdefault(label if plain else f"{head.head_name}/{label}", []).append((h, i))
    members = tuple(map(tuple, found.values()))
    return Layout(tuple(heads), (*found, *([NONE] if none else [])), (*members, *([()] if none else [])), none)


def reference(
    router: Router, layout: Layout, features: np.ndarray, logits: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What the subgraph computes, in plain numpy: scores (pictures, labels) and P(heads) (pictures, classes), float64.

    ``features``: real (pictures, ...). ``logits``: real (pictures, labels) of each head.
    """
    classes = router.probabilities(pooled(features), logits)
    given = [
        1 / (1 + np.exp(-z.astype(np.float64))) if head.activation == "sigmoid" else np.exp(log_softmax(z.astype(float)))
        for head, z in zip(layout.heads, logits, strict=True)
    ]
    columns = [sum(classes[:, h] * given[h][:, i] for h, i in own) if own else classes[:, -1] for own in layout.members]
    return np.stack([np.asarray(column) for column in columns], axis=1), classes


def joint_part(router: Router, layout: Layout, features: Any, logits: Mapping[str, Any]) -> Part:
    """``features``, ``logits``: the tensors that the finished file has for them. The inputs of the part are named
    ``JOINT_SEAM`` and as the heads; its outputs are ``scores`` and ``heads``.
    """
    graph, heads = Assembler(JOINT), layout.heads
    source = graph.input(JOINT_SEAM, features)
    sources = {head.head_name: graph.input(head.head_name, logits[head.head_name]) for head in heads}
    padded = _padded_logits(graph, layout, sources)
    classes = _classes(graph, router, _pooled(graph, source, features.shape), padded)
    graph.part.outputs = {"heads": classes, "scores": _scores(graph, router, layout, padded, classes)}
    return graph.part


def _padded_logits(graph: Assembler, layout: Layout, sources: Mapping[str, int]) -> int:
    """(1, heads, most labels)"""
    parts, places, start = [], np.full((len(layout.heads), layout.most_labels), -1), 0
    for h, head in enumerate(layout.heads):
        count = len(head.labels)
        parts.append(graph.real(sources[head.head_name]))
        places[h, :count] = np.arange(start, start + count)
        start += count
    parts.append(graph.constant(np.full((1, 1), _FAR, np.float32)))
    everything = graph.add("CONCATENATION", parts, (1, start + 1))
    return graph.gather(everything, np.where(places < 0, start, places))


def _pooled(graph: Assembler, source: int, shape: Sequence[int]) -> int:
    """Real features (1, features); a map of features is averaged over its places, as ``router.pooled`` does."""
    real = graph.real(source)
    if len(shape) == 2:
        return real
    axes = graph.constant(np.arange(1, len(shape) - 1, dtype=np.int32))
    return graph.add("MEAN", [real, axes], (1, shape[-1]))


def _classes(graph: Assembler, router: Router, features: int, padded: int) -> int:
    """P(heads) (1, classes)."""
    number, heads = len(router.bias), len(router.gains)
    weights = graph.constant(np.ascontiguousarray(router.weights.T), scale=1.0)
    real = graph.add("DEQUANTIZE", [weights], router.weights.T.shape)
    found = graph.add("FULLY_CONNECTED", [features, real, -1], (1, number))
    found = graph.add("MUL", [found, graph.constant(router.steps[None])], (1, number))
    found = graph.add("ADD", [found, graph.constant(router.bias[None])], (1, number))
    energy = graph.reshape(_energies(graph, router, padded), (1, heads))
    if number > heads:
        energy = graph.add("CONCATENATION", [energy, graph.constant(np.zeros((1, 1), np.float32))], (1, number))
    return graph.add("SOFTMAX", [graph.add("ADD", [found, energy], (1, number))], (1, number), name="heads")


def _energies(graph: Assembler, router: Router, padded: int) -> int:
    """gains * log-sum-exp of the logits over their widths: (1, heads, 1)"""
    shape = tuple(graph.part.tensors[padded].shape)
    column, axis = (1, len(router.gains), 1), graph.constant(np.array([2], np.int32))
    scaled = graph.add("MUL", [padded, graph.constant((1 / router.widths).reshape(column).astype(np.float32))], shape)
    top = graph.add("REDUCE_MAX", [scaled, axis], column)
    total = graph.add("SUM", [graph.add("EXP", [graph.add("SUB", [scaled, top], shape)], shape), axis], column)
    energy = graph.add("ADD", [graph.add("LOG", [total], column), top], column)
    return graph.add("MUL", [energy, graph.constant(router.gains.reshape(column))], column)


def _scores(graph: Assembler, router: Router, layout: Layout, padded: int, classes: int) -> int:
    """(1, labels of the list)"""
    shape = tuple(graph.part.tensors[padded].shape)
    heads, most = shape[1:]
    own = graph.gather(classes, np.arange(heads)) if router.none else classes
    gate = graph.reshape(own, (1, heads, 1))
    kinds = dict.fromkeys(head.activation for head in layout.heads)
    blocks: list[int] = []
    start: dict[str, int] = {}
    for kind in kinds:
        given = graph.add("LOGISTIC" if kind == "sigmoid" else "SOFTMAX", [padded], shape)
        start[kind] = len(blocks) * heads * most
        blocks.append(graph.reshape(graph.add("MUL", [given, gate], shape), (1, heads * most)))
    if router.none:
        blocks.append(graph.gather(classes, np.array([heads])))
    nothing = len(kinds) * heads * most + int(router.none)
    blocks.append(graph.constant(np.zeros((1, 1), np.float32)))
    everything = graph.add("CONCATENATION", blocks, (1, nothing + 1))
    places = [[start[layout.heads[h].activation] + h * most + i for h, i in m] or [nothing - 1] for m in layout.members]
    terms = max(map(len, places))
    if terms == 1:
        return graph.gather(everything, np.array(places)[:, 0], name="scores")
    table = np.array([[*p, *[nothing] * (terms - len(p))] for p in places])
    found = graph.add(
        "SUM", [graph.gather(everything, table), graph.constant(np.array([2], np.int32))], (1, len(places), 1)
    )
    return graph.reshape(found, (1, len(places)), name="scores")
