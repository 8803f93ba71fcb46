"""Subgraphs -> one file: backbone, heads, an end-to-end subgraph that shares the tables of both, and one of all heads."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.support.errors import ConversionError
from builder.tflite.all_scores import all_subgraph, joining
from builder.tflite.flatbuffer import Part, Writer, quantization, read_parts
from builder.tflite.names import with_names
from builder.tflite.versions import Version, min_runtime, with_versions
from edge_runtime.metadata import ALL, BACKBONE, END_TO_END, FEATURES, JOINT, SeamTensor
from edge_runtime.quantization import Quantization

JOINT_SEAM = "/features"  # among the inputs of a joint part, the others of which are called as the heads


@dataclass(frozen=True)
class LinkedModel:
    """``model``: the flatbuffer. ``backbone_bytes``, ``head_bytes``, ``joint_bytes``: what each part adds to it, weights
    included; the joint subgraph shares those of the heads. ``seam``: the tensors between backbone and heads. ``scores``:
    how those of every head are quantized. ``min_runtime``: the oldest TensorFlow Lite, (major, minor), that runs the
    file, for the sake of ``newest``.
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
    """One model with ``serving_default`` as subgraph 0, then ``backbone``, then the heads in the order of ``parts``, then
    ``all``: from the seam to the scores of all heads in one tensor. It is left out beside a head of that name.

    ``joint``: reads ``JOINT_SEAM`` and, by the name of its head, what each head's last operator reads; it comes last.
    Requires the backbone as the device feeds it (``front.take_pixels``) and one type, shape, scale and zero point on both
    sides of the seam. Raises ``ConversionError``.
    """
    backbone = with_names(with_versions(parts[BACKBONE]))
    heads = {name: with_names(with_versions(part)) for name, part in parts.items() if name != BACKBONE}
    _check_seam(backbone, heads)
    seam = tuple(_seam_tensor(name, backbone.tensors[i]) for name, i in backbone.outputs.items())
    scores = {name: quantization(part.tensors[part.outputs["scores"]]) for name, part in heads.items()}
    if len(set(scores.values())) != 1:
        raise ConversionError(f"expected one scale for the scores of all heads, found {scores}")

    writer = Writer()
    tables = {BACKBONE: (writer.tensors(backbone), writer.operators(backbone))}
    backbone_bytes = writer.size
    tensors, operators = list(tables[BACKBONE][0]), list(tables[BACKBONE][1])
    outputs, head_bytes, joint_bytes = {}, {}, 0
    places: dict[str, dict[int, int]] = {}
    for name, part in heads.items():
        before = writer.size
        tables[name] = writer.tensors(part), writer.operators(part)
        where = places[name] = _places(part, backbone.outputs, len(tensors))
        tensors += [t for i, t in enumerate(tables[name][0]) if i not in part.inputs.values()]
        operators += writer.operators(part, where)
        outputs[name] = where[part.outputs["scores"]]
        head_bytes[name] = writer.size - before
    everything = [backbone, *heads.values()]
    if ALL not in heads:
        everything.append(joining(heads))
        read = {name for part in heads.values() for name in part.inputs}
        ends = {name: i for name, i in backbone.outputs.items() if name in read}, list(outputs.values())
        whole = all_subgraph(writer, everything[-1], tensors, operators[len(backbone.operators) :], *ends)
    if joint is not None:
        joint = with_versions(joint)
        before, inputs = writer.size, joint.inputs.values()
        made = writer.tensors(replace(joint, tensors=[t for i, t in enumerate(joint.tensors) if i not in inputs]))
        logits = {name: places[name][logits_tensor(part)] for name, part in heads.items()}
        sources = {JOINT_SEAM: backbone.outputs[FEATURES], **logits}
        where = _joint_places(joint, sources, len(tensors))
        tensors += made
        operators += writer.operators(joint, where)
        outputs[JOINT] = where[joint.outputs["scores"]]
        seam_tables = {name: tables[BACKBONE][0][i] for name, i in backbone.outputs.items()}
        alone = _joint_subgraph(writer, heads, {name: tables[name][0] for name in heads}, joint, made, seam_tables)
        joint_bytes = writer.size - before
    writer.add_subgraph(END_TO_END, tensors, operators, backbone.inputs, outputs)
    for name, part in {BACKBONE: backbone, **heads}.items():
        writer.add_subgraph(name, *tables[name], part.inputs, part.outputs)
    if ALL not in heads:
        writer.add_subgraph(ALL, *whole)
    if joint is not None:
        writer.add_subgraph(JOINT, *alone)
        everything.append(joint)
    return LinkedModel(
        writer.finish("polyhead: one backbone, many heads"),
        backbone_bytes,
        head_bytes,
        seam,
        next(iter(scores.values())),
        *min_runtime(everything),
        joint_bytes,
    )


