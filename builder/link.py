"""Subgraphs -> one file: backbone, heads, and an end-to-end subgraph that shares the tables of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.errors import ConversionError
from builder.flatbuffer import Part, Writer, quantization
from builder.versions import Version, min_runtime, with_versions
from edge_runtime.metadata import BACKBONE, END_TO_END, FEATURES, JOINT, SeamTensor
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
    """One model with ``serving_default`` as subgraph 0, then ``backbone``, then the heads in the order of ``parts``.

    ``joint``: reads ``JOINT_SEAM`` and, by the name of its head, what each head's last operator reads; it comes last.
    Requires uint8 pixels at the backbone (``entry.take_pixels``) and one type, shape, scale and zero point on both
    sides of the seam. Raises ``ConversionError``.
    """
    backbone = with_versions(parts[BACKBONE])
    heads = {name: with_versions(part) for name, part in parts.items() if name != BACKBONE}
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
    if joint is not None:
        writer.add_subgraph(JOINT, *alone)
    everything = [backbone, *heads.values(), *([joint] if joint is not None else [])]
    return LinkedModel(
        writer.finish("polyhead: one backbone, many heads"),
        backbone_bytes,
        head_bytes,
        seam,
        next(iter(scores.values())),
        *min_runtime(everything),
        joint_bytes,
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
