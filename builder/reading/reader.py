"""Model file -> ``Classifier``. No model is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from builder.reading.checks import check_batch, check_nodes
from builder.reading.classifier import Classifier
from builder.reading.digests import one_node_each
from builder.reading.formats.applications import application_of
from builder.reading.formats.stored import NoLayersError, StoredModel, contradictions
from builder.reading.graph import UnreadableModelError, WeightPool
from builder.reading.keras_graph import output_names, read_graph
from builder.reading.layers import UnknownLayerError, canonical_layers
from builder.reading.outputs import LOGITS, Output
from builder.reading.source_input import check_one_input, read_source_input, size_note
from builder.reading.tflite.file import tflite_in
from builder.reading.trained import trained_with
from builder.settings.input_scaling import PixelTransform
from builder.settings.limits import Limits
from builder.support.errors import ModelFileError

_MakesOne = Callable[[str, PixelTransform | None, tuple[int, int] | None], Classifier]


class Reader:
    """Reads models one after the other and stores what they share once."""

    def __init__(
        self,
        *,
        allow_code: bool = False,
        limits: Limits | None = None,
        text_length: int | None = None,
        inference_mode: bool = False,
    ) -> None:
        """``inference_mode``: layers that are called with ``training=True`` are run in inference mode."""
        self._text_length, self._inference_mode = text_length, inference_mode
        self._pool, self._allow_code, self._limits = WeightPool(), allow_code, limits or Limits()
        self._canonical = canonical_layers(allow_code=allow_code)

    def read(
        self,
        name: str,
        path: Path,
        preprocessing: PixelTransform | None,
        size: tuple[int, int] | None = None,
        output: str | None = None,
    ) -> Classifier:
        """The classifier in ``path``, with the labels that come with the file, if any.

        ``size``: height and width, for a model that takes any. ``output``: the name of an output, for a model with
        several. Raises ``ModelFileError``.
        """
        found = self._open(path)
        if isinstance(found, StoredModel):
            return self.classifier(name, found, preprocessing, size, output)
        return found(name, preprocessing, size)

    def read_each(
        self, name: str, path: Path, preprocessing: PixelTransform | None, size: tuple[int, int] | None = None
    ) -> tuple[Classifier, ...]:
        """As ``read``, for a model that may have several outputs: a classifier for each. Raises ``ModelFileError``."""
        found = self._open(path)
        if not isinstance(found, StoredModel):
            return (found(name, preprocessing, size),)
        with contradictions(path):
            names = output_names(found.definition)
        outputs: list[str | None] = [*names] if len(names) > 1 else [None]
        return tuple(self.classifier(name, found, preprocessing, size, output) for output in outputs)

    def _open(
        self, path: Path
    ) -> StoredModel | Callable[[str, PixelTransform | None, tuple[int, int] | None], Classifier]:
        """A model of layers, or, for a file without layers, the function that makes its only classifier."""
        file = tflite_in(path)
        if file is not None:
            from builder.reading.tflite.classifier import read_tflite  # defines a subclass of ``Classifier``

            return lambda name, how, size: read_tflite(name, file, how, size, pool=self._pool)
        from builder.reading.formats.reading import read_model  # imports TensorFlow

        try:
            return read_model(path, allow_code=self._allow_code)
        except NoLayersError as error:
            from builder.reading.graphs.classifier import read_graph_alone

            place = error.place
            return lambda name, how, size: read_graph_alone(name, place, how, size, pool=self._pool, limits=self._limits)

    def classifier(
        self,
        name: str,
        stored: StoredModel,
        preprocessing: PixelTransform | None,
        size: tuple[int, int] | None = None,
        output: str | None = None,
    ) -> Classifier:
        """As ``read``, for a file that was opened already."""
        model = self.base(name, stored, preprocessing, size, output)
        with contradictions(stored.path):
            return replace(model.with_labels((), None), labels=model.labels)

    def base(
        self,
        name: str,
        stored: StoredModel,
        preprocessing: PixelTransform | None,
        size: tuple[int, int] | None = None,
        output: str | None = None,
    ) -> Classifier:
        """A model with any output, read as a classifier with logits."""
        path = stored.path
        with contradictions(path):
            check_one_input(stored)
            notes = (*stored.notes, *self._training(stored))
            place = None if output is None else _place(output, stored)
            try:
                graph = read_graph(
                    stored.definition, stored.weights, pool=self._pool, canonical=self._canonical, output=place
                )
            except (UnreadableModelError, UnknownLayerError) as error:
                raise ModelFileError(f"{path}: {error}") from error
            check_nodes(graph, path)
            simple, source_input = read_source_input(stored, graph, preprocessing, self._text_length, size)
            check_batch(simple, source_input.shape, path)
            simple = one_node_each(simple, source_input.shape)
            trained = trained_with(stored.loss, output_names(stored.definition), place or 0)
        return Classifier(
            name=name,
            path=path,
            kind=stored.kind,
            graph=simple,
            source_input=source_input,
            original=stored.original if place is None else stored.original.of_output(place),
            output=Output(LOGITS, "softmax"),
            labels=stored.origin.labels or (),
            allow_code=self._allow_code,
            limits=self._limits,
            notes=(*notes, *size_note(stored, source_input, size)),
            application=application_of(stored.definition),
            trouble=stored.origin.trouble,
            labels_file=stored.origin.labels_file,
            output_name=output,
            trained=trained,
        )

    def _training(self, stored: StoredModel) -> tuple[str, ...]:
        """Notes on layers that are called with ``training=True``. Raises ``ModelFileError`` unless in inference mode."""
        if not stored.training:
            return ()
        first, more = stored.training[0], len(stored.training) - 1
        layers = f"layer {first}{f' and {more} more' if more else ''}"
        if self._inference_mode:
            return (f"{layers} is called with training=True in the file but is run in inference mode (inference_mode)",)
        raise ModelFileError(
            f"{stored.path}: {layers} is called with training=True, so that answers depend on the batch or on chance; "
            "call it with training=False and save the model again, or run it in inference mode (--inference-mode)"
        )


def _place(output: str, stored: StoredModel) -> int:
    names = output_names(stored.definition)
    if output not in names:
        raise ModelFileError(f"{stored.path}: no output {output!r:.80}; its outputs are {', '.join(names)!s:.300}")
    return names.index(output)
