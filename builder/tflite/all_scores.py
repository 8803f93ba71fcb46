"""The subgraph of all heads: from the seam to one tensor with the scores of every head, in their order.

It refers by offset to the tables of the end-to-end subgraph: all its tensors, and the operators of the heads. One
CONCATENATION follows. It therefore costs a few bytes for each head, and its scores equal those of each head alone.
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
    """A part of one CONCATENATION: from the scores of ``heads``, each (1, labels) with equal scales, to all of them."""
    tensors = [head.tensors[head.outputs["scores"]] for head in heads.values()]
    whole = copy.copy(tensors[0])
    whole.name, whole.shape, whole.shapeSignature = ALL, [1, sum(int(t.shape[-1]) for t in tensors)], None
    whole.buffer = 0  # a computed tensor has no content; the number in the copy belongs to another part
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
    """Write what the subgraph of all heads adds to the file.

    Args:
        writer: The file.
        joined: What ``joining`` returned.
        tensors: Offsets of the tensors of the end-to-end subgraph.
        operators: Offsets of its operators without those of the backbone.
        seam: Index of each tensor that the heads read, by name.
        scores: Index of the scores of each head, in order.

    Returns:
        The subgraph: offsets of its tensors and operators, and its inputs and outputs.
    """
    alone: Any = joined.tensors[-1]
    made = writer.tensors(Part(ALL, 0, [alone], [], {}, {}, [], joined.buffers))
    where = {**dict(enumerate(scores)), len(scores): len(tensors)}
    return [*tensors, *made], [*operators, *writer.operators(joined, where)], seam, {"scores": len(tensors)}
