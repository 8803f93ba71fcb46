"""What a classification returns, in MediaPipe's names.

``Category(index, score, category_name)`` and ``Classifications(head_index, head_name, categories)`` mean what they mean
in MediaPipe Tasks' ``ClassificationResult``.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edge_runtime.errors import EdgeRuntimeError


class Category(NamedTuple):
    """One label with its score.

    Attributes:
        index: Place in the head's labels, from 0.
        score: Probability, from 0 to 1.
        category_name: The label.
    """

    index: int  # type: ignore[assignment]  # MediaPipe's name for it, and a method of tuple
    score: float
    category_name: str


class Classifications(NamedTuple):
    """The answer of one head.

    Attributes:
        head_index: Place in the file's heads, from 0.
        head_name: Its name.
        categories: In falling order of score; of equal scores the first label first.
    """

    head_index: int
    head_name: str
    categories: Tuple[Category, ...]


class ClassificationResult(NamedTuple):
    """What one picture or text gave.

    Attributes:
        classifications: One for each head that was asked for, in that order.
        latency_ms: Milliseconds by part: ``preprocess``, ``backbone``, ``heads``.
        joint: A ``JointClassification`` where it was asked for, else None.
    """

    classifications: Tuple[Classifications, ...]
    latency_ms: Mapping[str, float]
    joint: Optional[Any] = None

    def to_dict(self) -> dict[str, Any]:
        """The result as ``classify --json`` prints it, without its source."""
        return {
            "classifications": [
                {
                    "head_index": c.head_index,
                    "head_name": c.head_name,
                    "categories": [category._asdict() for category in c.categories],
                }
                for c in self.classifications
            ],
            **({} if self.joint is None else {"joint": self.joint.to_dict()}),
            "latency_ms": {part: round(ms, 3) for part, ms in self.latency_ms.items()},
        }


def top_categories(scores: np.ndarray, labels: Sequence[str], *, top_k: Optional[int] = None) -> Tuple[Category, ...]:
    """The ``top_k`` best labels (all of them without it), best first; equal scores keep the order of the labels.

    ``scores``: float32 (labels,). Raises ``EdgeRuntimeError`` for a ``top_k`` below 1.
    """
    if top_k is not None and top_k < 1:
        raise EdgeRuntimeError(f"top_k: expected 1 or more, or None for all labels; found {top_k}")
    values = scores.tolist()  # Python's own numbers, and its stable sort: for a few labels numpy's takes twice as long
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:top_k]
    return tuple([Category(i, values[i], labels[i]) for i in order])
