"""Compare the finished file, run by ``edge_runtime``, with the float originals on held-out samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.merging.kinds import difference_in_kind
from builder.quantizing.noise import snr_db
from builder.samples.calibration import SampleSet
from builder.support.errors import ConversionError
from builder.support.interval import wilson_interval
from edge_runtime.bundle import read_metadata
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.interpreter import open_interpreter
from edge_runtime.metadata import ALL, END_TO_END, JOINT, HeadInfo
from edge_runtime.seam import Features, by_name

INTERPRETER = "ai_edge_litert"
_WORST = 6
DECIDED = 0.6  # probability from which on an original's answer is confident: below, two labels may nearly tie
# Mean, for a head without pictures of its own. Eleven Teachable Machine heads drift by 0.011 to 0.033 in sound int8,
# nine of them by 0.06 to 0.18 where weights are rounded to nearest (docs/concepts/quantization.md).
MOST_DRIFT = 0.04
_END_TO_END_PICTURES = 3


@dataclass(frozen=True)
class Comparison:
    """One picture and one head: scores of the original and of the file, float32 (labels,) each."""

    picture: int  # index into the verification pictures
    float_scores: np.ndarray
    file_scores: np.ndarray
    agrees: bool
    drift: float  # change of the probability of float's top label; where each label is separate, the largest of any


@dataclass(frozen=True)
class HeadQuality:
    """How a head of the file compares with its original.

    ``interval``: 95 % interval of the agreement (Wilson). ``drift``: mean over the pictures; ``worst``: largest drift
    first. ``always``: the label that the original gives to all of several pictures; None where its answers differ.
    ``kind``: how its probabilities differ in kind from the original's; None where they do not. ``own_pictures``: whether
    the pictures are known to belong to this head. On other pictures an original is often undecided: there only those
    with a confident answer count (``decided`` of them, with ``decided_agreement`` and ``decided_drift``). ``own_bar``:
    its own ``min_agreement``, if it has one.
    """

    head_name: str
    pictures: int
    agreement: float
    interval: tuple[float, float]
    drift: float
    max_drift: float
    worst: tuple[Comparison, ...]
    drifts: tuple[float, ...]
    always: int | None = None
    kind: str | None = None
    own_pictures: bool = True
    decided: int = 0
    decided_agreement: float = 1.0
    decided_drift: float = 0.0
    own_bar: float | None = None

    @property
    def judged(self) -> tuple[int, float]:
        """The number of pictures that count, and the agreement on them."""
        return (self.pictures, self.agreement) if self.own_pictures else (self.decided, self.decided_agreement)

    @property
    def upper(self) -> float:
        """Upper end of the 95 % interval of that agreement."""
        if self.own_pictures:
            return self.interval[1]
        return wilson_interval(round(self.decided_agreement * self.decided), self.decided)[1] if self.decided else 1.0

    def bar(self, min_agreement: float) -> float:
        """The agreement that it must reach: its own, or ``min_agreement``."""
        return min_agreement if self.own_bar is None else self.own_bar

    def passes(self, min_agreement: float) -> bool:
        """Whether the head passes. It fails only if even the upper end of the interval is below its bar, if its
        probabilities are of another kind, or, without pictures of its own, if they drift.
        """
        bar = self.bar(min_agreement)
        return self.kind is None and self.upper >= bar and self._keeps_probabilities(bar)

    def _keeps_probabilities(self, bar: float) -> bool:
        return self.own_pictures or bar == 0 or self.decided_drift <= MOST_DRIFT

    def passes_for_few(self, min_agreement: float) -> bool:
        """Whether it passes only because it has few pictures: its agreement is below the bar, but not significantly."""
        return self.passes(min_agreement) and self.judged[1] < self.bar(min_agreement)

    def to_json(self) -> dict[str, object]:
        """The entry in the file's metadata and in the report."""
        return {
            "pictures": self.pictures,
            "agreement": round(self.agreement, 4),
            "interval": [round(v, 4) for v in self.interval],
            "drift": round(self.drift, 5),
            "max_drift": round(self.max_drift, 5),
            "own_pictures": self.own_pictures,
            **({} if self.own_pictures else self._on_decided()),
            **({} if self.own_bar is None else {"min_agreement": self.own_bar}),
            **({} if self.kind is None else {"kind": self.kind}),
        }

    def _on_decided(self) -> dict[str, object]:
        agreement, drift = round(self.decided_agreement, 4), round(self.decided_drift, 5)
        return {"decided": self.decided, "decided_agreement": agreement, "decided_drift": drift}

    def can_tell(self, min_agreement: float) -> bool:
        """Whether perfect agreement on this number of pictures would prove the bar."""
        count, _ = self.judged
        return count > 0 and wilson_interval(count, count)[0] >= self.bar(min_agreement)


