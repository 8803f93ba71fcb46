"""Weights that are nearly the same, taken for the same where the user asks for it: a file that went through float16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from builder.merging.difference import counterparts, distance
from builder.reading.classifier import Classifier
from builder.reading.graph import Graph, Weight


def align(
    classifiers: Sequence[Classifier], tolerance: float, advance: Callable[[], None] = lambda: None
) -> tuple[tuple[Classifier, ...], float]:
    """The classifiers with the weights of the first wherever a layer at the same place has weights no further from them.

    ``tolerance``: largest difference within one weight, relative to its largest value; what reads a file may know of a
    least one (``Classifier.folding``). ``advance`` is
    called after each classifier. Returns the largest difference that was passed over, too.
    """
    found, worst = [], 0.0
    for classifier in classifiers:
        limit = max(tolerance, classifier.folding)
        if limit > 0:
            classifier, apart = _aligned(classifiers[0], classifier, limit)
            worst = max(worst, apart)
        _ = classifier.digests  # what takes the time, here where it is counted
        found.append(classifier)
        advance()
    return tuple(found), worst


def _aligned(first: Classifier, other: Classifier, tolerance: float) -> tuple[Classifier, float]:
    nodes, worst = list(other.graph.nodes), 0.0
    for i, counterpart in counterparts(first, other).items():
        pairs = zip(counterpart.weights, nodes[i].weights, strict=True)
        differing = [(a, b) for a, b in pairs if a.digest != b.digest]
        apart = max((_apart(a, b) for a, b in differing), default=0.0)
        if differing and apart <= tolerance:
            nodes[i] = replace(nodes[i], weights=counterpart.weights)
            worst = max(worst, apart)
    return replace(other, graph=Graph(tuple(nodes), other.graph.output)), worst


def _apart(a: Weight, b: Weight) -> float:
    """As ``distance``, beyond what rounding by two scales makes of one number."""
    if a.slack is None or b.slack is None:
        return distance(a.value, b.value)
    beyond = np.maximum(np.abs(a.value.astype(np.float64) - b.value) - a.slack - b.slack, 0)
    return float(beyond.max(initial=0)) / max(float(np.abs(a.value).max(initial=0)), 1e-30)
