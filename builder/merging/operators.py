"""Backbone and heads of ``.tflite`` files, operator by operator, as one float file; TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from builder.merging.backbone import SharedBackbone
from builder.reading.checks import check_labels
from builder.reading.classifier import Classifier
from builder.reading.graph import INPUT, Graph, Ref
from builder.reading.picture_input import PictureSourceInput
from builder.reading.tflite.classifier import TfliteClassifier
from builder.reading.tflite.forms import size
from builder.reading.tflite.operators import Held, Shape
from builder.settings.input_scaling import PixelTransform
from builder.tflite.assembler import Assembler
from builder.tflite.flatbuffer import VALID, Part
from builder.tflite.writer import write_parts
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

Features = Mapping[str, np.ndarray]
_PROBABILITIES = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}


@dataclass(frozen=True)
class MergedOperators:
    """See ``merged.Merged``. ``backbone``, ``heads``: float parts."""

    source_input: PictureSourceInput
    backbone: Part
    heads: dict[str, Part]
    digest: str
    seam: tuple[str, ...]

    def features(self, tensors: np.ndarray) -> Features:
        runner = self._interpreter.get_signature_runner(BACKBONE)
        inputs = self.source_input.device_input(tensors)
        rows = [_copied(runner(**{self.source_input.name: one[None]})) for one in inputs]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.seam}

    def head_scores(self, name: str, features: Features) -> np.ndarray:
        runner, reads = self._interpreter.get_signature_runner(name), list(self.heads[name].inputs)
        count = len(next(iter(features.values())))
        rows = [_copied(runner(**{tensor: features[tensor][i : i + 1] for tensor in reads})) for i in range(count)]
        return np.concatenate([row["scores"] for row in rows])

    def needs_words(self) -> bool:
        return False

    def float_model(self) -> bytes:
        return write_parts({BACKBONE: self.backbone, **self.heads})

    @cached_property
    def _interpreter(self) -> Any:
        _, factory = find_interpreter("ai_edge_litert")
        return factory(model_content=self.float_model(), num_threads=2)


def _copied(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.copy() for name, values in outputs.items()}


def merge_operators(classifiers: Sequence[Classifier], shared: SharedBackbone) -> MergedOperators:
    """As ``merged.merge``."""
    first = classifiers[0]
    source_input = first.source_input
    assert isinstance(source_input, PictureSourceInput)
    seam = shared.seams[0]
    shapes = {name: output_shape(first.graph, ref) for name, ref in seam.items()}
    heads = {
        c.name: head_part(_operators(c), shared.head(classifiers, i), shared.seams[i], shapes)
        for i, c in enumerate(classifiers)
    }
    return MergedOperators(
        source_input=source_input,
        backbone=_backbone_part(first, shared.backbone(classifiers), seam, source_input),
        heads=heads,
        digest=f"sha256:{shared.digest}",
        seam=tuple(seam),
    )


def head_part(
    classifier: TfliteClassifier, nodes: Sequence[int], seam: Mapping[str, Ref], shapes: Mapping[str, Shape]
) -> Part:
    """``nodes`` of a classifier as a part: the tensors of ``seam`` that they read -> scores (1, labels).

    ``shapes``: of the seam's tensors, batch axis included. Raises ``ConfigError`` unless each label has an output.
    """
    graph = classifier.graph
    outputs, (activation, negative) = size(output_shape(graph, graph.output)), classifier.missing
    check_labels(classifier, (1, 2 if negative else outputs))
    read = {ref for node in nodes for ref in graph.nodes[node].inputs()}
    builder = _PartBuilder(classifier.name, graph)
    for name, ref in seam.items():
        if ref in read:
            builder.values[ref] = builder.assembler.source(name, shapes[name])
    last = nodes[-1]
    builder.add(nodes[:-1])
    if activation is None:  # the last operator reads and gives one row, whatever the file has
        scores = builder.add_one(last, shape=(1, outputs))
    else:
        builder.add([last])
        logits = builder.shaped(builder.values[graph.output], (1, outputs))
        scores = builder.assembler.add(_PROBABILITIES[activation], [logits], (1, outputs))
    if negative:
        one = builder.assembler.constant(np.ones((1, 1), np.float32))
        scores = builder.assembler.add(
            "CONCATENATION", [builder.assembler.add("SUB", [one, scores], (1, 1)), scores], (1, 2)
        )
    builder.assembler.part.outputs = {"scores": scores}
    return builder.assembler.part


def _operators(classifier: Classifier) -> TfliteClassifier:
    assert isinstance(classifier, TfliteClassifier)  # find_backbone: those of another kind share nothing with them
    return classifier


def output_shape(graph: Graph, ref: Ref) -> Shape:
    shape: Shape = graph.nodes[ref.node].config["outputs"][ref.output]
    return shape


def _backbone_part(
    first: Classifier, nodes: Sequence[int], seam: Mapping[str, Ref], source_input: PictureSourceInput
) -> Part:
    builder = _PartBuilder(BACKBONE, first.graph)
    image = builder.assembler.source(source_input.name, (1, *source_input.shape))
    if not source_input.pixels.is_uniform:
        image = _pixels(builder.assembler, image, source_input)
    builder.values[Ref(INPUT, 0)] = image
    builder.add(nodes)
    builder.assembler.part.outputs = {name: builder.values[ref] for name, ref in seam.items()}
    return builder.assembler.part


def _pixels(assembler: Assembler, image: int, source_input: PictureSourceInput) -> int:
    """A 1x1 convolution where the scaling differs by channel or swaps channels, as ``picture_input.pixel_layer`` does."""
    kernel, offset = channel_mix(source_input.pixels)
    inputs = [image, assembler.constant(kernel), assembler.constant(offset)]
    settings = {"padding": VALID, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    shape = (1, *source_input.shape)
    return assembler.operator("CONV_2D", inputs, [shape], ("Conv2DOptions", settings), name="pixels")[0]


def channel_mix(transform: PixelTransform) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (channels, 1, 1, channels) and bias (channels,) of a convolution equal to the transform."""
    count = transform.channels
    kernel = np.zeros((count, 1, 1, count), np.float32)
    kernel[range(count), 0, 0, list(transform.order)] = transform.scale
    return kernel, np.asarray(transform.offset, np.float32)


