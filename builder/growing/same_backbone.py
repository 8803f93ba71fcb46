"""Find the backbone of a finished file in a classifier, and tell why it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from builder.growing.finished import Finished
from builder.merging.mixed_sources import as_operators
from builder.reading.classifier import Classifier
from builder.reading.graph import INPUT, Ref, WeightPool, upstream
from builder.reading.picture_input import PictureSourceInput
from builder.reading.source_input import SourceInput
from builder.reading.tflite.classifier import TfliteClassifier
from builder.reading.tflite.sketches import SeamOperators
from builder.settings.input_scaling import named_preprocessing
from builder.support.errors import NoSharedBackboneError
from edge_runtime.errors import BundleError
from edge_runtime.text import TextInput


def with_its_backbone(classifier: Classifier, file: Finished) -> Classifier:
    """The classifier in the form that contains the file's seam. Raises ``NoSharedBackboneError`` and ``BundleError``."""
    form = _form(classifier, file)
    cut(form, file)
    return form


def as_in(file: Finished, classifier: Classifier, source_input: PictureSourceInput) -> SourceInput:
    """Find the input scaling of a classifier that does not define it: the one that gives it the file's backbone.

    At most one does. Raises ``NoSharedBackboneError`` where no named preprocessing does.
    """
    known = named_preprocessing(source_input.pixels.channels)
    if not _enters_alike(classifier, file):
        return source_input.entered(known["raw"])  # it does not fit; cutting it reports why
    for entered in map(source_input.entered, known.values()):
        form = _form(replace(classifier, source_input=entered), file)
        if set(_seam_of(file, form).values()) & set(form.digests):
            return entered
    raise NoSharedBackboneError(
        f"{classifier.path}: expected the backbone of {file.path}, found another with preprocessing {', '.join(known)}; "
        "if it is none of these, give --preprocessing SCALE,OFFSET"
    )


def cut(classifier: Classifier, file: Finished) -> tuple[dict[str, Ref], list[int]]:
    """The file's seam in a classifier, and the nodes after it. Raises ``NoSharedBackboneError`` and ``BundleError``."""
    path, seam = classifier.path, _seam_of(file, classifier)
    if not _enters_alike(classifier, file):
        raise NoSharedBackboneError(
            f"{path}: expected a model for {file.metadata.input}, the input of {file.path}; found one for "
            f"{classifier.source_input}"
        )
    places = {found: Ref(i, 0) for i, found in enumerate(classifier.digests)}
    found = {name: places[digest] for name, digest in seam.items() if digest in places}
    if not found:
        raise NoSharedBackboneError(_another_backbone(classifier, file))
    graph = classifier.graph
    nodes = upstream(graph, [graph.output], found.values())
    if any(ref.node == INPUT for i in nodes for ref in graph.nodes[i].inputs()):
        raise NoSharedBackboneError(
            f"{path}: its base is that of {file.path}, but its head reads tensors of it that the file does not provide "
            f"({', '.join(found)}); build the file again with this model among the others"
        )
    return found, nodes


def _form(classifier: Classifier, file: Finished) -> Classifier:
    """The classifier as layers or operators, as the file's backbone is known.

    Constants of operators that are the file's within rounding are named as the file names them.
    """
    if _is_of_operators(file):
        classifier = as_operators(classifier, WeightPool())
    told = _operators_of(file) if isinstance(classifier, TfliteClassifier) else None
    return classifier if told is None else replace(classifier, graph=told.named(classifier.graph))


def _seam_of(file: Finished, classifier: Classifier) -> dict[str, str]:
    """The digests of the seam's tensors, as ``classifier`` would have them. Raises as ``cut``."""
    told = _operators_of(file) if isinstance(classifier, TfliteClassifier) else None
    if told is not None:
        return dict(told.seam)
    if isinstance(classifier, TfliteClassifier) and not _is_of_operators(file):
        raise NoSharedBackboneError(
            f"{classifier.path}: a .tflite file, and {file.path} was built from Keras models without saying what its "
            "backbone is in operators; give the Keras model, or build the file again with this one among the others"
        )
    return {tensor.name: tensor.digest for tensor in file.metadata.seam}


def _operators_of(file: Finished) -> SeamOperators | None:
    """The backbone in operators; None where the file does not say it. Raises ``BundleError``."""
    told = file.metadata.built.get("operators")
    try:
        return None if told is None else SeamOperators.from_json(told)
    except BundleError as error:
        raise BundleError(f"{file.path}: polyhead.json, built.operators: {error}") from error


def _is_of_operators(file: Finished) -> bool:
    """Whether some of its sources were ``.tflite`` files. Then a Keras model is compared by its conversion."""
    sources = file.metadata.built.get("sources")
    return isinstance(sources, dict) and any("TensorFlow Lite" in str(kind) for kind in sources.values())


def _enters_alike(classifier: Classifier, file: Finished) -> bool:
    source_input, spec = classifier.source_input, file.metadata.input
    return (source_input.name, source_input.shape) == (spec.name, spec.shape[1:])


def _another_backbone(classifier: Classifier, file: Finished) -> str:
    wanted = set(_seam_of(file, classifier).values())
    for words, source_input in _other_source_inputs(classifier.source_input, file):
        if wanted & set(replace(classifier, source_input=source_input).digests):
            return f"{classifier.path}: its base is that of {file.path}, but {words}"
    return (
        f"{classifier.path}: expected the backbone of {file.path} ({file.metadata.backbone_digest[:23]}), found another; "
        "`builder inspect` with a model that the file was built from names the first layer that differs"
    )


def _other_source_inputs(source_input: SourceInput, file: Finished) -> Iterator[tuple[str, SourceInput]]:
    """Yield likely causes in words, each with a corrected input to try."""
    spec = file.metadata.input
    if isinstance(source_input, PictureSourceInput):
        for name, transform in named_preprocessing(source_input.pixels.channels).items():
            words = f"its input scaling differs; use preprocessing = {name!r} in addition to what its layers do"
            yield words, replace(source_input, pixels=transform)
    elif isinstance(spec, TextInput):
        yield f"it takes {source_input}, but the file takes {spec}", replace(source_input, words=spec)
