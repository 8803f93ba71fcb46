"""Compare the merged float model with the originals, run by their own frameworks: digests alone prove nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.merging.kinds import difference_in_kind
from builder.merging.merged import Merged
from builder.reading.classifier import Classifier
from builder.reading.text_input import TextSourceInput
from builder.reading.tflite.classifier import FOLDING
from builder.support.errors import NoSharedBackboneError
from builder.support.naming import setting

TOLERANCE = 1e-4  # on probabilities: two float programs of one function differ by rounding only
LOOSE_TOLERANCE = 0.02  # where the user lets weights differ
INTEGER_TOLERANCE = 0.1  # mean, where the original rounds every activation to integers: verification judges the rest


@dataclass(frozen=True)
class Equivalence:
    """How far the merged float model is from its originals.

    Attributes:
        difference: Largest difference of a probability between originals and merged model.
        models: Number of originals that were run.
        samples: Number of samples that each was run on.
        apart: Largest difference of weights that were treated as equal, relative to the largest value of the tensor.
    """

    difference: float
    models: int
    samples: int
    apart: float


def check_equivalence(
    classifiers: Sequence[Classifier],
    merged: Merged,
    tensors: np.ndarray,
    originals: Mapping[str, np.ndarray],
    *,
    apart: float = 0.0,
) -> Equivalence:
    """Compare every head of the merged model with its original.

    Args:
        classifiers: The originals.
        merged: The merged model.
        tensors: Samples as the device sees them.
        originals: For each head's name, the probabilities of its original on the same samples, float32 (samples, labels).
        apart: Largest relative difference of weights that were treated as equal.

    Raises:
        NoSharedBackboneError: A probability differs by more than rounding, or such weights, can explain.
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
    """The mean over samples of the largest difference of a probability."""
    return float(np.abs(original - found).max(1).mean()) if original.shape == found.shape else np.inf


def _differs(classifier: Classifier, original: np.ndarray, found: np.ndarray, distance: float, apart: float) -> str:
    kind, source = difference_in_kind(original, found), classifier.source_input
    cause = f"; weights up to {apart:.2g} apart were treated as equal (tolerance): build without it, or set a smaller one"
    return (
        f"{classifier.name}: its base has the shared weights, but on {len(original)} samples the merged model's "
        f"probabilities differ by up to {distance:.2g} from those of {classifier.path.name}; "
        + (f"{kind}; " if kind else "")
        + "only a base that gives the same results is shared"
        + (cause if apart else "")
        + (_padded() if isinstance(source, TextSourceInput) and source.any_length else "")
    )


def _padded() -> str:
    return (
        f"; texts are padded ({setting('text.maxlen')}), which changes the answers of a model without a mask: set "
        "mask_zero=True in its Embedding, or output_sequence_length in its TextVectorization, and train it again"
    )
