"""Input scaling of models that are only inspected: as the user says, or the one that makes a model share a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder.merging.backbone import find_backbone
from builder.reading.classifier import Classifier
from builder.reading.loading import check_size
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.settings.heads import HeadConfig
from builder.settings.input_scaling import named_preprocessing
from builder.support.errors import NoSharedBackboneError


def read_said(reader: Reader, model: HeadConfig, size: tuple[int, int] | None) -> Classifier:
    """Read a model with the user's settings for its pictures. Raises ``ModelFileError`` and ``ConfigError``."""
    found = reader.read(str(model.model), model.model, model.preprocessing, model.size or size, model.output_name)
    return _said(found, model)


def read_each_said(reader: Reader, model: HeadConfig, size: tuple[int, int] | None) -> list[Classifier]:
    """As ``read_said``, for a model that may have several outputs: a classifier for each."""
    each = reader.read_each(str(model.model), model.model, model.preprocessing, model.size or size)
    return [_said(replace(c, name=f"{c.name}: {c.output_name}") if c.output_name else c, model) for c in each]


def _said(found: Classifier, model: HeadConfig) -> Classifier:
    entered = found.source_input
    if isinstance(entered, PictureSourceInput):
        check_size(entered, model)
    if model.resize is None or not isinstance(entered, PictureSourceInput):
        return found
    return replace(found, source_input=replace(entered, resize=model.resize.over(entered.resize)))


def as_each_other(classifiers: Sequence[Classifier]) -> list[Classifier]:
    """Give each model of unknown input scaling the one with which it shares a backbone with a model of known scaling."""
    said = [c for c in classifiers if not _is_unsaid(c)]
    return [_as_one_of(said, c) if _is_unsaid(c) else c for c in classifiers]


def _is_unsaid(classifier: Classifier) -> bool:
    return isinstance(classifier.source_input, PictureSourceInput) and classifier.source_input.unsaid


def _as_one_of(others: Sequence[Classifier], classifier: Classifier) -> Classifier:
    """Unchanged where no preprocessing makes them share one."""
    source_input = classifier.source_input
    assert isinstance(source_input, PictureSourceInput)
    known = named_preprocessing(source_input.pixels.channels).values()
    entered = [replace(classifier, source_input=source_input.entered(how)) for how in known]
    return next((e for e in entered for other in others if _share(other, e)), classifier)


def _share(first: Classifier, other: Classifier) -> bool:
    try:
        find_backbone((first, other))
    except NoSharedBackboneError:
        return False
    return True
