"""Model file -> ``Classifier``: what it computes, as a graph, with its labels and its input. Nothing is built here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.digests import one_node_each, settings_of, tensor_digests
from builder.reading.formats.labels import read_label_file
from builder.reading.formats.stored import StoredModel, contradictions
from builder.reading.graph import Graph, UnreadableModelError, WeightPool, read_graph
from builder.reading.layers import UnknownLayerError, canonical_layers, weight_name
from builder.reading.simplify import activation_of
from builder.reading.source_input import SourceInput, check_one_input, read_source_input
from builder.reading.text_input import TextSourceInput, check_embedding
from builder.reading.tflite.file import is_tflite
from builder.settings.config import HeadConfig, TextConfig
from builder.settings.input_scaling import PixelTransform
from builder.settings.limits import Limits
from builder.support.errors import ConfigError, ModelFileError
from builder.support.lazy import Lazy
from edge_runtime.text import TextInput

keras: Any = Lazy("keras")


@dataclass(frozen=True, eq=False)
class Classifier:
    """One model that was read.

    ``graph``: what it computes at inference from ``source_input`` on. ``activation``: what its last layer applies.
    ``original``: builds the model as Keras loads it, for the proof; slow.
    """

    name: str
    path: Path
    kind: str
    graph: Graph
    source_input: SourceInput
    activation: str
    original: Callable[[], Any]
    labels: tuple[str, ...] = ()
    allow_code: bool = False
    limits: Limits = field(default_factory=Limits)
    notes: tuple[str, ...] = ()  # what was read otherwise than it was written
    applied: str | None = None  # the activation put behind bare logits; None where the model has its own

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

    def settings(self, index: int) -> dict[str, Any]:
        """Of a node, in the form in which they are compared."""
        return settings_of(self.graph, index, self.source_input.shape)

    def predict(self, samples: Sequence[Any]) -> np.ndarray:
        """The original model's probabilities, float32 (samples, labels).

        ``samples``: as users have them, pixels 0..255 (samples, height, width, 3) or texts, bytes (samples,). What is
        ``applied`` to bare logits is applied here too.
        """
        scores = run_float(self.original(), self.source_input.original_input(samples))
        return scores if self.applied is None else np.asarray(getattr(keras.activations, self.applied)(scores))


class Reader:
    """Reads models one after the other and keeps what they have in common once."""

    def __init__(self, *, allow_code: bool = False, limits: Limits | None = None, text_length: int | None = None) -> None:
        self._text_length = text_length
        self._pool, self._allow_code, self._limits = WeightPool(), allow_code, limits or Limits()
        self._canonical = canonical_layers(allow_code=allow_code)

    def read(self, name: str, path: Path, preprocessing: PixelTransform | None) -> Classifier:
        """The classifier in ``path``, with the labels that come with the file, if any. Raises ``ModelFileError``."""
        if is_tflite(path):
            from builder.reading.tflite.classifier import read_tflite  # makes a kind of ``Classifier``

            return read_tflite(name, path, preprocessing, pool=self._pool)
        from builder.reading.formats.reading import read_model  # imports TensorFlow

        return self.classifier(name, read_model(path, allow_code=self._allow_code), preprocessing)

    def classifier(self, name: str, stored: StoredModel, preprocessing: PixelTransform | None) -> Classifier:
        """The same for a file that was read already."""
        model = self.base(name, stored, preprocessing)
        with contradictions(stored.path):
            activation = _activation(model.graph, stored.path)
        return replace(model, activation=activation, applied="softmax" if activation == "linear" else None)

    def base(self, name: str, stored: StoredModel, preprocessing: PixelTransform | None) -> Classifier:
        """A model that may end in anything, read as if it were a classifier with bare logits."""
        path = stored.path
        with contradictions(path):
            check_one_input(stored)
            try:
                graph = read_graph(stored.definition, stored.weights, pool=self._pool, canonical=self._canonical)
            except (UnreadableModelError, UnknownLayerError) as error:
                raise ModelFileError(f"{path}: {error}") from error
            check_nodes(graph, path)
            simple, source_input = read_source_input(stored, graph, preprocessing, self._text_length)
            simple = one_node_each(simple, source_input.shape)
        return Classifier(
            name=name,
            path=path,
            kind=stored.kind,
            graph=simple,
            source_input=source_input,
            activation="linear",
            original=stored.original,
            labels=stored.origin.labels or (),
            allow_code=self._allow_code,
            limits=self._limits,
            notes=stored.notes,
        )


def run_float(model: Any, *inputs: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """A Keras model at inference, in batches; float32. Eager: ``predict`` would compile anew for each of 200 heads."""
    batches = ([x[i : i + batch_size] for x in inputs] for i in range(0, len(inputs[0]), batch_size))
    answers = (keras.tree.flatten(model(b if len(b) > 1 else b[0], training=False)) for b in batches)
    return np.concatenate([np.asarray(one, np.float32) for (one,) in answers])  # outputs may be a dict or a list of one


def load_classifiers(
    heads: Iterable[HeadConfig],
    advance: Callable[[], None] = lambda: None,
    *,
    allow_code: bool = False,
    limits: Limits | None = None,
    text: TextConfig | TextInput | None = None,
) -> tuple[Classifier, ...]:
    """Read each model with its labels; ``advance`` is called after each. ``text``: the vocabulary of those without
    one, or that of a finished file.

    Raises ``ModelFileError`` and ``ConfigError``.
    """
    length = text.length if isinstance(text, TextInput) else text.maxlen if text is not None else None
    reader, found = Reader(allow_code=allow_code, limits=limits, text_length=length), []
    for head in heads:
        found.append(_load(reader, head, text))
        advance()
    return tuple(found)


def _load(reader: Reader, head: HeadConfig, text: TextConfig | TextInput | None) -> Classifier:
    classifier = reader.read(head.name, head.model, head.preprocessing)
    classifier = replace(classifier, source_input=_declared(classifier, head, text))
    if head.activation not in (None, classifier.applied or classifier.activation) and classifier.applied is None:
        raise ConfigError(
            f"heads.{head.name}.activation: {head.model.name} ends in a {classifier.activation} of its own; "
            f"leave it out, or save the model with bare logits to have {head.activation}"
        )
    applied = classifier.applied and (head.activation or classifier.applied)
    return replace(classifier, labels=read_labels(head, classifier.labels), applied=applied)


def _declared(classifier: Classifier, head: HeadConfig, text: TextConfig | TextInput | None) -> SourceInput:
    """The source_input with what the user says of it. Raises ``ConfigError`` where that is too little."""
    source_input = classifier.source_input
    if isinstance(source_input, TextSourceInput):
        source_input = source_input.with_words(text, f"heads.{head.name}: {head.model.name}")
        check_embedding(classifier.graph, source_input.words, head.model)
    elif head.preprocessing is None and not source_input.settled and source_input.pixels == PixelTransform():
        raise ConfigError(
            f"heads.{head.name}: how do pixels 0..255 enter {head.model.name}? No layer in it says so; "
            'add preprocessing = "raw", "unit", "tf", "torch", "caffe" or {scale, offset}'
        )
    return source_input


def read_labels(head: HeadConfig, beside: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The labels of a head: as configured, else those that came with the model, else of the file beside it.

    Raises ``ConfigError``.
    """
    labels, source = head.labels, f"heads.{head.name}.labels"
    if labels is None and beside:
        labels = beside
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
            f"heads.{classifier.name}.labels: expected {shape[1]} labels, one for each output of "
            f"{classifier.path.name}, found {len(classifier.labels)}"
        )


def _activation(graph: Graph, path: Path) -> str:
    """``softmax``, ``sigmoid`` or ``linear``; a last layer without an activation of its own gives bare logits."""
    if graph.output.node < 0:
        raise ModelFileError(f"{path}: the model returns its input; not a classifier")
    name = activation_of(graph.nodes[graph.output.node]) or "linear"
    if name not in ("softmax", "sigmoid", "linear"):
        raise ModelFileError(
            f"{path}: expected softmax, sigmoid or bare logits at the end, found {name}; not a classifier"
        )
    return name
