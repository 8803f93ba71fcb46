"""The models of a build, and the user's settings for them -> classifiers with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.reading.checks import check_labels_beside, notes_on_labels, read_labels
from builder.reading.classifier import Classifier
from builder.reading.formats.applications import Application
from builder.reading.originals.original import start_framework
from builder.reading.peek import peek
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.reading.scaling_notes import scaling_notes
from builder.reading.source_input import SourceInput
from builder.reading.text_input import TextSourceInput, check_embedding
from builder.settings.config import BuildConfig
from builder.settings.heads import HeadConfig, TextConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.settings.limits import Limits
from builder.support.errors import ConfigError
from builder.support.naming import advice, head_setting
from edge_runtime.text import TextInput

Unsaid = Callable[[Classifier, PictureSourceInput], SourceInput]


def load_classifiers(
    heads: Iterable[HeadConfig],
    advance: Callable[[], None] = lambda: None,
    *,
    allow_code: bool = False,
    limits: Limits | None = None,
    text: TextConfig | TextInput | None = None,
    size: tuple[int, int] | None = None,
    inference_mode: bool = False,
    unsaid: Unsaid | None = None,
) -> tuple[Classifier, ...]:
    """Read each model with its labels; ``advance`` is called after each.

    ``text``: the vocabulary for models without one, or that of a finished file. ``size``: height and width, for models
    that take any. ``inference_mode``: see ``Reader``. ``unsaid``: finds the input scaling of a model that does not define
    it; None makes that an error. Raises ``ModelFileError`` and ``ConfigError``.
    """
    length = text.length if isinstance(text, TextInput) else text.maxlen if text is not None else None
    reader = Reader(allow_code=allow_code, limits=limits, text_length=length, inference_mode=inference_mode)
    found = []
    for head in heads:
        found.append(_load(reader, head, text, size, unsaid))
        advance()
    return tuple(found)


def start_original(model: Path) -> None:
    """Begin to import the framework of an original, while this process imports TensorFlow to read the file."""
    found = peek(model)
    if found is not None:
        start_framework(found.framework)


def reading_options(config: BuildConfig) -> dict[str, Any]:
    """The options of ``load_classifiers`` from a configuration."""
    return {
        "allow_code": config.allow_code,
        "limits": config.limits,
        "text": config.text,
        "size": config.size,
        "inference_mode": config.inference_mode,
    }


def _load(
    reader: Reader,
    head: HeadConfig,
    text: TextConfig | TextInput | None,
    size: tuple[int, int] | None,
    unsaid: Unsaid | None,
) -> Classifier:
    classifier = reader.read(head.name, head.model, head.preprocessing, head.size or size, head.output_name)
    source_input = classifier.source_input
    if unsaid is not None and isinstance(source_input, PictureSourceInput) and source_input.unsaid:
        classifier = replace(classifier, source_input=unsaid(classifier, source_input))
    classifier = replace(classifier, source_input=_declared(classifier, head, text))
    if isinstance(classifier.source_input, PictureSourceInput):
        doubts = scaling_notes(head.name, classifier.source_input, classifier.graph)
        classifier = replace(classifier, notes=(*classifier.notes, *doubts))
    classifier.original.start()  # its framework is imported while other models are read
    beside, general = classifier.labels, bool(classifier.labels_file)
    labels = read_labels(head, beside, classifier.trouble, general=general)
    if general and labels is beside:
        check_labels_beside(classifier)
        classifier = replace(classifier, notes=(*classifier.notes, *notes_on_labels(classifier)))
    return classifier.with_labels(labels, head.activation)


def _declared(classifier: Classifier, head: HeadConfig, text: TextConfig | TextInput | None) -> SourceInput:
    """The input with the user's settings. Raises ``ConfigError`` where these do not suffice."""
    source_input = classifier.source_input
    if isinstance(source_input, TextSourceInput):
        source_input = source_input.with_words(text, f"heads.{head.name}: {head.model.name}")
        check_embedding(classifier.graph, source_input.words, head.model)
        return source_input
    check_size(source_input, head)
    if source_input.unsaid:
        raise preprocessing_unsaid(head, classifier.application)
    return source_input if head.resize is None else replace(source_input, resize=head.resize.over(source_input.resize))


def preprocessing_unsaid(head: HeadConfig, known: Application | None) -> ConfigError:
    """The error for unknown input scaling. ``known``: the architecture of Keras that the model is built on."""
    hint = f"{known.name}'s preprocess_input is {known.preprocessing!r}: " if known else ""
    words = known.preprocessing if known else "|".join((*PREPROCESSING, "SCALE,OFFSET"))
    return ConfigError(
        f"{head_setting(head.name, 'preprocessing')}: the input scaling of {head.model.name} is unknown, because no "
        f"layer was found in it that scales all pixels 0..255; {hint}add {advice('preprocessing', words, head.name)}"
    )


def check_size(source_input: PictureSourceInput, head: HeadConfig) -> None:
    """Raises ``ConfigError`` where a head is given a size that its model does not take."""
    if head.size is not None and source_input.size != head.size:
        own, found = (f"{width} x {height}" for height, width in (source_input.size, head.size))
        raise ConfigError(
            f"{head_setting(head.name, 'size')}: {head.model.name} takes only {own}, found {found}; leave it out"
        )
