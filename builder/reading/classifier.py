"""Model file -> ``Classifier``: what it computes, as a graph, with its labels and its input. Nothing is built here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.digests import one_node_each, settings_of, tensor_digests
from builder.reading.formats.applications import Application, application_of
from builder.reading.formats.labels import read_label_file
from builder.reading.formats.stored import StoredModel, contradictions
from builder.reading.graph import INPUT, Graph, UnreadableModelError, WeightPool, read_graph
from builder.reading.layers import UnknownLayerError, canonical_layers, weight_name
from builder.reading.originals.original import Answers, Original
from builder.reading.outputs import LOGITS, Output, ends_in, expected_output, settled_output, with_negative
from builder.reading.picture_input import PictureSourceInput
from builder.reading.shapes import tensor_shapes
from builder.reading.source_input import SourceInput, check_one_input, read_source_input, size_note
from builder.reading.text_input import TextSourceInput, check_embedding
from builder.reading.tflite.file import tflite_in
from builder.settings.config import BuildConfig, HeadConfig, TextConfig
from builder.settings.input_scaling import PREPROCESSING, PixelTransform
from builder.settings.limits import Limits
from builder.support.errors import ConfigError, ModelFileError
from builder.support.naming import advice, head_setting
from edge_runtime.text import TextInput


@dataclass(frozen=True, eq=False)
class Classifier:
    """One model that was read.

    ``graph``: what it computes at inference from ``source_input`` on. ``original``: the file itself, as its own framework
    runs it. ``output``: what its values are; of a base, which is no classifier, logits. ``declared``: what the user says
    of them.
    """

    name: str
    path: Path
    kind: str
    graph: Graph
    source_input: SourceInput
    original: Original
    output: Output
    labels: tuple[str, ...] = ()
    allow_code: bool = False
    limits: Limits = field(default_factory=Limits)
    notes: tuple[str, ...] = ()  # what was read otherwise than it was written
    declared: str | None = None
    application: Application | None = None  # of Keras, that it is built on
    trouble: str = ""  # why the labels beside the file cannot be read

    @property
    def activation(self) -> str:
        """What the scores are: ``softmax``, they add up to 1, or ``sigmoid``, each label for itself."""
        return "softmax" if self.output.negative else self.output.activation

    @property
    def applied(self) -> str | None:
        """The activation that is missing behind ``graph``; None where it ends in scores."""
        return None if self.output.negative else self.output.applied

    @cached_property
    def digests(self) -> list[str]:
        """Of every tensor, weights included; see ``digests.tensor_digests``."""
        with contradictions(self.path):
            return tensor_digests(self.graph, self.source_input.identity, self.source_input.shape)

    @cached_property
    def structure(self) -> list[str]:
        """The same without weights: equal where two models are built alike."""
        with contradictions(self.path):
            return tensor_digests(self.graph, self.source_input.identity, self.source_input.shape, with_weights=False)

    @property
    def folding(self) -> float:
        """How far apart weights may be that are one, relative to the largest of a tensor; more where the user says so."""
        return 0.0

    @property
    def is_exact(self) -> bool:
        """Does the original compute in float with the numbers that ``graph`` has?"""
        return True

    def settings(self, index: int) -> dict[str, Any]:
        """Of a node, in the form in which they are compared."""
        return settings_of(self.graph, index, self.source_input.shape)

    def ask(self, samples: Sequence[Any]) -> Answers:
        """Run the original on ``samples``, as users have them: pixels 0..255 uint8 (samples, height, width, 3) or texts,
        bytes (samples,). Its raw values come when the result is called.
        """
        return self.original.ask(self.source_input.shown(samples), max_memory=self.limits.max_memory)

    def settled(self, raw: np.ndarray) -> Classifier:
        """With what the values are, now that the original has answered; ``raw``: float32 (samples, outputs).

        Raises ``ConfigError`` and ``ModelFileError`` where they are no answers, or could be two things.
        """
        where = f"heads.{self.name}: {self.path.name}"
        return self._with_output(settled_output(self.output, raw, self.declared, len(self.labels), where))

    def predict(self, samples: Sequence[Any]) -> np.ndarray:
        """The original model's probabilities, float32 (samples, labels); ``samples`` as ``ask`` takes them."""
        raw = self.ask(samples)()
        return self.settled(raw).output.scores(raw)

    def with_labels(self, labels: tuple[str, ...], declared: str | None) -> Classifier:
        """With what the user says of its answers. Raises ``ConfigError`` and ``ModelFileError``."""
        if self.graph.output.node == INPUT:
            raise ModelFileError(f"{self.path}: the model returns its input; not a classifier")
        where = f"{head_setting(self.name, 'activation')}: {self.path.name}"
        output = expected_output(*self.end, declared, len(labels), where)
        return replace(self, labels=labels, declared=declared)._with_output(output)

    @property
    def end(self) -> tuple[str, int | None]:
        """What the graph ends in, see ``outputs.Output``, and the number of its outputs, where that is known."""
        shape = tensor_shapes(self.graph, self.source_input.shape).get(self.graph.output)
        return ends_in(self.graph), shape[1] if shape is not None and len(shape) == 2 else None

    def _with_output(self, output: Output) -> Classifier:
        if output == self.output:
            return self
        graph = with_negative(self.graph, output) if output.negative and not self.output.negative else self.graph
        return replace(self, output=output, graph=graph)