def backbone_alone(backbone: Part) -> tuple[bytes, Version]:
    """A model of one subgraph, and the oldest TensorFlow Lite that runs it.

    The subgraph has two names, ``serving_default`` and ``backbone``: without heads the features are all there is.
    """
    part, writer = with_names(with_versions(backbone)), Writer()
    writer.add_subgraph(BACKBONE, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    writer.add_signature(END_TO_END, part.inputs, part.outputs)
    return writer.finish("polyhead: a backbone without heads"), min_runtime([part])[0]


def unlink(model: bytes, heads: Collection[str]) -> tuple[dict[str, Part], Part | None]:
    """Backbone and ``heads`` of a file, in its order, and its joint part: what ``link`` makes the same file of again."""
    found = read_parts(model)
    parts = {name: part for name, part in found.items() if name == BACKBONE or name in heads}
    own = {name: part for name, part in parts.items() if name != BACKBONE}
    return parts, _joint_alone(found[JOINT], own) if JOINT in found else None


def _joint_alone(whole: Part, heads: Mapping[str, Part]) -> Part:
    """The end of the joint subgraph, behind the seam and the heads' logits: the reverse of ``_joint_subgraph``."""
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
    """The index of what the last operator of a head reads."""
    index: int = head.operators[-1].inputs[0]
    return index


def _joint_subgraph(
    writer: Writer,
    heads: Mapping[str, Part],
    tables: Mapping[str, list[int]],
    joint: Part,
    made: list[int],
    seam: Mapping[str, int],
) -> tuple[list[int], list[int], dict[str, int], dict[str, int]]:
    """Tensors, operators, inputs and outputs of the subgraph that takes the seam: every head up to its logits, then
    ``joint``. ``tables``, ``made``, ``seam``: offsets of the tensors of the heads, of those that ``joint`` makes, and of
    those of the seam.
    """
    inputs = {name: i for i, name in enumerate(seam)}
    tensors, operators, sources = list(seam.values()), [], {JOINT_SEAM: inputs[FEATURES]}
    for name, part in heads.items():
        where = _places(part, inputs, len(tensors))
        tensors += [t for i, t in enumerate(tables[name]) if i not in part.inputs.values()]
        operators += writer.operators(replace(part, operators=part.operators[:-1]), where)
        sources[name] = where[logits_tensor(part)]
    where = _joint_places(joint, sources, len(tensors))
    operators += writer.operators(joint, where)
    return tensors + made, operators, inputs, {name: where[i] for name, i in joint.outputs.items()}


def _joint_places(joint: Part, sources: Mapping[str, int], start: int) -> dict[int, int]:
    """Where the tensors of ``joint`` are: its inputs at ``sources``, the others from ``start`` on."""
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
    """Where a head's tensors are in a subgraph that already has ``start`` of them; what it reads is there as ``seam``."""
    places = {i: seam[name] for name, i in part.inputs.items()}
    own = [i for i in range(len(part.tensors)) if i not in places]
    return {**places, **{i: start + k for k, i in enumerate(own)}}
