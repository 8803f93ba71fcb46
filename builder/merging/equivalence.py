"""What content says, running must bear out: the merged model in float beside the originals, run by their frameworks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.merging.kinds import difference_in_kind
from builder.merging.merged import Merged
from builder.reading.classifier import Classifier
from builder.reading.tflite.classifier import FOLDING
from builder.support.errors import NoSharedBackboneError

TOLERANCE = 1e-4  # on probabilities: two float programs of one function differ by rounding only
LOOSE_TOLERANCE = 0.02  # where the user lets weights differ
INTEGER_TOLERANCE = 0.1  # in the mean, where the original rounds every activation to integers: the gate tells the rest


@dataclass(frozen=True)
class Equivalence:
    """``difference``: largest of a probability, between ``models`` originals and the merged model on ``samples`` samples.
    ``apart``: how far weights were from each other that were taken as equal, relative to the largest of each tensor.
    """

    difference: float
    models: int
    samples: int
    apart: float = 0.0


def check_equivalence(
    classifiers: Sequence[Classifier],
    merged: Merged,
    tensors: np.ndarray,
    originals: Mapping[str, np.ndarray],
    *,
    apart: float = 0.0,
) -> Equivalence:
    """Compare every head of the merged model with its original.

    ``tensors``: samples as the device sees them. ``originals``: by the names of the heads, probabilities of the original
    on the same samples, float32 (samples, labels). ``apart``: how far weights were from each other that were taken as
    equal. Raises ``NoSharedBackboneError`` where a probability differs by more than rounding, or than such weights, make.
    """
    loose = apart > FOLDING
    tolerance = LOOSE_TOLERANCE if loose else TOLERANCE
    features = merged.features(tensors)
    worst = 0.0
    for classifier in classifiers:
        original, found = originals[classifier.name], merged.head_scores(classifier.name, features)
        distance = float(np.max(np.abs(original - found))) if original.shape == found.shape else np.inf
        if not (distance <= tolerance or (not classifier.is_exact and _mean(original, found) <= INTEGER_TOLERANCE)):
            raise NoSharedBackboneError(_differs(classifier, original, found, distance, apart if loose else 0.0))
        worst = max(worst, distance)
    return Equivalence(worst, len(classifiers), len(tensors), apart)


def _mean(original: np.ndarray, found: np.ndarray) -> float:
    """Of the largest difference of each sample."""
    return float(np.abs(original - found).max(1).mean()) if original.shape == found.shape else np.inf


def _differs(classifier: Classifier, original: np.ndarray, found: np.ndarray, distance: float, apart: float) -> str:
    kind = difference_in_kind(original, found)
    cause = f"; weights up to {apart:.2g} apart were taken as equal (tolerance): build without it, or give a smaller one"
    return (
        f"{classifier.name}: by content its base is the shared one, but run on {len(original)} samples its probabilities "
        f"differ by up to {distance:.2g} from those of {classifier.path.name}; "
        + (f"{kind}; " if kind else "")
        + "only what is equivalent when it runs is shared"
        + (cause if apart else "")
    )
