"""One classifier -> an int8 head for a finished file. Its base must be that of the file; only the head is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from builder.growing.finished import Finished
from builder.judging.truth import Truth
from builder.judging.verify import HeadQuality, judge
from builder.merging.merged import float_head
from builder.merging.mixed_sources import as_operators
from builder.quantizing.quantize import LEARNABLE, quantize
from builder.quantizing.ranges import Sample, measure_head
from builder.quantizing.rounding import ROUNDING_SAMPLES, Learning, learn_rounding
from builder.reading.classifier import Classifier
from builder.reading.graph import INPUT, Ref, WeightPool, upstream
from builder.reading.loading import load_classifiers
from builder.reading.picture_input import PictureSourceInput
from builder.reading.source_input import SourceInput
from builder.reading.tflite.classifier import TfliteClassifier
from builder.samples.calibration import SampleSet
from builder.settings.config import MIXED
from builder.settings.heads import HeadConfig
from builder.settings.input_scaling import named_preprocessing
from builder.settings.limits import Limits
from builder.support.errors import NoSharedBackboneError
from builder.tflite.flatbuffer import Part, read_parts, set_quantization, tensor_name
from builder.tflite.versions import with_versions
from builder.tflite.writer import write_parts
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.metadata import HeadInfo, SeamTensor
from edge_runtime.quantization import FLOAT
from edge_runtime.seam import by_name
from edge_runtime.text import TextInput


@dataclass(frozen=True)
class NewHead:
    """``part``: int8, from the file's seam to its scores. ``truth``: its original's answers on the held-out samples."""

    info: HeadInfo
    part: Part
    truth: np.ndarray


def load(file: Finished, config: HeadConfig, *, allow_code: bool, limits: Limits | None = None) -> Classifier:
    """Read the model, and check by digests that it has the file's backbone.

    Raises ``ModelFileError``, ``ConfigError`` and ``NoSharedBackboneError``.
    """
    spec = file.metadata.input
    words = spec if isinstance(spec, TextInput) else None
    (classifier,) = load_classifiers(
        (config,), allow_code=allow_code, limits=limits, text=words, unsaid=partial(as_in, file)
    )
    return with_its_backbone(classifier, file)


def with_its_backbone(classifier: Classifier, file: Finished) -> Classifier:
    """The classifier in the form that contains the file's seam. Raises ``NoSharedBackboneError``."""
    try:
        cut(classifier, file)
    except NoSharedBackboneError:
        if not _is_of_operators(file):
            raise
        classifier = as_operators(classifier, WeightPool())
        cut(classifier, file)
    return classifier


def as_in(file: Finished, classifier: Classifier, source_input: PictureSourceInput) -> SourceInput:
    """Find the input scaling of a classifier that does not define it: the one that gives it the file's backbone.

    At most one does. Raises ``NoSharedBackboneError`` where no named preprocessing does.
    """
    known = named_preprocessing(source_input.pixels.channels)
    if not _enters_alike(classifier, file):
        return source_input.entered(known["raw"])  # it does not fit; cutting it reports why
    wanted = set(_seam_of(file, classifier).values())
    for entered in map(source_input.entered, known.values()):
        found = replace(classifier, source_input=entered)
        forms = [found, as_operators(found, WeightPool())] if _is_of_operators(file) else [found]
        if any(wanted & set(form.digests) for form in forms):
            return entered
    raise NoSharedBackboneError(
        f"{classifier.path}: expected the backbone of {file.path}, found another with preprocessing {', '.join(known)}; "
        "if it is none of these, give --preprocessing SCALE,OFFSET"
    )


def _enters_alike(classifier: Classifier, file: Finished) -> bool:
    source_input, spec = classifier.source_input, file.metadata.input
    return (source_input.name, source_input.shape) == (spec.name, spec.shape[1:])


def _is_of_operators(file: Finished) -> bool:
    """Whether some of its sources were ``.tflite`` files. Then a Keras model is compared by its conversion."""
    sources = file.metadata.built.get("sources")
    return isinstance(sources, dict) and any("TensorFlow Lite" in str(kind) for kind in sources.values())


def made_and_answered(
    file: Finished, classifier: Classifier, samples: SampleSet, held_out: SampleSet, *, rounding: str
) -> NewHead:
    """Build the head from the file's seam on, and run the original on ``held_out`` in the background.

    ``samples``: calibration samples. The head is calibrated on the features of the file's own backbone, the integers that
    it will see. Raises ``ModelFileError``, ``ConfigError`` and ``ConversionError``.
    """
    with Truth((classifier,), samples.first(0), held_out) as truth:
        (classifier,) = truth.settle_unclear((classifier,))
        part = _part(file, classifier, samples, rounding)
        (classifier,) = truth.settle((classifier,))
    own = held_out.at(held_out.of_head(classifier.name).tolist())
    info = HeadInfo(classifier.name, classifier.labels, classifier.activation)
    return NewHead(info, part, truth.scores(classifier.name, own))