class Reader:
    """Reads models one after the other and keeps what they have in common once."""

    def __init__(
        self,
        *,
        allow_code: bool = False,
        limits: Limits | None = None,
        text_length: int | None = None,
        inference_mode: bool = False,
    ) -> None:
        """``inference_mode``: a layer that is called with ``training=True`` is run as if it were not."""
        self._text_length, self._inference_mode = text_length, inference_mode
        self._pool, self._allow_code, self._limits = WeightPool(), allow_code, limits or Limits()
        self._canonical = canonical_layers(allow_code=allow_code)

    def read(
        self, name: str, path: Path, preprocessing: PixelTransform | None, size: tuple[int, int] | None = None
    ) -> Classifier:
        """The classifier in ``path``, with the labels that come with the file, if any. ``size``: height and width, of
        pictures that the model takes at any. Raises ``ModelFileError``.
        """
        file = tflite_in(path)
        if file is not None:
            from builder.reading.tflite.classifier import read_tflite  # makes a kind of ``Classifier``

            return read_tflite(name, file, preprocessing, pool=self._pool)
        from builder.reading.formats.reading import read_model  # imports TensorFlow

        return self.classifier(name, read_model(path, allow_code=self._allow_code), preprocessing, size)

    def classifier(
        self,
        name: str,
        stored: StoredModel,
        preprocessing: PixelTransform | None,
        size: tuple[int, int] | None = None,
    ) -> Classifier:
        """The same for a file that was read already."""
        model = self.base(name, stored, preprocessing, size)
        with contradictions(stored.path):
            return replace(model.with_labels((), None), labels=model.labels)

    def base(
        self,
        name: str,
        stored: StoredModel,
        preprocessing: PixelTransform | None,
        size: tuple[int, int] | None = None,
    ) -> Classifier:
        """A model that may end in anything, read as if it were a classifier with bare logits."""
        path = stored.path
        with contradictions(path):
            check_one_input(stored)
            notes = (*stored.notes, *self._training(stored))
            try:
                graph = read_graph(stored.definition, stored.weights, pool=self._pool, canonical=self._canonical)
            except (UnreadableModelError, UnknownLayerError) as error:
                raise ModelFileError(f"{path}: {error}") from error
            check_nodes(graph, path)
            simple, source_input = read_source_input(stored, graph, preprocessing, self._text_length, size)
            simple = one_node_each(simple, source_input.shape)
        return Classifier(
            name=name,
            path=path,
            kind=stored.kind,
            graph=simple,
            source_input=source_input,
            original=stored.original,
            output=Output(LOGITS, "softmax"),
            labels=stored.origin.labels or (),
            allow_code=self._allow_code,
            limits=self._limits,
            notes=(*notes, *size_note(stored, source_input, size)),
            application=application_of(stored.definition),
            trouble=stored.origin.trouble,
        )

    def _training(self, stored: StoredModel) -> tuple[str, ...]:
        """What the user should know of layers that are called with ``training=True``. Raises ``ModelFileError``."""
        if not stored.training:
            return ()
        first, more = stored.training[0], len(stored.training) - 1
        layers = f"layer {first}{f' and {more} more' if more else ''}"
        if self._inference_mode:
            return (f"{layers} is called with training=True in the file and runs as at inference here (inference_mode)",)
        raise ModelFileError(
            f"{stored.path}: {layers} is called with training=True, so that answers depend on the batch or on chance; "
            "call it with training=False and save the model again, or have it run as at inference (--inference-mode)"
        )


def load_classifiers(
    heads: Iterable[HeadConfig],
    advance: Callable[[], None] = lambda: None,
    *,
    allow_code: bool = False,
    limits: Limits | None = None,
    text: TextConfig | TextInput | None = None,
    size: tuple[int, int] | None = None,
    inference_mode: bool = False,
) -> tuple[Classifier, ...]:
    """Read each model with its labels; ``advance`` is called after each. ``text``: the vocabulary of those without
    one, or that of a finished file. ``size``: height and width, of those that take pictures of any. ``inference_mode``:
    see ``Reader``.

    Raises ``ModelFileError`` and ``ConfigError``.
    """
    length = text.length if isinstance(text, TextInput) else text.maxlen if text is not None else None
    reader = Reader(allow_code=allow_code, limits=limits, text_length=length, inference_mode=inference_mode)
    found = []
    for head in heads:
        found.append(_load(reader, head, text, size))
        advance()
    return tuple(found)


