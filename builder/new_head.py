"""One Keras classifier -> an int8 head for a finished file: its base must be the file's, and only the head is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.backbone import upstream
from builder.calibration import PictureSet
from builder.config import HeadConfig
from builder.convert import convert_heads
from builder.digests import tensor_digests
from builder.errors import NoSharedBackboneError
from builder.finished import Finished
from builder.flatbuffer import Part, read_parts, set_quantization, write_parts
from builder.graph import INPUT, Ref
from builder.loading import Classifier, load_classifiers
from builder.merge import head_model
from builder.pixels import PREPROCESSING
from builder.quantize import quantize
from builder.ranges import Sample, measure_head
from builder.rounding import learn_rounding
from builder.verify import HeadQuality, judge
from builder.versions import with_versions
from edge_runtime.engine import MultiHeadClassifier, by_name
from edge_runtime.metadata import HeadInfo, SeamTensor

ROUNDING_PICTURES = 192


@dataclass(frozen=True)
class NewHead:
    """``part``: int8, from the file's seam to its scores."""

    classifier: Classifier
    info: HeadInfo
    part: Part


def load(file: Finished, config: HeadConfig, *, allow_code: bool) -> Classifier:
    """The model, proved by content to have the file's backbone.

    Raises ``ModelFileError``, ``ConfigError`` and ``NoSharedBackboneError``.
    """
    (classifier,) = load_classifiers((config,), allow_code=allow_code)
    _cut(classifier, file)
    return classifier


def make_head(file: Finished, classifier: Classifier, pictures: PictureSet, *, rounding: str) -> NewHead:
    """Build what lies behind the file's seam.

    ``pictures``: representative; the file's own backbone makes of them what the head is calibrated with, so that it is
    fitted to the integers that it will see. Raises ``ModelFileError``, ``ConfigError`` and ``ConversionError``.
    """
    seam, nodes = _cut(classifier, file)
    shapes = {tensor.name: tensor.shape for tensor in file.metadata.seam}
    keras_head = head_model(classifier, nodes, seam, shapes)
    name = classifier.name
    float_model = write_parts(convert_heads({name: keras_head}))
    with MultiHeadClassifier(file.path, head_packs=()) as opened:
        integers = _stacked([by_name(opened.features(pixels)) for pixels in pictures.pixels])
    tensors = {tensor.name: tensor for tensor in file.metadata.seam}
    real = {tensor: tensors[tensor].quantization.dequantize(values) for tensor, values in integers.items()}
    part = _quantized(name, float_model, real, tensors)
    if rounding == "learnt":
        some = slice(ROUNDING_PICTURES)
        inputs = [{tensor: values[some] for tensor, values in group.items()} for group in (real, integers)]
        learn_rounding(read_parts(float_model)[name], part, inputs[0], inputs[1], {}, lambda: None)
    info = HeadInfo(name, classifier.labels, classifier.applied or classifier.activation)
    return NewHead(classifier, info, with_versions(part))


def _cut(classifier: Classifier, file: Finished) -> tuple[dict[str, Ref], list[int]]:
    """Where the file's seam is in a classifier, and the nodes behind it. Raises ``NoSharedBackboneError``."""
    path, spec, seam = classifier.path, file.metadata.input, file.metadata.seam
    if classifier.size != (spec.height, spec.width):
        (height, width) = classifier.size
        raise NoSharedBackboneError(
            f"{path}: expected a model of {spec.width} x {spec.height} pictures, as {file.path} takes; found "
            f"{width} x {height}"
        )
    places = {found: Ref(i, 0) for i, found in enumerate(classifier.digests)}
    found = {tensor.name: places[tensor.digest] for tensor in seam if tensor.digest in places}
    if not found:
        raise NoSharedBackboneError(_another_backbone(classifier, file))
    graph = classifier.graph
    nodes = upstream(graph, [graph.output], found.values())
    if any(ref.node == INPUT for i in nodes for ref in graph.nodes[i].inputs()):
        raise NoSharedBackboneError(
            f"{path}: its base is that of {file.path}, but its head reads more of it than that file gives its heads "
            f"({', '.join(found)}); build the file again with this model among the others"
        )
    return found, nodes


def _another_backbone(classifier: Classifier, file: Finished) -> str:
    wanted = {tensor.digest for tensor in file.metadata.seam}
    for name, transform in PREPROCESSING.items():
        if wanted & set(tensor_digests(classifier.graph, classifier.size, transform)):
            return (
                f"{classifier.path}: its base is that of {file.path}, but pixels enter it otherwise; they have to as "
                f"preprocessing = {name!r} says, beside what layers of the model do"
            )
    return (
        f"{classifier.path}: expected the backbone of {file.path} ({file.metadata.backbone_digest[:23]}), found another; "
        "`builder inspect` with a model that the file was built from says where they part"
    )


def _quantized(name: str, float_model: bytes, features: Mapping[str, np.ndarray], seam: Mapping[str, SeamTensor]) -> Part:
    """Ranges from ``features`` (pictures, ...), those of the inputs the seam's."""
    float_part = read_parts(float_model)[name]
    samples: list[Sample] = [
        {tensor: features[tensor][i : i + 1] for tensor in float_part.inputs}
        for i in range(len(next(iter(features.values()))))
    ]
    ranges = measure_head(float_model, name, samples)
    for tensor, i in float_part.inputs.items():
        low, high = seam[tensor].quantization.dequantize(np.array([-128, 127], np.int8)).tolist()
        ranges[float_part.tensors[i].name.decode()] = low, high
    part = read_parts(quantize(float_model, ranges))[name]
    for tensor, i in part.inputs.items():  # the quantizer computes the scale anew, and may end one bit beside it
        set_quantization(part.tensors[i], seam[tensor].quantization)
    return part


def _stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def compare(opened: MultiHeadClassifier, head: NewHead, pictures: PictureSet) -> HeadQuality:
    """The head as ``opened`` runs it against its original, on the pictures that are its own or, without such, on all."""
    name = head.info.head_name
    chosen = pictures.of_head(name)
    truth = head.classifier.predict(pictures.pixels[chosen])
    found = [opened.head_scores(opened.features(pixels), name) for pixels in pictures.pixels[chosen]]
    return judge(name, chosen, truth, np.stack(found), head.info.activation)
