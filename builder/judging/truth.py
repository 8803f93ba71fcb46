"""The originals' answers, computed once for each head and used by the merge, all precisions and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from builder.reading.classifier import Classifier
from builder.reading.originals.original import Answers
from builder.samples.calibration import SampleSet
from builder.samples.files import Sample


@dataclass(frozen=True)
class _Asked:
    answers: Answers
    rows: dict[str, int]  # of each sample's content


class Truth:
    """Runs every original on its samples in the background.

    ``shown``: samples that all originals see, to check the equivalence of the merged model and to settle what their
    values are. ``verification``: each original sees those of its head. A context manager: its end cancels pending runs.
    """

    def __init__(self, classifiers: Sequence[Classifier], shown: SampleSet, verification: SampleSet) -> None:
        self.notes: list[str] = []
        self._shown = {source.digest for source in shown.sources}
        self._asked: dict[str, _Asked] = {}
        self._scores: dict[str, np.ndarray] = {}
        stacked: dict[tuple[str, ...], Sequence[Any]] = {}  # one array for all heads that see the same pictures
        for classifier in classifiers:
            seen = ((shown, range(len(shown.sources))), (verification, verification.of_head(classifier.name)))
            samples = {given.sources[i].digest: given.sample(i) for given, indices in seen for i in indices}
            rows = {digest: row for row, digest in enumerate(samples)}
            key = tuple(samples)
            if key not in stacked:
                stacked[key] = _stacked(list(samples.values()))
            self._asked[classifier.name] = _Asked(classifier.ask(stacked[key]), rows)

    def settle_unclear(self, classifiers: Sequence[Classifier]) -> tuple[Classifier, ...]:
        """Settle the output values of classifiers whose graph alone is ambiguous, which the merge must know."""
        return tuple(c if c.output.is_clear else self._settled(c) for c in classifiers)

    def settle(
        self, classifiers: Sequence[Classifier], advance: Callable[[], None] = lambda: None
    ) -> tuple[Classifier, ...]:
        """Settle the output values of all classifiers; ``advance`` is called after each.

        Raises ``ModelFileError`` where an original cannot be run, ``ConfigError`` where its values are ambiguous.
        """
        found = []
        for classifier in classifiers:
            found.append(self._settled(classifier))
            advance()
        return tuple(found)

    def _settled(self, classifier: Classifier) -> Classifier:
        if classifier.name in self._scores:
            return classifier
        asked = self._asked[classifier.name]
        raw = asked.answers()
        has_words = np.isfinite(raw).reshape(len(raw), -1).all(1)  # the mean of no words is NaN
        kept = has_words if classifier.source_input.name == "tokens" and np.any(has_words) else slice(None)
        settled = classifier.settled(raw[kept])
        self._scores[classifier.name] = settled.output.scores(raw)
        if asked.answers.note is not None:
            self.notes.append(f"{classifier.name}: {asked.answers.note}")
        return settled

    def shown(self, samples: SampleSet) -> SampleSet:
        """The part of ``samples`` that all originals saw."""
        return samples.at([i for i, source in enumerate(samples.sources) if source.digest in self._shown])

    def scores(self, name: str, samples: Sequence[Sample]) -> np.ndarray:
        """Probabilities of the original, float32 (samples, labels), on samples that it was run on."""
        rows = self._asked[name].rows
        return self._scores[name][[rows[sample.digest] for sample in samples]]

    def of_all(self, samples: SampleSet) -> dict[str, np.ndarray]:
        """As ``scores``, of every original, by head name."""
        return {name: self.scores(name, samples.sources) for name in self._asked}

    def __enter__(self) -> Truth:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for asked in self._asked.values():
            asked.answers.abandon()


def _stacked(samples: Sequence[Any]) -> Any:
    return np.stack(samples) if samples and isinstance(samples[0], np.ndarray) else samples
