"""The subgraph of all heads: from the seam to one tensor with the scores of every head, in their order.

It has the tensor and operator tables of the end-to-end subgraph by offset, but for the backbone's operators, and one
CONCATENATION behind them. So it costs a few bytes a head, and each score is the one that the head gives by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from builder.tflite.flatbuffer import Part
from builder.tflite.versions import with_versions
from builder.tflite.writer import Writer
from edge_runtime.metadata import ALL

Subgraph = tuple[list[int], list[int], dict[str, int], dict[str, int]]  # tensors, operators, inputs, outputs


def joining(heads: Mapping[str, Part]) -> Part:
    """A part of one operator, from the scores of ``heads``, each (1, labels) and quantized alike, to all of them."""
    tensors = [head.tensors[head.outputs["scores"]] for head in heads.values()]
    whole = copy.copy(tensors[0])
    whole.name, whole.shape, whole.shapeSignature = ALL, [1, sum(int(t.shape[-1]) for t in tensors)], None
    whole.buffer = 0  # what is computed has no content; the copy's number is one of another part's
    count = len(tensors)
    part = Part(ALL, 0, [*tensors, whole], [], dict(zip(heads, range(count), strict=True)), {"scores": count}, [], [None])
    options = "ConcatenationOptions", {"axis": 1}
    part.operators.append(part.operator("CONCATENATION", range(count), [count], options))
    return with_versions(part)


def all_subgraph(
    writer: Writer,
    joined: Part,
    tensors: Sequence[int],
    operators: Sequence[int],
    seam: dict[str, int],
    scores: Sequence[int],
) -> Subgraph:
    """``joined``: of ``joining``. ``tensors``, ``operators``: offsets of those of the end-to-end subgraph, of the latter
    the heads' alone. ``seam``: where the tensors that the heads read are; ``scores``: where those of each head are.
    """
    alone: Any = joined.tensors[-1]
    made = writer.tensors(Part(ALL, 0, [alone], [], {}, {}, [], joined.buffers))
    where = {**dict(enumerate(scores)), len(scores): len(tensors)}
    return [*tensors, *made], [*operators, *writer.operators(joined, where)], seam, {"scores": len(tensors)}
