"""Convert a finished file for MediaPipe Tasks: one subgraph, uint8 pictures in, float scores out, TFLite metadata."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import FLOAT32, Part, plain_tensor, read_parts, scale_and_zero_point
from builder.tflite.metadata import BUFFER_NAME, Picture, Scores, model_metadata
from builder.tflite.parts import without_unused
from builder.tflite.versions import with_versions
from builder.tflite.writer import Writer
from edge_runtime.bundle import append_files, labels_member, labels_text
from edge_runtime.counting import count_of
from edge_runtime.inputs import picture_input
from edge_runtime.joint import JointInfo
from edge_runtime.metadata import END_TO_END, JOINT, Metadata


def task_file(model: bytes, metadata: Metadata, heads: Sequence[str]) -> bytes:
    """``model``, the flatbuffer of a finished file, with one output for each of ``heads``; ``joint`` may be among them.

    int8 scores become float32 without loss: MediaPipe does not support int8, nor outputs of different types.
    """
    labels = labels_of(metadata)
    part = with_versions(with_float_outputs(upstream(read_parts(model)[END_TO_END], heads)))
    spec = picture_input(metadata.input)
    mean, std = _normalisation(part)
    picture = Picture("image", spec.height, spec.width, mean, std)
    outputs = [Scores(name, _description(name, metadata), labels_member(name)) for name in heads]
    words = f"{', '.join(heads)} on one backbone; {metadata.backbone_digest[:16]}"
    writer = Writer()
    writer.add_subgraph(END_TO_END, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    described = {BUFFER_NAME: model_metadata("polyhead", words, picture, outputs)}
    whole = writer.finish("polyhead: one backbone, many heads", described)
    return append_files(whole, {labels_member(name): labels_text(labels[name]) for name in heads}, packed=False)


def labels_of(metadata: Metadata) -> dict[str, tuple[str, ...]]:
    """The labels of each output of a file: first the joint list, if there is one, then the heads."""
    heads = {head.head_name: head.labels for head in metadata.heads}
    if metadata.joint is None:
        return heads
    return {JOINT: JointInfo.from_json(metadata.joint, list(heads)).labels, **heads}


def chosen_outputs(metadata: Metadata, wanted: Sequence[str]) -> list[str]:
    """``wanted``, or everything, in the order of ``labels_of``. Raises ``ConfigError``."""
    known = list(labels_of(metadata))
    strange = [name for name in wanted if name not in known]
    if strange:
        raise ConfigError(
            f"no head {strange[0]!r}; this file has {count_of(len(known), 'outputs')}: {', '.join(known[:20])}"
        )
    return [name for name in known if not wanted or name in wanted]


def upstream(part: Part, outputs: Sequence[str]) -> Part:
    """The part reduced to what ``outputs`` need, in that order."""
    return without_unused(replace(part, outputs={name: part.outputs[name] for name in outputs}))


def with_float_outputs(part: Part) -> Part:
    """The part with every output in float32, in a tensor with the name of the output."""
    tensors, operators, outputs = list(part.tensors), list(part.operators), dict[str, int]()
    for name, index in part.outputs.items():
        if tensors[index].type == FLOAT32:
            tensors[index] = copy.copy(tensors[index])
            tensors[index].name, outputs[name] = name, index
        else:
            outputs[name] = len(tensors)
            tensors.append(plain_tensor(name, tensors[index].shape, "float32"))
            operators.append(part.operator("DEQUANTIZE", [index], [outputs[name]]))
    return replace(part, tensors=tensors, operators=operators, outputs=outputs)


def _normalisation(part: Part) -> tuple[float, float]:
    """(mean, std) that the input's quantization reverses, so that pixels enter unchanged."""
    image = part.tensors[part.inputs["image"]]
    if image.quantization is None or image.quantization.scale is None:
        return 0.0, 1.0
    scale, zero_point = scale_and_zero_point(image)
    return float(zero_point), 1 / scale


def _description(name: str, metadata: Metadata) -> str:
    if name == JOINT:
        return "probabilities of the labels of all heads"
    activation = next(head.activation for head in metadata.heads if head.head_name == name)
    return "probabilities of its labels, which add up to 1" if activation == "softmax" else "a probability for each label"
