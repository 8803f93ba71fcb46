"""The labels of the joint list, the heads' labels that each stands for, and the score of belonging to any head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.metadata import HeadInfo

NONE = "none"


@dataclass(frozen=True)
class Layout:
    """The joint list. ``members``: for each of its ``labels``, the heads' labels (head, index) whose scores are added.
    ``none``, if present, is the last label and has no members.
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
        counts = Counter(label for head in self.heads for label in head.labels)
        return sorted(label for label, count in counts.items() if count > 1)


def lay_out(heads: Sequence[HeadInfo], *, none: bool, merge: bool) -> Layout:
    """All labels in the order of the heads.

    A label of two heads is called ``head/label`` in each, or, with ``merge`` and softmax heads, appears once, at its
    first place. A head's label ``none`` is called ``head/none`` if the list has its own, and a label that reads like
    another head's ``head/label`` gets its own head's name in front too: names are unique.
    """
    counts = Counter([label for head in heads for label in head.labels] + [NONE] * none)
    full = {(h, i): f"{head.head_name}/{label}" for h, head in enumerate(heads) for i, label in enumerate(head.labels)}

    def stands_alone(h: int, label: str) -> bool:
        return counts[label] == 1 or (merge and label != NONE and heads[h].activation == "softmax")

    plain = {place for place in full if stands_alone(place[0], heads[place[0]].labels[place[1]])}
    while True:
        taken = {name for place, name in full.items() if place not in plain}
        clashing = {(h, i) for h, i in plain if heads[h].labels[i] in taken}
        if not clashing:
            break
        plain -= clashing
    found: dict[str, list[tuple[int, int]]] = {}
    for h, i in full:
        found.setdefault(heads[h].labels[i] if (h, i) in plain else full[h, i], []).append((h, i))
    members = tuple(map(tuple, found.values()))
    return Layout(tuple(heads), (*found, *([NONE] if none else [])), (*members, *([()] if none else [])), none)


def known_score(classes: np.ndarray, heads: int) -> np.ndarray:
    """How far pictures belong to any head, of P (pictures, classes): the largest P(head), beside that of none."""
    largest = classes[:, :heads].max(1)
    return np.asarray(largest if classes.shape[1] == heads else largest / (largest + classes[:, heads]))