def _part(file: Finished, classifier: Classifier, samples: SampleSet, rounding: str) -> Part:
    seam, nodes = cut(classifier, file)
    shapes = {tensor.name: tensor.shape for tensor in file.metadata.seam}
    name = classifier.name
    float_model = write_parts({name: float_head(classifier, nodes, seam, shapes)})
    with MultiHeadClassifier(file.path, head_packs=()) as opened:
        integers = _stacked([by_name(opened.features_of(tensor[None])) for tensor in samples.tensors])
    tensors = {tensor.name: tensor for tensor in file.metadata.seam}
    real = {tensor: tensors[tensor].quantization.dequantize(values) for tensor, values in integers.items()}
    precision = file.metadata.built["precision"]
    precision = "int8" if precision == MIXED else precision  # whose heads are int8
    part = _quantized(name, float_model, real, tensors, precision)
    if rounding != "nearest" and precision in LEARNABLE:
        some = slice(ROUNDING_SAMPLES)
        truth, device = ({tensor: values[some] for tensor, values in group.items()} for group in (real, integers))
        learn_rounding(
            read_parts(float_model)[name],
            part,
            truth,
            device,
            {},
            learning=Learning(weights=rounding == "learnt"),
        )
    return with_versions(part)


def cut(classifier: Classifier, file: Finished) -> tuple[dict[str, Ref], list[int]]:
    """The file's seam in a classifier, and the nodes after it. Raises ``NoSharedBackboneError``."""
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


def _seam_of(file: Finished, classifier: Classifier) -> dict[str, str]:
    """The digests of the seam's tensors, as ``classifier`` would have them. Raises ``NoSharedBackboneError``."""
    if not isinstance(classifier, TfliteClassifier) or _is_of_operators(file):
        return {tensor.name: tensor.digest for tensor in file.metadata.seam}
    told = file.metadata.built.get("operators")
    if not isinstance(told, dict):
        raise NoSharedBackboneError(
            f"{classifier.path}: a .tflite file, and {file.path} was built from Keras models without saying what its "
            "backbone is in operators; give the Keras model, or build the file again with this one among the others"
        )
    return {str(name): str(digest) for name, digest in told.items()}


def _another_backbone(classifier: Classifier, file: Finished) -> str:
    wanted = set(_seam_of(file, classifier).values())
    for words, source_input in _other_source_inputs(classifier.source_input, file):
        if wanted & set(replace(classifier, source_input=source_input).digests):
            return f"{classifier.path}: its base is that of {file.path}, but {words}"
    advice = "; `builder inspect` with a model that the file was built from names the first layer that differs"
    if isinstance(classifier, TfliteClassifier):  # here constants are compared bit for bit, in a build with a tolerance
        advice = (
            ", or the same from a converter that rounds it differently; build the file again with this model among its "
            "sources, which tells"
        )
    return (
        f"{classifier.path}: expected the backbone of {file.path} ({file.metadata.backbone_digest[:23]}), found another"
        f"{advice}"
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


def _quantized(
    name: str,
    float_model: bytes,
    features: Mapping[str, np.ndarray],
    seam: Mapping[str, SeamTensor],
    precision: str,
) -> Part:
    """Quantize the head with ranges from ``features`` (pictures, ...), and those of the seam for its inputs."""
    float_part = read_parts(float_model)[name]
    samples: list[Sample] = [
        {tensor: features[tensor][i : i + 1] for tensor in float_part.inputs}
        for i in range(len(next(iter(features.values()))))
    ]
    ranges = measure_head(float_model, name, samples)
    for tensor, i in float_part.inputs.items():
        given = seam[tensor].quantization
        if given != FLOAT:
            ranges[tensor_name(float_part.tensors[i])] = given.limits
    part = read_parts(quantize(float_model, ranges, precision))[name]
    for tensor, i in part.inputs.items():  # the quantizer recomputes the scale, possibly off by one bit
        if seam[tensor].quantization != FLOAT:
            set_quantization(part.tensors[i], seam[tensor].quantization)
    return part


def _stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def compare(opened: MultiHeadClassifier, head: NewHead, samples: SampleSet) -> HeadQuality:
    """Compare the head in ``opened`` with its original, on its own samples or, without any, on all."""
    name = head.info.head_name
    chosen = samples.of_head(name)
    found = [opened.head_scores(opened.features_of(tensor[None]), name) for tensor in samples.tensors[chosen]]
    return judge(name, chosen, head.truth, np.stack(found), head.info.activation, own_pictures=samples.has_own(name))
