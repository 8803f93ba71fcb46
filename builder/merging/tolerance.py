"""Treat nearly equal weights as equal where the user asks for it, for example after a file was stored in float16."""

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
    """Replace weights by those of the first classifier where a layer at the same place has nearly equal ones.

    Args:
        classifiers: The first is the reference.
        tolerance: Largest difference within one weight, relative to its largest value; a classifier's own ``folding`` is
            the least that applies to it.
        advance: Called after each classifier.

    Returns:
        The classifiers, and the largest relative difference that was ignored.
    """
    found, worst = [], 0.0
    for classifier in classifiers:
        limit = max(tolerance, classifier.folding)
        if limit > 0:
            classifier, apart = _aligned(classifiers[0], classifier, limit)
            worst = max(worst, apart)
        _ = classifier.digests  # this takes the time: compute them here, where progress is shown
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
    """As ``distance``, without what rounding by two different scales explains."""
    if a.slack is None or b.slack is None:
        return distance(a.value, b.value)
    beyond = np.maximum(np.abs(a.value.astype(np.float64) - b.value) - a.slack - b.slack, 0)
    return float(beyond.max(initial=0)) / max(float(np.abs(a.value).max(initial=0)), 1e-30)
