"""How a backbone would be judged, before its file is written: on calibration samples, by the rules of verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from builder.judging.verify import HeadQuality, Quality, judge_head
from builder.quantizing.sensitivity import answers, some_heads
from builder.samples.calibration import SampleSet
from builder.tflite.flatbuffer import Part
from edge_runtime.metadata import BACKBONE, HeadInfo

JUDGED = 96  # samples


class Foresight:
    """Judges backbones that are quantized otherwise than ``parts``, with the heads of ``parts``.

    Args:
        float_parts: Backbone and heads in float, whose answers are the truth.
        parts: The same, quantized.
        heads: All heads. Of many only some are run; those in ``first`` before any other.
        samples: Calibration samples, of which the last ones count: rounding is learnt on the first.
        inputs: The same samples, as the float model takes them.
        bars: ``min_agreement`` of heads that have their own.
    """

    def __init__(
        self,
        float_parts: Mapping[str, Part],
        parts: Mapping[str, Part],
        heads: Sequence[HeadInfo],
        samples: SampleSet,
        inputs: np.ndarray,
        *,
        first: Sequence[str] = (),
        bars: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        theirs = some_heads(float_parts, first=first)
        self._heads = [head for head in heads if head.head_name in theirs]
        self._parts = {name: parts[name] for name in theirs}
        self._samples = samples.at(range(len(samples.sources))[-JUDGED:])
        self._inputs = inputs[-JUDGED:]
        self._truth = answers(float_parts[BACKBONE], theirs, self._inputs)
        self._alone, self._bars = len(heads) == 1, bars

    def __call__(self, backbone: Part) -> Quality:
        """The quality of the heads on ``backbone``; its features are not compared."""
        found = answers(backbone, self._parts, self._inputs)
        return Quality(tuple(self._judged(head, found[head.head_name]) for head in self._heads), float("inf"))

    def _judged(self, head: HeadInfo, found: np.ndarray) -> HeadQuality:
        name, chosen = head.head_name, self._samples.of_head(head.head_name)
        truth, bar = self._truth[name][chosen], self._bars.get(name)
        return judge_head(head, self._samples, truth, found[chosen], alone=self._alone, own_bar=bar)
