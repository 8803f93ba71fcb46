"""int8 subgraphs -> one file: backbone, heads, and an end-to-end subgraph that shares the tables of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from builder.errors import ConversionError
from builder.flatbuffer import INT8, QUANTIZE, UINT8, Part, Writer, new_tensor, quantization, scale_and_zero_point
from edge_runtime.metadata import BACKBONE, END_TO_END, JOINT
from edge_runtime.quantization import Quantization


@dataclass(frozen=True)
class LinkedModel:
    """``model``: the flatbuffer. ``backbone_bytes``, ``head_bytes``, ``joint_bytes``: what each part adds to it, weights
    included; the joint subgraph shares those of the heads. ``seam``, ``scores``: how the features, and the scores of
    every head, are quantized.
    """

    model: bytes
    backbone_bytes: int
    head_bytes: Mapping[str, int]
    seam: Quantization
    scores: Quantization
    joint_bytes: int = 0


def link(parts: Mapping[str, Part], joint: Part | None = None) -> LinkedModel:
    """One model with ``serving_default`` as subgraph 0, then ``backbone``, then the heads in the order of ``parts``.

    ``joint``: reads ``features`` and, by the name of its head, what each head's last operator reads; it comes last.
    Requires one scale and zero point on both sides of the seam. Raises ``ConversionError``.
    """
    backbone = take_pixels(parts[BACKBONE])
    heads = {name: part for name, part in parts.items() if name != BACKBONE}
    _check_seam(backbone, heads)
    seam = quantization(backbone.tensors[backbone.outputs["features"]])
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
        where = places[name] = _places(part, backbone.outputs["features"], len(tensors))
        tensors += [t for i, t in enumerate(tables[name][0]) if i != part.inputs["features"]]
        operators += writer.operators(part, where)
        outputs[name] = where[part.outputs["scores"]]
        head_bytes[name] = writer.size - before
    if joint is not None:
        before, inputs = writer.size, joint.inputs.values()
        made = writer.tensors(replace(joint, tensors=[t for i, t in enumerate(joint.tensors) if i not in inputs]))
        sources = {"features": backbone.outputs["features"], **{n: places[n][logits_tensor(p)] for n, p in heads.items()}}
        where = _joint_places(joint, sources, len(tensors))
        tensors += made
        operators += writer.operators(joint, where)
        outputs[JOINT] = where[joint.outputs["scores"]]
        seam_table = tables[BACKBONE][0][backbone.outputs["features"]]
        alone = _joint_subgraph(writer, heads, {name: tables[name][0] for name in heads}, joint, made, seam_table)
        joint_bytes = writer.size - before
    writer.add_subgraph(END_TO_END, tensors, operators, backbone.inputs, outputs)
    for name, part in {BACKBONE: backbone, **heads}.items():
        writer.add_subgraph(name, *tables[name], part.inputs, part.outputs)
    if joint is not None:
        writer.add_subgraph(JOINT, *alone)
    model = writer.finish("polyhead: one backbone, many heads")
    return LinkedModel(model, backbone_bytes, head_bytes, seam, next(iter(scores.values())), joint_bytes)


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
    seam: int,
) -> tuple[list[int], list[int], dict[str, int], dict[str, int]]:
    """Tensors, operators, inputs and outputs of the subgraph that takes features: every head up to its logits, then
    ``joint``. ``tables``, ``made``, ``seam``: offsets of the tensors of the heads, of those that ``joint`` makes, and of
    the features.
    """
    tensors, operators, sources = [seam], [], {"features": 0}
    for name, part in heads.items():
        where = _places(part, 0, len(tensors))
        tensors += [t for i, t in enumerate(tables[name]) if i != part.inputs["features"]]
        operators += writer.operators(replace(part, operators=part.operators[:-1]), where)
        sources[name] = where[logits_tensor(part)]
    where = _joint_places(joint, sources, len(tensors))
    operators += writer.operators(joint, where)
    return tensors + made, operators, {"features": 0}, {name: where[i] for name, i in joint.outputs.items()}


def _joint_places(joint: Part, sources: Mapping[str, int], start: int) -> dict[int, int]:
    """Where the tensors of ``joint`` are: its inputs at ``sources``, the others from ``start`` on."""
    places = {index: sources[name] for name, index in joint.inputs.items()}
    made = [i for i in range(len(joint.tensors)) if i not in places]
    return {**places, **{i: start + n for n, i in enumerate(made)}}


def take_pixels(backbone: Part) -> Part:
    """The backbone with a uint8 ``image`` in front: its QUANTIZE does no more than int8 = uint8 - 128."""
    index = backbone.inputs["image"]
    image = backbone.tensors[index]
    if image.type == UINT8:
        return backbone
    if image.type != INT8:
        raise ConversionError("the backbone's input is not int8; nothing was linked")
    _, zero_point = scale_and_zero_point(image)
    pixels = new_tensor(image, name=f"{BACKBONE}/image", dtype=UINT8, zero_point=zero_point + 128)
    image.name, new_index = f"{BACKBONE}/image_int8", len(backbone.tensors)
    backbone.tensors.append(pixels)
    backbone.operators.insert(0, backbone.operator(QUANTIZE, [new_index], [index]))
    backbone.inputs = {"image": new_index}
    return backbone


def _check_seam(backbone: Part, heads: Mapping[str, Part]) -> None:
    seam = backbone.tensors[backbone.outputs["features"]]
    for name, part in heads.items():
        tensor = part.tensors[part.inputs["features"]]
        same = (tensor.type, list(tensor.shape), scale_and_zero_point(tensor)) == (
            seam.type, list(seam.shape), scale_and_zero_point(seam)
        )  # fmt: skip
        if not same:
            raise ConversionError(
                f"head {name}: expected features {list(seam.shape)} with scale and zero point "
                f"{scale_and_zero_point(seam)}, found {list(tensor.shape)} with {scale_and_zero_point(tensor)}"
            )


def _places(part: Part, features: int, start: int) -> dict[int, int]:
    """Where a head's tensors are in a subgraph that already has ``start`` of them; its input is the backbone's output."""
    seam, places = part.inputs["features"], {}
    for i in range(len(part.tensors)):
        places[i] = features if i == seam else start + i - (i > seam)
    return places