@dataclass(frozen=True)
class Quality:
    """``features_snr_db``: signal-to-noise ratio of the file's features against float. ``noise``: measured on noise."""

    heads: tuple[HeadQuality, ...]
    features_snr_db: float
    noise: bool = False

    @property
    def agreement(self) -> float:
        """The agreement of all heads together, each picture counted once for each head."""
        return sum(q.agreement * q.pictures for q in self.heads) / sum(q.pictures for q in self.heads)

    def reaches(self, min_agreement: float) -> bool:
        """Whether no head fails and all of them together reach the required agreement."""
        beyond = sum(count * (agreement - q.bar(min_agreement)) for q in self.heads for count, agreement in [q.judged])
        return all(q.passes(min_agreement) for q in self.heads) and beyond >= -1e-9

    def to_json(self) -> dict[str, object]:
        heads = {q.head_name: q.to_json() for q in self.heads}
        snr = round(self.features_snr_db, 2) if math.isfinite(self.features_snr_db) else None
        of_noise = {"noise": True} if self.noise else {}
        return {"features_snr_db": snr, "agreement": round(self.agreement, 4), **of_noise, "heads": heads}


@dataclass(frozen=True)
class Expected:
    """What the finished file is compared with, computed once for all precisions.

    ``features``: of the merged float model for all verification samples, real (samples, ...). ``scores``: for each head's
    name, probabilities of its original, float32 (samples, labels), on its own samples. ``bars``: ``min_agreement`` of
    heads that have their own.
    """

    features: np.ndarray
    scores: Mapping[str, np.ndarray]
    bars: Mapping[str, float] = field(default_factory=dict)


def verify(path: Path, samples: SampleSet, expected: Expected, advance: Callable[[], None] = lambda: None) -> Quality:
    """Run every verification sample through the file at ``path``; each head is judged on its own samples.

    Raises ``ConversionError`` where the end-to-end signature and the backbone with its heads do not agree bit for bit.
    """
    # A text may belong to several heads: it runs once.
    _, once, where = np.unique([source.digest for source in samples.sources], return_index=True, return_inverse=True)
    tensors = samples.tensors[once]
    with MultiHeadClassifier(path, interpreter=INTERPRETER) as classifier:
        features = []
        for tensor in tensors:
            features.append(classifier.features_of(tensor[None]))
            advance()
        heads = []
        for info in classifier.heads:
            chosen = samples.of_head(info.head_name)
            found = [classifier.head_scores(features[i], info.head_name) for i in where[chosen]]
            truth, bar = expected.scores[info.head_name], expected.bars.get(info.head_name)
            alone = len(classifier.heads) == 1
            heads.append(judge_head(info, samples, truth, np.stack(found), alone=alone, own_bar=bar))
        check_end_to_end(path, classifier, tensors, features)
        seam = classifier.metadata.seam[0]
        real = seam.quantization.dequantize(np.concatenate([by_name(found)[seam.name] for found in features]))
    return Quality(tuple(heads), snr_db(expected.features[once], real), samples.noise)


