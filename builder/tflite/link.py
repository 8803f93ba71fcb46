"""Subgraphs -> one file: backbone, heads, an end-to-end subgraph that shares the tables of both, and one of all heads."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.support.errors import ConversionError
from builder.tflite.all_scores import Subgraph, all_subgraph, joining
from builder.tflite.flatbuffer import Part, quantization, read_parts
from builder.tflite.names import with_names
from builder.tflite.versions import Version, min_runtime, with_versions
from builder.tflite.writer import Writer
from edge_runtime.metadata import ALL, BACKBONE, END_TO_END, FEATURES, JOINT, SeamTensor
from edge_runtime.quantization import Quantization

JOINT_SEAM = "/features"  # an input of the joint part; its other inputs have the names of the heads


@dataclass(frozen=True)
class LinkedModel:
    """The linked model.

    Attributes:
        model: The flatbuffer.
        backbone_bytes: Bytes that the backbone adds to it, weights included.
        head_bytes: Bytes that each head adds, by name.
        seam: The tensors between backbone and heads.
        scores: Quantization of the scores, the same for all heads.
        min_runtime: The oldest TensorFlow Lite that runs the file, (major, minor).
        newest: The operator that needs ``min_runtime``.
        joint_bytes: Bytes that the joint list adds; it shares the weights of the heads. 0 without a joint list.
    """

    model: bytes
    backbone_bytes: int
    head_bytes: Mapping[str, int]
    seam: tuple[SeamTensor, ...]
    scores: Quantization
    min_runtime: Version
    newest: str
    joint_bytes: int


def link(parts: Mapping[str, Part], joint: Part | None = None) -> LinkedModel:
    """Link a backbone and heads into one model.

    Its subgraphs are ``serving_default`` (subgraph 0), ``backbone``, the heads in the order of ``parts``, and ``all``:
    from the seam to the scores of all heads in one tensor. ``all`` is omitted where a head has that name.

    Args:
        parts: The backbone with a uint8 input (``pixel_input.take_pixels``), and the heads, by name.
        joint: The joint list, which becomes the last subgraph. It reads ``JOINT_SEAM`` and, by the name of each head,
            the input of the last operator of that head.

    Raises:
        ConversionError: Type, shape, scale or zero point differ on the two sides of the seam, or the scores of the heads
            have different scales.
    """
    backbone = with_names(with_versions(parts[BACKBONE]))
    heads = {name: with_names(with_versions(part)) for name, part in parts.items() if name != BACKBONE}
    _check_seam(backbone, heads)
    seam = tuple(_seam_tensor(name, backbone.tensors[i]) for name, i in backbone.outputs.items())
    scores = {name: quantization(part.tensors[part.outputs["scores"]]) for name, part in heads.items()}
    if len(set(scores.values())) != 1:
        raise ConversionError(f"expected one scale for the scores of all heads, found {scores}")

    linker = _Linker(backbone)
    for name, part in heads.items():
        linker.add_head(name, part)
    if ALL not in heads:
        linker.add_all()
    if joint is not None:
        linker.add_joint(with_versions(joint))
    model, bytes_of = linker.finish(), linker.bytes_of
    head_bytes = {name: bytes_of[name] for name in heads}
    scale, oldest = next(iter(scores.values())), min_runtime(linker.parts)
    return LinkedModel(model, bytes_of[BACKBONE], head_bytes, seam, scale, *oldest, bytes_of.get(JOINT, 0))


class _Linker:
    """Writes every table once; the subgraphs list tables by their offsets.

    The end-to-end subgraph grows with each part. It is written first, the other subgraphs in the order of ``parts``.

    Attributes:
        parts: What was added.
        bytes_of: The bytes that the backbone, each head and the joint part added.
    """

    def __init__(self, backbone: Part) -> None:
        self.parts = [backbone]
        self._writer, self._backbone = Writer(), backbone
        self._heads: dict[str, Part] = {}
        self._places: dict[str, dict[int, int]] = {}  # of each head's tensors, in the end-to-end subgraph
        tensors, operators = self._writer.tensors(backbone), self._writer.operators(backbone)
        self._subgraphs: dict[str, Subgraph] = {BACKBONE: (tensors, operators, backbone.inputs, backbone.outputs)}
        self._tensors, self._operators = list(tensors), list(operators)
        self._outputs: dict[str, int] = {}
        self.bytes_of = {BACKBONE: self._writer.size}

    def add_head(self, name: str, part: Part) -> None:
        before, self._heads[name] = self._writer.size, part
        tensors = self._writer.tensors(part)
        self._subgraphs[name] = tensors, self._writer.operators(part), part.inputs, part.outputs
        where = self._places[name] = _places(part, self._backbone.outputs, len(self._tensors))
        self._tensors += _without_inputs(tensors, part)
        self._operators += self._writer.operators(part, where)
        self._outputs[name] = where[part.outputs["scores"]]
        self.bytes_of[name] = self._writer.size - before
        self.parts.append(part)

    def add_all(self) -> None:
        """Add the subgraph from the seam to the scores of all heads. Requires that all heads have been added."""
        read = {name for part in self._heads.values() for name in part.inputs}
        seam = {name: i for name, i in self._backbone.outputs.items() if name in read}
        operators, scores = self._operators[len(self._backbone.operators) :], list(self._outputs.values())
        part = joining(self._heads)
        self._subgraphs[ALL] = all_subgraph(self._writer, part, self._tensors, operators, seam, scores)
        self.parts.append(part)

    def add_joint(self, part: Part) -> None:
        """Add the joint list, which reads the features and the logits of every head. Requires that it is added last."""
        before = self._writer.size
        own = [t for i, t in enumerate(part.tensors) if i not in part.inputs.values()]
        made = self._writer.tensors(replace(part, tensors=own))
        logits = {name: self._places[name][logits_tensor(head)] for name, head in self._heads.items()}
        where = _joint_places(part, {JOINT_SEAM: self._backbone.outputs[FEATURES], **logits}, len(self._tensors))
        self._tensors += made
        self._operators += self._writer.operators(part, where)
        self._outputs[JOINT] = where[part.outputs["scores"]]
        self._subgraphs[JOINT] = self._joint_subgraph(part, made)
        self.bytes_of[JOINT] = self._writer.size - before
        self.parts.append(part)

    def _joint_subgraph(self, joint: Part, made: list[int]) -> Subgraph:
        """The subgraph from the seam through every head up to its logits, then ``joint`` with the tensors ``made``."""
        inputs = {name: i for i, name in enumerate(self._backbone.outputs)}
        tensors = [self._subgraphs[BACKBONE][0][i] for i in self._backbone.outputs.values()]
        operators: list[int] = []
        sources = {JOINT_SEAM: inputs[FEATURES]}
        for name, part in self._heads.items():
            where = _places(part, inputs, len(tensors))
            tensors += _without_inputs(self._subgraphs[name][0], part)
            operators += self._writer.operators(replace(part, operators=part.operators[:-1]), where)
            sources[name] = where[logits_tensor(part)]
        where = _joint_places(joint, sources, len(tensors))
        operators += self._writer.operators(joint, where)
        return tensors + made, operators, inputs, {name: where[i] for name, i in joint.outputs.items()}

    def finish(self) -> bytes:
        self._writer.add_subgraph(END_TO_END, self._tensors, self._operators, self._backbone.inputs, self._outputs)
        for name, subgraph in self._subgraphs.items():
            self._writer.add_subgraph(name, *subgraph)
        return self._writer.finish("polyhead: one backbone, many heads")


def backbone_alone(backbone: Part) -> tuple[bytes, Version]:
    """A model of one subgraph, and the oldest TensorFlow Lite that runs it, (major, minor).

    The subgraph has two signatures, ``serving_default`` and ``backbone``: without heads the features are its only output.
    """
    part, writer = with_names(with_versions(backbone)), Writer()
    writer.add_subgraph(BACKBONE, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    writer.add_signature(END_TO_END, part.inputs, part.outputs)
    return writer.finish("polyhead: a backbone without heads"), min_runtime([part])[0]


def unlink(model: bytes, heads: Collection[str]) -> tuple[dict[str, Part], Part | None]:
    """The reverse of ``link``: backbone and ``heads`` of a file, in its order, and its joint part if it has one."""
    found = read_parts(model)
    parts = {name: part for name, part in found.items() if name == BACKBONE or name in heads}
    own = {name: part for name, part in parts.items() if name != BACKBONE}
    return parts, _joint_alone(found[JOINT], own) if JOINT in found else None


def _joint_alone(whole: Part, heads: Mapping[str, Part]) -> Part:
    """The last part of the joint subgraph, after the logits of the heads: the part that ``_Linker.add_joint`` took."""
    start, operators, sources = len(whole.inputs), 0, {JOINT_SEAM: whole.inputs[FEATURES]}
    for name, part in heads.items():
        sources[name] = _places(part, whole.inputs, start)[logits_tensor(part)]
        start += len(part.tensors) - len(part.inputs)
        operators += len(part.operators) - 1
    kept = [*sources.values(), *range(start, len(whole.tensors))]
    where = {index: i for i, index in enumerate(kept)}
    own = [copy.copy(op) for op in whole.operators[operators:]]
    for op in own:
        op.inputs, op.outputs = ([where.get(i, i) for i in indices] for indices in (op.inputs, op.outputs))
    return replace(
        whole,
        tensors=[whole.tensors[i] for i in kept],
        operators=own,
        inputs={name: i for i, name in enumerate(sources)},
        outputs={name: where[i] for name, i in whole.outputs.items()},
    )


def logits_tensor(head: Part) -> int:
    """The index of the tensor that the last operator of a head reads."""
    index: int = head.operators[-1].inputs[0]
    return index


def _without_inputs(tensors: Sequence[int], part: Part) -> list[int]:
    """The offsets of a part's tensors without those of its inputs."""
    return [t for i, t in enumerate(tensors) if i not in part.inputs.values()]