def reading_options(config: BuildConfig) -> dict[str, Any]:
    """What a configuration says of reading, for ``load_classifiers``."""
    return {
        "allow_code": config.allow_code,
        "limits": config.limits,
        "text": config.text,
        "size": config.size,
        "inference_mode": config.inference_mode,
    }


def _load(
    reader: Reader, head: HeadConfig, text: TextConfig | TextInput | None, size: tuple[int, int] | None
) -> Classifier:
    classifier = reader.read(head.name, head.model, head.preprocessing, head.size or size)
    classifier = replace(classifier, source_input=_declared(classifier, head, text))
    classifier.original.start()  # its framework is imported while others are read
    return classifier.with_labels(read_labels(head, classifier.labels, classifier.trouble), head.activation)


def _declared(classifier: Classifier, head: HeadConfig, text: TextConfig | TextInput | None) -> SourceInput:
    """The source_input with what the user says of it. Raises ``ConfigError`` where that is too little."""
    source_input = classifier.source_input
    if isinstance(source_input, TextSourceInput):
        source_input = source_input.with_words(text, f"heads.{head.name}: {head.model.name}")
        check_embedding(classifier.graph, source_input.words, head.model)
        return source_input
    _check_size(source_input, head)
    if head.preprocessing is None and not source_input.settled and source_input.pixels == PixelTransform():
        known = classifier.application
        hint = f"{known.name}'s preprocess_input is {known.preprocessing!r}: " if known else ""
        words = known.preprocessing if known else "|".join((*PREPROCESSING, "SCALE,OFFSET"))
        raise ConfigError(
            f"{head_setting(head.name, 'preprocessing')}: how do pixels 0..255 enter {head.model.name}? No layer in it "
            f"says so; {hint}add {advice('preprocessing', words, head.name)}"
        )
    return source_input if head.resize is None else replace(source_input, resize=head.resize.over(source_input.resize))


def _check_size(source_input: PictureSourceInput, head: HeadConfig) -> None:
    """Raises ``ConfigError`` where a head is given a size that its model does not take."""
    if head.size is not None and source_input.size != head.size:
        own, found = (f"{width} x {height}" for height, width in (source_input.size, head.size))
        raise ConfigError(
            f"{head_setting(head.name, 'size')}: {head.model.name} takes {own} alone, found {found}; leave it out"
        )


def read_labels(head: HeadConfig, beside: tuple[str, ...] = (), trouble: str = "") -> tuple[str, ...]:
    """The labels of a head: as configured, else those that came with the model, else of the file beside it.

    Raises ``ConfigError``.
    """
    labels, source = head.labels, head_setting(head.name, "labels")
    if labels is None and beside:
        labels = beside
    if labels is None and trouble:
        raise ConfigError(f"{source}: the labels beside {head.model.name} cannot be read: {trouble}")
    if labels is None:
        candidates = [head.model.with_suffix(suffix) for suffix in (".txt", ".json", ".csv")]
        labels = next((path for path in candidates if path.is_file()), None)
        if labels is None:
            raise ConfigError(f"{source}: expected a file or a list of labels, found neither it nor {candidates[0]}")
    if isinstance(labels, Path):
        source = str(labels)
        labels = read_label_file(labels)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ConfigError(f"{source}: labels repeat: {', '.join(repeated)}; each output needs a label of its own")
    if any(not label.strip() or "\n" in label for label in labels):
        raise ConfigError(f"{source}: a label is empty or has more than one line")
    return labels


def check_nodes(graph: Graph, path: Path) -> None:
    """Raises ``ModelFileError`` for a call on no tensor, and for a weight that is no number."""
    for node in graph.nodes:
        if next(node.inputs(), None) is None:
            raise ModelFileError(f"{path}: layer {node.layer!r:.80} ({node.kind}) is called on nothing; save it again")
        for i, weight in enumerate(node.weights):
            wrong = weight.value.size - int(np.isfinite(weight.value).sum())
            if wrong:
                name = weight_name(node.kind, node.config, i)
                raise ModelFileError(
                    f"{path}: layer {node.layer!r:.80} ({node.kind}): {wrong:,} of {weight.value.size:,} numbers of its "
                    f"{name} are NaN or infinite: the training went wrong, or the file was damaged; train or copy again"
                )


def check_labels(classifier: Classifier, shape: tuple[int | None, ...]) -> None:
    """``shape``: of the model's output, batch axis and all. Raises ``ModelFileError`` and ``ConfigError``."""
    if len(shape) != 2 or shape[1] is None:
        raise ModelFileError(f"{classifier.path}: expected one output (batch, labels), found {shape}; not a classifier")
    if len(classifier.labels) != shape[1]:
        raise ConfigError(
            f"{head_setting(classifier.name, 'labels')}: expected {shape[1]} labels, one for each output of "
            f"{classifier.path.name}, found {len(classifier.labels)}"
        )
