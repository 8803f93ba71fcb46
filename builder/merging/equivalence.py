"""What content says, running must bear out: the originals as Keras loads them, beside their share of the merged model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.merging.merged import Merged
from builder.reading.classifier import Classifier
from builder.reading.content import digest
from builder.support.errors import NoSharedBackboneError

TOLERANCE = 1e-4  # on probabilities: two float programs of one function differ by rounding only
LOOSE_TOLERANCE = 0.02  # where the user lets weights differ
ALL_UP_TO = 16  # models; building one with Keras costs a second


@dataclass(frozen=True)
class Proof:
    """``difference``: largest of a probability, over ``models`` originals that were run on ``samples`` samples."""

    difference: float
    models: int
    samples: int


def to_prove(classifiers: Sequence[Classifier]) -> list[Classifier]:
    """All of a few; of many one of each structure.

    Two files of one structure have the same layers, settings and shapes of weights at the same places, so that what was
    read rightly from one is read rightly from the other.
    """
    if len(classifiers) <= ALL_UP_TO:
        return list(classifiers)
    return list({digest(c.kind, c.structure, c.source_input.outside): c for c in reversed(classifiers)}.values())[::-1]


def prove(
    classifiers: Sequence[Classifier],
    merged: Merged,
    tensors: np.ndarray,
    advance: Callable[[], None] = lambda: None,
    *,
    samples: Sequence[Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Proof:
    """Run every original in ``classifiers``; ``advance`` is called after each.

    ``tensors``: as the device sees the samples. ``samples``: as users have them; None for pixels 0..255. Raises
    ``NoSharedBackboneError`` where a probability differs by more than ``tolerance``.
    """
    samples = list(tensors) if samples is None else samples
    features = merged.features(tensors)
    worst = 0.0
    for classifier in classifiers:
        original = classifier.predict(samples)
        distance = float(np.max(np.abs(original - merged.head_scores(classifier.name, features))))
        if not distance <= tolerance:
            raise NoSharedBackboneError(
                f"{classifier.name}: by content its base is the shared one, but run on {len(samples)} samples its "
                f"probabilities differ by up to {distance:.2g} from {classifier.path.name}; what is not proved is not "
                "shared"
            )
        worst = max(worst, distance)
        advance()
    return Proof(worst, len(classifiers), len(samples))
