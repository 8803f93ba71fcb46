"""One classifier -> an int8 head for a finished file. Its base must be that of the file; only the head is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from builder.growing.finished import Finished
from builder.growing.same_backbone import as_in, cut, with_its_backbone
from builder.judging.truth import Truth
from builder.judging.verify import HeadQuality, judge
from builder.merging.merged import float_head
from builder.quantizing.learn_layer import Learning
from builder.quantizing.quantize import LEARNABLE, quantize
from builder.quantizing.ranges import Sample, measure_head
from builder.quantizing.rounding import ROUNDING_SAMPLES, learn_rounding
from builder.reading.classifier import Classifier
from builder.reading.loading import load_classifiers
from builder.samples.calibration import SampleSet
from builder.settings.config import MIXED
from builder.settings.heads import HeadConfig
from builder.settings.limits import Limits
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
    """``part``: int8, from the file's seam to its scores. ``truth``: its original's answers on the held-out samples.
    ``notes``: on its model, as it was read.
    """

    info: HeadInfo
    part: Part
    truth: np.ndarray
    notes: tuple[str, ...] = ()


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
    notes = (*(f"{classifier.name}: {note}" for note in classifier.notes), *truth.notes)
    return NewHead(info, part, truth.scores(classifier.name, own.sources), notes)


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
