"""Keras models beside ``.tflite`` files: the Keras model's own float conversion is matched with the files' operators."""

from __future__ import annotations

from collections.abc import Sequence

from builder.reading.classifier import Classifier
from builder.reading.graph import WeightPool
from builder.reading.picture_input import PictureSourceInput
from builder.reading.tflite.classifier import TfliteClassifier, converted


def of_one_kind(classifiers: Sequence[Classifier]) -> tuple[Classifier, ...]:
    """The classifiers unchanged, or, where some were read from ``.tflite`` files, all of them as operators.

    A Keras model is converted by itself; its answers are still those of the original. Raises ``ConversionError`` and
    ``ModelFileError``.
    """
    if len({isinstance(c, TfliteClassifier) for c in classifiers}) == 1:
        return tuple(classifiers)
    pool, found = WeightPool(), list[Classifier]()
    for classifier in classifiers:
        found.append(as_operators(classifier, pool))
    return tuple(found)


class Conversions:
    """Classifiers as operators; each is converted once."""

    def __init__(self) -> None:
        self._pool, self._made = WeightPool(), dict[int, tuple[Classifier, Classifier]]()

    def of(self, classifier: Classifier) -> Classifier:
        """As ``as_operators``."""
        if id(classifier) not in self._made:  # the first of the pair keeps its id from being used again
            self._made[id(classifier)] = classifier, as_operators(classifier, self._pool)
        return self._made[id(classifier)][1]


def as_operators(classifier: Classifier, pool: WeightPool) -> Classifier:
    """The classifier as operators of its conversion; unchanged where it takes texts or consists of operators already."""
    if isinstance(classifier, TfliteClassifier) or not isinstance(classifier.source_input, PictureSourceInput):
        return classifier
    from builder.merging.convert import convert_classifier  # imports TensorFlow

    return converted(classifier, convert_classifier(classifier), pool)