def _joint_places(joint: Part, sources: Mapping[str, int], start: int) -> dict[int, int]:
    """The index in the subgraph of each tensor of ``joint``: its inputs at ``sources``, the others from ``start`` on."""
    places = {index: sources[name] for name, index in joint.inputs.items()}
    made = [i for i in range(len(joint.tensors)) if i not in places]
    return {**places, **{i: start + n for n, i in enumerate(made)}}


def _seam_tensor(name: str, tensor: Any) -> SeamTensor:
    return SeamTensor(name, tuple(int(n) for n in tensor.shape[1:]), quantization(tensor))


def _in_words(tensor: SeamTensor) -> str:
    q = tensor.quantization
    return f"{tensor.name} {tensor.shape} as {np.dtype(q.dtype)} with scale {q.scale:.6g} and zero point {q.zero_point}"


def _check_seam(backbone: Part, heads: Mapping[str, Part]) -> None:
    for name, part in heads.items():
        for tensor, i in part.inputs.items():
            found = _seam_tensor(tensor, part.tensors[i])
            expected = _seam_tensor(tensor, backbone.tensors[backbone.outputs[tensor]])
            if found != expected:
                raise ConversionError(f"head {name}: expected {_in_words(expected)}, found {_in_words(found)}")


def _places(part: Part, seam: Mapping[str, int], start: int) -> dict[int, int]:
    """The index of each tensor of a head in a subgraph that has ``start`` tensors; its inputs are at ``seam``."""
    places = {i: seam[name] for name, i in part.inputs.items()}
    own = [i for i in range(len(part.tensors)) if i not in places]
    return {**places, **{i: start + k for k, i in enumerate(own)}}
