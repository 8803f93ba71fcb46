"""``Classifier``, the result of every reader: a model as a graph, with labels, input and the original's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.digests import settings_of, tensor_digests
from builder.reading.formats.applications import Application
from builder.reading.formats.stored import contradictions
from builder.reading.graph import INPUT, Graph
from builder.reading.originals.original import Answers, Original
from builder.reading.outputs import Output, ends_in, expected_output, settled_output, with_negative
from builder.reading.shapes import tensor_shapes
from builder.reading.source_input import SourceInput
from builder.reading.trained import Trained
from builder.settings.limits import Limits
from builder.support.errors import ModelFileError
from builder.support.naming import advice, head_setting

_ASSUMED = (
    "its values are logits, and no loss in the file tells of what: a softmax is assumed, one label of several; set {} "
    "where each label is a question of its own"
)


@dataclass(frozen=True, eq=False)
class Classifier:
    """One model that was read.

    ``graph``: what it computes at inference from ``source_input`` on. ``original``: the file itself, as its own framework
    runs it. ``output``: what its values are, such as logits; a base, which is no classifier, counts as having logits.
    ``declared``: the activation that the user declared. ``trained``: what the loss says that its values are.
    """

    name: str
    path: Path
    kind: str
    graph: Graph
    source_input: SourceInput
    original: Original
    output: Output
    labels: tuple[str, ...] = ()
    allow_code: bool = False
    limits: Limits = field(default_factory=Limits)
    notes: tuple[str, ...] = ()  # what was changed while reading
    declared: str | None = None
    application: Application | None = None  # the architecture of Keras that it is built on
    output_name: str | None = None  # of a model with several
    trained: Trained | None = None
    trouble: str = ""  # why the labels beside the file cannot be read
    labels_file: str = ""  # the file beside it that the labels come from, if it would fit other models too

    @property
    def activation(self) -> str:
        """``softmax`` where the scores add up to 1, ``sigmoid`` where each label is separate."""
        return "softmax" if self.output.negative else self.output.activation

    @property
    def applied(self) -> str | None:
        """The activation that has to be appended to ``graph``; None where it ends in scores."""
        return None if self.output.negative else self.output.applied

    @cached_property
    def digests(self) -> list[str]:
        """Digests of all tensors, weights included; see ``digests.tensor_digests``."""
        with contradictions(self.path):
            return tensor_digests(self.graph, self.source_input.identity, self.source_input.shape)

    @cached_property
    def structure(self) -> list[str]:
        """Digests without weights: equal for models of the same structure."""
        with contradictions(self.path):
            return tensor_digests(self.graph, self.source_input.identity, self.source_input.shape, with_weights=False)

    @property
    def folding(self) -> float:
        """The least tolerance for equal weights, relative to the largest of a tensor; the user may allow more."""
        return 0.0

    @property
    def is_exact(self) -> bool:
        """Whether the original computes in float with the weights of ``graph``."""
        return True

    def settings(self, index: int) -> dict[str, Any]:
        """A node's settings in the canonical form in which they are compared."""
        return settings_of(self.graph, index, self.source_input.shape)

    def ask(self, samples: Sequence[Any]) -> Answers:
        """Run the original on ``samples``, as users have them: pixels 0..255 uint8 (samples, height, width, 3) or texts,
        bytes (samples,). Calling the result returns its raw values.
        """
        return self.original.ask(self.source_input.shown(samples), max_memory=self.limits.max_memory)

    def settled(self, raw: np.ndarray) -> Classifier:
        """Settle what the output values are, from the original's answers ``raw``, float32 (samples, outputs).

        Raises ``ConfigError`` and ``ModelFileError`` where they are no scores, or ambiguous.
        """
        where = f"heads.{self.name}: {self.path.name}"
        output = settled_output(self.output, raw, self.declared, len(self.labels), where, self.trained)
        found = self._with_output(output)
        assumed = output.applied == "softmax" and self.declared is None and self.trained is None
        note = _ASSUMED.format(advice("activation", "sigmoid", self.name))
        return replace(found, notes=(*self.notes, note)) if assumed and note not in self.notes else found

    def predict(self, samples: Sequence[Any]) -> np.ndarray:
        """The original model's probabilities, float32 (samples, labels); ``samples`` as ``ask`` takes them."""
        raw = self.ask(samples)()
        return self.settled(raw).output.scores(raw)

    def with_labels(self, labels: tuple[str, ...], declared: str | None) -> Classifier:
        """With labels and the declared activation. Raises ``ConfigError`` and ``ModelFileError``."""
        if self.graph.output.node == INPUT:
            raise ModelFileError(f"{self.path}: the model returns its input; not a classifier")
        where = f"{head_setting(self.name, 'activation')}: {self.path.name}"
        output = expected_output(*self.end, declared, len(labels), where, self.trained)
        return replace(self, labels=labels, declared=declared)._with_output(output)

    @property
    def end(self) -> tuple[str, int | None]:
        """What the graph ends in, see ``outputs.Output``, and the number of its outputs if known."""
        shape = tensor_shapes(self.graph, self.source_input.shape).get(self.graph.output)
        return ends_in(self.graph), shape[1] if shape is not None and len(shape) == 2 else None

    def _with_output(self, output: Output) -> Classifier:
        if output == self.output:
            return self
        graph = with_negative(self.graph, output) if output.negative and not self.output.negative else self.graph
        return replace(self, output=output, graph=graph)
