"""Memory and unrolled steps that a model will need, estimated from the shapes of its layers before it is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from builder.merging.recurrent import RECURRENT
from builder.reading.classifier import Classifier
from builder.reading.graph import Node
from builder.support.errors import ModelFileError

_AT_ONCE = 8  # times a layer's output: the equivalence check runs a batch of 4, which goes in and comes out
_BYTES = 4  # float32


class Budget:
    """The running totals of a model while it is rebuilt; the layer that exceeds a limit raises ``ModelFileError``."""

    def __init__(self, classifier: Classifier) -> None:
        self._path, self._limits = classifier.path, classifier.limits
        self._all, self._largest, self._steps = 0, 0, 0

    def enter(self, node: Node, args: Any) -> None:
        """Count the steps of a recurrent layer, before the layer is called: Keras itself may unroll it."""
        inner = node.config.get("layer") or {}
        kind, turns = (inner.get("class_name"), 2) if node.kind == "Bidirectional" else (node.kind, 1)
        if kind not in RECURRENT or not args or len(getattr(args[0], "shape", ())) < 2:
            return
        self._steps += turns * (args[0].shape[1] or 0)
        if self._steps > self._limits.max_steps:
            raise ModelFileError(
                f"{self._path}: layer {node.layer!r:.80} ({node.kind}): {self._steps:,} recurrent steps, each of which "
                f"becomes separate operators; expected at most {self._limits.max_steps:,}: shorten the sequence, or "
                "raise --max-steps"
            )

    def leave(self, node: Node, args: Any, results: Sequence[Any]) -> None:
        """Count the outputs: all are held at once while ranges are measured, the largest as a batch."""
        sizes = [_BYTES * math.prod(n or 1 for n in tensor.shape) for tensor in results]
        self._all += sum(sizes)
        self._largest = max([self._largest, *sizes, _patches(node, args, results) // 2])
        needed = self._all + _AT_ONCE * self._largest
        if needed > self._limits.max_memory * (1 << 30):
            raise ModelFileError(
                f"{self._path}: up to layer {node.layer!r:.80} ({node.kind}), whose output takes "
                f"{sizes[0] / (1 << 20):,.0f} MB, a build needs {needed / (1 << 30):.1f} GB for one picture; expected at "
                f"most {self._limits.max_memory:g} GB: use a smaller model, or raise --max-memory"
            )


def _patches(node: Node, args: Any, results: Sequence[Any]) -> int:
    """Bytes of the patches (im2col) that a convolution unfolds, one for each position of its output."""
    kernel = node.config.get("kernel_size")
    if not node.kind.startswith("Conv") or not isinstance(kernel, (list, tuple)) or not args:
        return 0
    places = math.prod(n or 1 for n in results[0].shape[1:-1])
    return int(_BYTES * places * math.prod(kernel) * (args[0].shape[-1] or 1))
