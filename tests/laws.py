"""Assertions on the runtime, shared by the tests of both environments. Imports neither TensorFlow nor the builder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime import Classifications
from edge_runtime.metadata import Metadata
from edge_runtime.results import ClassificationResult

# Interpreters round a requantization differently where it falls between two integers. On the tiny files,
# tflite-runtime 2.14 and ai-edge-litert 2.3 differ by at most 1 step in the features, and on equal features by 2 of 256
# in a score. The tolerances are twice that. The effect of one step of the features on a score depends on the head.
SCORE_STEP = 1 / 256
SCORE_TOLERANCE = 4 * SCORE_STEP
FEATURE_TOLERANCE = 2  # steps of the seam


def scores_of(classifications: Iterable[Classifications]) -> dict[str, np.ndarray]:
    """The scores of each head in the order of its labels. The categories are in the order of their scores."""
    return {
        head.head_name: np.asarray([c.score for c in sorted(head.categories, key=lambda c: c.index)], np.float32)
        for head in classifications
    }


def assert_same_answers(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The heads are the same, in the same order, and every score is within ``SCORE_TOLERANCE``."""
    assert list(found) == list(expected)
    for name, scores in expected.items():
        assert found[name].shape == scores.shape, name
        assert np.abs(found[name] - scores).max() <= SCORE_TOLERANCE, name


def assert_same_features(found: np.ndarray, expected: np.ndarray) -> None:
    """Features, int8 (1, features), differ by at most ``FEATURE_TOLERANCE``."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= FEATURE_TOLERANCE


def assert_well_formed(result: ClassificationResult, labels: dict[str, Sequence[str]]) -> None:
    """Every head has each category once, in descending order, and scores that sum to 1, to a step for each label."""
    assert [c.head_name for c in result.classifications] == list(labels)
    for head in result.classifications:
        scores = [c.score for c in head.categories]
        assert {c.category_name for c in head.categories} == set(labels[head.head_name])
        assert [labels[head.head_name][c.index] for c in head.categories] == [c.category_name for c in head.categories]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert abs(sum(scores) - 1) <= SCORE_STEP * len(scores)


def joint_table(metadata: Metadata) -> dict[str, Any]:
    """An entry ``joint`` of ``polyhead.json`` that fits the heads of ``metadata``."""
    return {
        "labels": [f"{head.head_name}/{label}" for head in metadata.heads for label in head.labels] + ["none"],
        "none": True,
        "gated": [],
        "threshold": 0.5,
        "head_thresholds": {head.head_name: 0.25 for head in metadata.heads},
    }


def one_line(message: str, path: str | Path) -> bool:
    """Whether a message is one line and names the file."""
    return str(path) in message and "\n" not in message.strip()
