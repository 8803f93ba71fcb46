"""All ways to one list of all labels, and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.joint.layout import NONE, lay_out
from builder.judging.answers import Answers
from edge_runtime.metadata import HeadInfo

Probabilities = Sequence[np.ndarray]  # of each head (samples, labels)
JOINT, CONCATENATED = "joint", "concatenated scores"
FLOAT_JOINT, ANEW = "joint, float heads", "one head trained anew on all labels"


@dataclass(frozen=True)
class Lists:
    """The list of the labels of the first heads of a file. ``places``: for each of them those of its labels in
    ``labels``, which is without ``none``. ``joint``: what the file says of its joint list, where it has one.
    """

    places: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    joint: Mapping[str, Any] | None

    @classmethod
    def of(cls, heads: Sequence[HeadInfo], joint: Mapping[str, Any] | None) -> Lists:
        places, labels = list_places(heads, joint)
        return cls(tuple(map(tuple, places)), labels, joint)

    def known(self, answers: Answers) -> np.ndarray:
        """bool (samples,): those with a label of the list."""
        return np.asarray((answers.label >= 0) & (answers.head < len(self.places)))

    def truth(self, answers: Answers) -> np.ndarray:
        """int (known samples,): their places in the list."""
        known = self.known(answers)
        pairs = zip(answers.head[known].tolist(), answers.label[known].tolist(), strict=True)
        return np.array([self.places[h][i] for h, i in pairs], int)

    def scores(self, answers: Answers, floats: Probabilities | None, anew: np.ndarray | None) -> dict[str, np.ndarray]:
        """(known samples, labels) of every way; none for a list of one label, which would always be right."""
        known = self.known(answers)
        if len(self.labels) < 2:
            return {}
        found = {}
        if answers.joint is not None and answers.classes is not None:
            found[JOINT] = answers.joint[known][:, : len(self.labels)]
            if floats is not None:
                found[FLOAT_JOINT] = self._spread(floats, answers.classes)[known]
        found[CONCATENATED] = self._spread(answers.scores)[known]
        if anew is not None:
            found[ANEW] = anew[known]
        return found

    def answered(self, classes: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """int (samples,): the device's answer, a place in the list, or behind the last for none of them."""
        assert self.joint is not None
        refused = self.refused(classes)
        return np.where(refused, len(self.labels), joint[:, : len(self.labels)].argmax(1))

    def refused(self, classes: np.ndarray) -> np.ndarray:
        """bool (samples,): belongs to no head, by the rule of the file; see ``edge_runtime.joint.judge``."""
        assert self.joint is not None
        largest = classes[:, : len(self.places)].max(1)
        refused = largest < self.joint["threshold"]
        if self.joint["none"]:
            refused |= classes[:, -1] > largest
        return np.asarray(refused)

    def _spread(self, scores: Probabilities, gates: np.ndarray | None = None) -> np.ndarray:
        total: np.ndarray = np.zeros((len(scores[0]), len(self.labels)))
        for h, own in enumerate(self.places):
            weight = 1 / len(self.places) if gates is None else gates[:, h]
            for i, target in enumerate(own):
                total[:, target] += weight * scores[h][:, i]
        return total


def list_places(heads: Sequence[HeadInfo], joint: Mapping[str, Any] | None) -> tuple[list[list[int]], tuple[str, ...]]:
    """For each head the places of its labels in the list of all labels, and the list, without ``none``."""
    none, merge = (False, False) if joint is None else (joint["none"], joint.get("merge_labels", False))
    layout = lay_out(heads, none=none, merge=merge)
    places = [[0] * len(head.labels) for head in heads]
    for place, members in enumerate(layout.members):
        for h, i in members:
            places[h][i] = place
    return places, layout.labels[: len(layout.labels) - none]


def with_none(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of what ``Lists.answered`` says."""
    return (*labels, NONE)
