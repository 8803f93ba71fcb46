"""Group models by the backbone that they share, without converting more of them than the question needs."""

from __future__ import annotations

from collections.abc import Sequence

from builder.merging.backbone import SharedBackbone, find_backbone
from builder.merging.difference import Difference, first_difference
from builder.merging.mixed_sources import Conversions
from builder.merging.tolerance import align
from builder.reading.classifier import Classifier
from builder.reading.picture_input import PictureSourceInput
from builder.reading.source_input import source_input_difference
from builder.reading.tflite.classifier import TfliteClassifier
from builder.support.errors import NoSharedBackboneError


def kin(
    classifiers: Sequence[Classifier], tolerance: float, conversions: Conversions
) -> tuple[tuple[Classifier, ...], ...]:
    """The groups, as they were read, in the order of their first models.

    Keras models are grouped by their layers. Of such a group the first is converted, and only where it has the input of a
    group that was read from operators: its base in operators is that of the whole group.
    """
    layered = _groups([c for c in classifiers if not isinstance(c, TfliteClassifier)], tolerance)
    operators = _groups([c for c in classifiers if isinstance(c, TfliteClassifier)], tolerance)
    joined = {id(group[0]): list(group) for group in operators}
    alone = []
    for group in layered:
        near = [other[0] for other in operators if _same_input(group[0], other[0])]
        same = next((one for one in near if _are_kin(one, conversions.of(group[0]), tolerance)), None)
        if same is None:
            alone.append(group)
        else:
            joined[id(same)] += group
    place = {id(one): i for i, one in enumerate(classifiers)}
    found = [sorted(group, key=lambda one: place[id(one)]) for group in (*joined.values(), *alone)]
    return tuple(tuple(group) for group in sorted(found, key=lambda group: place[id(group[0])]))


def kin_difference(first: Classifier, other: Classifier, conversions: Conversions) -> Difference | None:
    """As ``first_difference``, also between layers and operators."""
    mixed = isinstance(first, TfliteClassifier) != isinstance(other, TfliteClassifier)
    if mixed and source_input_difference(first.source_input, other.source_input, first.name) is None:
        first, other = conversions.of(first), conversions.of(other)
    return first_difference(first, other)


def shared_by(classifiers: Sequence[Classifier]) -> SharedBackbone | None:
    """The backbone of models of one kind; None where they share none."""
    try:
        return find_backbone(classifiers)
    except NoSharedBackboneError:
        return None


def _groups(classifiers: Sequence[Classifier], tolerance: float) -> list[list[Classifier]]:
    groups: list[list[Classifier]] = []
    for classifier in classifiers:
        same = next((group for group in groups if _are_kin(group[0], classifier, tolerance)), None)
        if same is None:
            groups.append([classifier])
        else:
            same.append(classifier)
    return groups


def _are_kin(first: Classifier, other: Classifier, tolerance: float) -> bool:
    return shared_by(align((first, other), tolerance)[0]) is not None


def _same_input(first: Classifier, other: Classifier) -> bool:
    one, two = first.source_input, other.source_input
    return isinstance(one, PictureSourceInput) and isinstance(two, PictureSourceInput) and one.identity == two.identity
