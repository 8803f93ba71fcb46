"""The joint head as a subgraph: features and the logits of every head -> one list of scores.

All of it is float: the vectors are short, and a product of two int8 probabilities would be coarse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from builder.joint.layout import Layout
from builder.joint.router import TINY, Router
from builder.support.arrays import pooled
from builder.tflite.assembler import Assembler
from builder.tflite.flatbuffer import Part
from builder.tflite.link import JOINT_SEAM
from edge_runtime.metadata import JOINT

_FAR = -1e4  # so far below a head's largest logit a probability is 0: fills the places of missing labels


def reference(
    router: Router, layout: Layout, features: np.ndarray, logits: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What the subgraph computes, in numpy: scores (pictures, labels) and P(heads) (pictures, classes), float64.

    ``features``: real (pictures, ...). ``logits``: real (pictures, labels) of each head.
    """
    classes = router.probabilities(pooled(features), logits)
    given = [
        expit(z.astype(np.float64)) if head.activation == "sigmoid" else softmax(z.astype(np.float64), axis=1)
        for head, z in zip(layout.heads, logits, strict=True)
    ]
    columns = [sum(classes[:, h] * given[h][:, i] for h, i in own) if own else classes[:, -1] for own in layout.members]
    return np.stack([np.asarray(column) for column in columns], axis=1), classes


def joint_part(router: Router, layout: Layout, features: Any, logits: Mapping[str, Any]) -> Part:
    """The joint head as a part, with inputs ``JOINT_SEAM`` and one named as each head, and outputs ``scores`` and
    ``heads``. ``features``, ``logits``: their tensors in the finished file.
    """
    graph, heads = Assembler(JOINT), layout.heads
    source = graph.input(JOINT_SEAM, features)
    sources = {head.head_name: graph.input(head.head_name, logits[head.head_name]) for head in heads}
    answers = _logits(graph, router, layout, sources)
    classes = _classes(graph, router, _pooled(graph, source, features.shape), answers)
    graph.part.outputs = {"heads": classes, "scores": _scores(graph, router, layout, answers, classes)}
    return graph.part


@dataclass(frozen=True)
class _Logits:
    """Tensors (1, heads, most labels), except ``top``: (1, heads, 1), the largest logit of each head.

    ``padded``: the logits, the first repeated where a head has fewer labels. ``below``: the logits minus ``top``, and
    far below 0 where a label is missing.
    """

    padded: int
    top: int
    below: int


def _logits(graph: Assembler, router: Router, layout: Layout, sources: Mapping[str, int]) -> _Logits:
    counts = np.array([len(head.labels) for head in layout.heads])
    real = [graph.real(sources[head.head_name]) for head in layout.heads]
    column = np.arange(layout.most_labels)
    missing = column >= counts[:, None]
    places = (np.cumsum(counts) - counts)[:, None] + np.where(missing, 0, column)
    padded = graph.gather(graph.add("CONCATENATION", real, (1, int(counts.sum()))), places)
    top = graph.add("REDUCE_MAX", [padded, graph.constant(np.array([2], np.int32))], (1, len(counts), 1))
    far = np.where(missing, _FAR * np.maximum(router.widths, 1)[:, None], 0).astype(np.float32)
    below = graph.add("SUB", [padded, top], (1, *missing.shape))
    return _Logits(padded, top, graph.add("ADD", [below, graph.constant(far[None])], (1, *missing.shape)))


def _pooled(graph: Assembler, source: int, shape: Sequence[int]) -> int:
    """Real features (1, features); a feature map is averaged over its positions, as ``router.pooled`` does."""
    real = graph.real(source)
    if len(shape) == 2:
        return real
    axes = graph.constant(np.arange(1, len(shape) - 1, dtype=np.int32))
    return graph.add("MEAN", [real, axes], (1, shape[-1]))


def _classes(graph: Assembler, router: Router, features: int, logits: _Logits) -> int:
    """P(heads) (1, classes)."""
    number, heads = len(router.bias), len(router.gains)
    weights = graph.constant(np.ascontiguousarray(router.weights.T), scale=1.0)
    real = graph.add("DEQUANTIZE", [weights], router.weights.T.shape)
    found = graph.add("FULLY_CONNECTED", [features, real, -1], (1, number))
    found = graph.add("MUL", [found, _inverse_length(graph, features)], (1, number))
    found = graph.add("MUL", [found, graph.constant(router.steps[None])], (1, number))
    found = graph.add("ADD", [found, graph.constant(router.bias[None])], (1, number))
    energy = graph.reshape(_energies(graph, router, logits), (1, heads))
    if number > heads:
        energy = graph.add("CONCATENATION", [energy, graph.constant(np.zeros((1, 1), np.float32))], (1, number))
    return graph.add("SOFTMAX", [graph.add("ADD", [found, energy], (1, number))], (1, number), name="heads")


def _inverse_length(graph: Assembler, features: int) -> int:
    """1 / |features|: (1, 1)"""
    axis, tiny = graph.constant(np.array([1], np.int32)), graph.constant(np.full((1, 1), TINY, np.float32))
    squares = graph.add("MUL", [features, features], tuple(graph.part.tensors[features].shape))
    return graph.add("RSQRT", [graph.add("ADD", [graph.add("SUM", [squares, axis], (1, 1)), tiny], (1, 1))], (1, 1))


def _energies(graph: Assembler, router: Router, logits: _Logits) -> int:
    """gains * log-sum-exp of the logits over their widths: (1, heads, 1)"""
    shape = tuple(graph.part.tensors[logits.below].shape)
    column, axis = (1, len(router.gains), 1), graph.constant(np.array([2], np.int32))
    widths = graph.constant((1 / router.widths).reshape(column).astype(np.float32))
    scaled = graph.add("EXP", [graph.add("MUL", [logits.below, widths], shape)], shape)
    total = graph.add("LOG", [graph.add("SUM", [scaled, axis], column)], column)
    energy = graph.add("ADD", [total, graph.add("MUL", [logits.top, widths], column)], column)
    return graph.add("MUL", [energy, graph.constant(router.gains.reshape(column))], column)


def _scores(graph: Assembler, router: Router, layout: Layout, logits: _Logits, classes: int) -> int:
    """(1, labels of the list)"""
    shape = tuple(graph.part.tensors[logits.padded].shape)
    heads, most = shape[1:]
    own = graph.gather(classes, np.arange(heads)) if router.none else classes
    gate = graph.reshape(own, (1, heads, 1))
    kinds = dict.fromkeys(head.activation for head in layout.heads)
    blocks: list[int] = []
    start: dict[str, int] = {}
    for kind in kinds:
        given = (
            graph.add("LOGISTIC", [logits.padded], shape)
            if kind == "sigmoid"
            else graph.add("SOFTMAX", [logits.below], shape)
        )
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
