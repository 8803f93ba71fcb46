"""The joint list of the labels of all heads: its metadata, and the rule by which a picture belongs to no head."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.results import Category, top_categories

Thresholds = Union[float, Mapping[str, float]]
MAX_LABELS = 1 << 20


class JointInfo(NamedTuple):
    """``labels``: of the list; the last is ``none`` where ``none`` says so.

    ``threshold``: the P(head) that the likeliest head must reach for the picture to belong to any.
    ``head_thresholds``: the P(head) from which each head takes a picture for its own. ``gated``: heads (sigmoid) whose
    labels are their own scores times P(head), and which the list counts as one each when it adds up to 1.
    """

    labels: Tuple[str, ...]
    none: bool
    threshold: float
    head_thresholds: Mapping[str, float]
    gated: Tuple[str, ...]

    @classmethod
    def from_json(cls, document: Any, head_names: Sequence[str]) -> JointInfo:
        """The member's ``joint``. Raises ``BundleError`` naming what is missing or wrong."""
        if not isinstance(document, dict):
            raise BundleError(f"polyhead.json: expected joint as a table, found {document!r:.60}")
        bars = document.get("head_thresholds")
        labels: Any = document.get("labels")
        gated: Any = document.get("gated")
        if not _are_names(labels) or not labels or len(set(labels)) != len(labels) or len(labels) > MAX_LABELS:
            raise BundleError(f"polyhead.json: expected joint labels, each once, found {labels!r:.60}")
        if not _are_names(gated) or not set(gated) <= set(head_names):
            raise BundleError(f"polyhead.json: expected joint gated as names of heads, found {gated!r:.60}")
        if not isinstance(bars, dict) or list(bars) != list(head_names):
            raise BundleError("polyhead.json: expected a joint threshold for each head")
        none = document.get("none")
        if not isinstance(none, bool):
            raise BundleError(f"polyhead.json: expected joint none as true or false, found {none!r:.60}")
        for value in (document.get("threshold"), *bars.values()):
            if not _is_probability(value):
                raise BundleError(f"polyhead.json: expected a joint threshold from 0 to 1, found {value!r:.60}")
        return cls(tuple(labels), none, document["threshold"], bars, tuple(gated))

    @property
    def classes(self) -> int:
        """The number of heads, plus one if the list has ``none``."""
        return len(self.head_thresholds) + self.none

    def with_thresholds(self, chosen: Optional[Thresholds]) -> JointInfo:
        """``chosen``: a number for the list, or numbers by the names of heads and ``joint``.

        Raises ``EdgeRuntimeError``.
        """
        if chosen is None:
            return self
        given = dict(chosen) if isinstance(chosen, Mapping) else {"joint": chosen}
        for name, value in given.items():
            if name != "joint" and name not in self.head_thresholds:
                known = ", ".join(["joint", *self.head_thresholds][:20])
                raise EdgeRuntimeError(f"threshold of {name!r}: no such head; there are: {known}")
            if not _is_probability(value):
                raise EdgeRuntimeError(f"threshold of {name}: expected a number from 0 to 1, found {value!r}")
        threshold = given.pop("joint", self.threshold)
        return self._replace(threshold=threshold, head_thresholds={**self.head_thresholds, **given})


class HeadEvidence(NamedTuple):
    """The probability that a picture belongs to a head. ``known``: ``score``, P(head), reaches ``threshold``."""

    head_name: str
    score: float
    threshold: float
    known: bool


class JointClassification(NamedTuple):
    """The joint list for one picture.

    Attributes:
        known: The likeliest head reaches ``threshold``, and ``none`` is not likelier.
        best: The likeliest label of any head where ``known``, else None.
        threshold: The P(head) that the likeliest head must reach, from 0 to 1.
        categories: All labels in descending order of score, including ``none``.
        heads: The probability that the picture belongs to each head, in the order of the file.
    """

    known: bool
    best: Optional[Category]
    threshold: float
    categories: Tuple[Category, ...]
    heads: Tuple[HeadEvidence, ...]

    def to_dict(self) -> Dict[str, Any]:
        """Return the document that ``classify --joint --json`` prints."""
        return {
            "known": self.known,
            "best": None if self.best is None else self.best._asdict(),
            "threshold": self.threshold,
            "categories": [category._asdict() for category in self.categories],
            "heads": [head._asdict() for head in self.heads],
        }


def judge(info: JointInfo, scores: np.ndarray, heads: np.ndarray, *, top_k: Optional[int] = None) -> JointClassification:
    """``scores``: float32 (labels,). ``heads``: float32 (heads and none,), as the signature ``joint`` gave them."""
    probabilities: List[float] = heads.tolist()
    evidence = tuple(
        HeadEvidence(name, score, bar, score >= bar)
        for (name, bar), score in zip(info.head_thresholds.items(), probabilities)
    )
    largest = max(head.score for head in evidence)
    likelier = info.none and probabilities[-1] > largest
    known = largest >= info.threshold and not likelier
    labels = info.labels[:-1] if info.none else info.labels
    best = top_categories(scores[: len(labels)], labels, top_k=1)[0] if known else None
    return JointClassification(known, best, info.threshold, top_categories(scores, info.labels, top_k=top_k), evidence)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