@dataclass
class _PartBuilder:
    """Nodes of a graph, one after the other, as operators of a part. ``values``: the tensor of each ``Ref`` so far."""

    name: str
    graph: Graph
    values: dict[Ref, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.assembler = Assembler(self.name)

    def add(self, nodes: Sequence[int]) -> None:
        for index in nodes:
            self.add_one(index)

    def add_one(self, index: int, *, shape: Shape | None = None) -> int:
        """``shape``: of what the operator reads and gives, where it differs from the file."""
        node = self.graph.nodes[index]
        shapes = node.config["shapes"] if shape is None or node.kind not in _PROBABILITIES.values() else [shape]
        outputs = node.config["outputs"] if shape is None else [shape]
        inputs = [self._input(arg, node, own) for arg, own in zip(node.args, shapes, strict=False)]
        table = node.config["table"]
        options = None if table is None else (table, node.config["settings"])
        name = node.layer.split(";")[0][:200] or None
        made = self.assembler.operator(node.kind, inputs, outputs, options, name=name)
        self.values.update((Ref(index, k), tensor) for k, tensor in enumerate(made))
        return made[0]

    def shaped(self, tensor: int, shape: Shape) -> int:
        """The tensor, reshaped to ``shape`` where it has another."""
        own = tuple(self.assembler.part.tensors[tensor].shape)
        return tensor if own == tuple(shape) else self.assembler.reshape(tensor, shape)

    def _input(self, arg: Any, node: Any, shape: Shape | None) -> int:
        if arg is None:
            return -1
        if isinstance(arg, Ref):
            return self.values[arg] if shape is None else self.shaped(self.values[arg], shape)
        if isinstance(arg, Held):
            return self.assembler.constant(node.weights[arg.index].value)
        return self.assembler.constant(np.asarray(arg))