def judge_head(
    info: HeadInfo, samples: SampleSet, truth: np.ndarray, found: np.ndarray, *, alone: bool, own_bar: float | None
) -> HeadQuality:
    """``judge`` on those of ``samples`` that the head is judged on; ``truth``, ``found``: of those. ``alone``: it is the
    only head, so that all are its own.
    """
    own, chosen = not samples.noise and (alone or samples.has_own(info.head_name)), samples.of_head(info.head_name)
    quality = judge(info.head_name, chosen, truth, found, info.activation, own_pictures=own)
    return replace(quality, own_bar=own_bar)


def judge(
    name: str,
    chosen: np.ndarray,
    truth: np.ndarray,
    found: np.ndarray,
    activation: str,
    *,
    own_pictures: bool = True,
) -> HeadQuality:
    """Compare ``found``, the file's probabilities, with ``truth``, the original's; both (samples, labels)."""
    changes, rows, top = np.abs(truth - found), np.arange(len(truth)), truth.argmax(1)
    if activation == "sigmoid":  # each label is a yes/no answer: all must be the same
        drifts = changes.max(1)
        agrees = np.all((truth >= 0.5) == (found >= 0.5), axis=1)
        answers = truth >= 0.5
        decided = np.maximum(truth, 1 - truth).min(1) >= DECIDED
    else:
        drifts = changes[rows, top]
        agrees = top == found.argmax(1)
        answers = truth.argmax(1, keepdims=True)
        decided = truth.max(1) >= DECIDED
    order = np.lexsort((-drifts, agrees))[:_WORST]
    worst = tuple(Comparison(int(chosen[i]), truth[i], found[i], bool(agrees[i]), float(drifts[i])) for i in order)
    agreement = float(agrees.mean())
    interval = wilson_interval(int(agrees.sum()), len(agrees))
    always = int(top[0]) if len(top) > 1 and np.all(answers == answers[0]) else None
    return HeadQuality(
        name, len(agrees), agreement, interval, float(drifts.mean()), float(drifts.max()), worst, tuple(drifts.tolist()),
        always, difference_in_kind(truth, found), own_pictures, int(decided.sum()),
        float(agrees[decided].mean()) if np.any(decided) else 1.0,
        float(drifts[decided if np.any(decided) else slice(None)].mean()),
    )  # fmt: skip


def check_end_to_end(path: Path, classifier: MultiHeadClassifier, tensors: np.ndarray, features: list[Features]) -> None:
    _, interpreter = open_interpreter(str(path), name=INTERPRETER)
    whole = interpreter.get_signature_runner(END_TO_END)
    pairs = list(zip(tensors, features, strict=True))[:_END_TO_END_PICTURES]
    (source,) = interpreter.get_signature_list()[END_TO_END]["inputs"]
    expected = [whole(**{source: tensor[None]}) for tensor, _ in pairs]
    for (_, seam), outputs in zip(pairs, expected, strict=True):
        for name, found in outputs.items():  # by the runtime: a runner for each of 200 signatures would take 5 GB
            joint = name == JOINT  # whose scores are float in every file
            alone = classifier.joint_scores(seam)[0] if joint else classifier.head_scores(seam, name)
            whole_scores = found[0] if joint else classifier.metadata.scores.dequantize(found[0])
            if not np.array_equal(whole_scores, alone):
                raise ConversionError(f"head {name}: the end-to-end signature and the head's own do not agree")
    _check_all(path, interpreter, pairs, expected)


def _check_all(
    path: Path, interpreter: Any, pairs: list[tuple[np.ndarray, Features]], expected: list[Mapping[str, np.ndarray]]
) -> None:
    names = [head.head_name for head in read_metadata(str(path)).heads]
    signatures = interpreter.get_signature_list()
    if ALL in names or ALL not in signatures:
        return
    run = interpreter.get_signature_runner(ALL)
    for (_, seam), outputs in zip(pairs, expected, strict=True):
        found = run(**{tensor: by_name(seam)[tensor] for tensor in signatures[ALL]["inputs"]})["scores"]
        if not np.array_equal(found, np.concatenate([outputs[name] for name in names], axis=1)):
            raise ConversionError(f"signature {ALL} and those of the heads do not agree")
