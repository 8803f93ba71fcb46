"""Evaluate a finished file on any number of labelled samples: each is answered, counted and forgotten.

Evaluated are each head, the joint list, its usual alternative (the largest of all heads' scores), and, given the
configuration of the build, the float originals and one head that was trained on all labels.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from builder.joint.layout import known_score
from builder.judging.answers import INTERPRETER, Answers, Asker
from builder.judging.evaluate_page import Matrix, Page, render
from builder.judging.evaluation import MOST_NAMED, Evaluation, unknown_facts
from builder.judging.labelled import Archive, blocks_of, count_labelled, find_labelled, sides
from builder.judging.lists import CONCATENATED, JOINT, Lists, with_none
from builder.judging.metrics import Counts
from builder.judging.metrics import Table as Pairs
from builder.judging.seen import Seen
from builder.judging.separation import Separation
from builder.judging.wrong import Gallery
from builder.scoring.cards import cards
from builder.scoring.contents import Contents
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError, SamplesError
from builder.support.files import written
from builder.support.in_turn import processors
from builder.support.side_by_side import side_by_side
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.metadata import HeadInfo, Metadata
from edge_runtime.seam import by_name
from edge_runtime.text import TextInput

_COMPARED = 4  # stored features that are recomputed, to check that they belong to this file
_MANY = 2000  # samples: with fewer, starting processes takes longer than it saves
_COLUMNS = ("source", "head", "label", "answer", "score", "right", "joint_answer", "joint_score")
Advance = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Running:
    """How the work is done.

    Attributes:
        jobs: Number of processes; None: one, or, for many samples, as many as processors.
        address: Address of a Ray cluster.
        head_packs: Head packs; None uses those beside the file.
        csv: Where to write a line for each sample.
        skip_broken: Skip and count unreadable samples instead of raising an error.
        advance: Called with the number of samples done, their total, and the number done again.
    """

    jobs: int | None = None
    address: str | None = None
    head_packs: Sequence[str] | None = None
    csv: Path | None = None
    skip_broken: bool = False
    advance: Advance = lambda done, total, now: None


def evaluate(
    file: Path, archive: Archive, config: BuildConfig | None = None, running: Running | None = None
) -> Evaluation:
    """Evaluate ``file`` on every sample of ``archive``. ``config``: of the build.

    Raises ``SamplesError`` for folders that are not heads or labels of the file, and ``ConfigError``.
    """
    running = running or Running()
    with MultiHeadClassifier(file, interpreter=INTERPRETER, head_packs=running.head_packs) as classifier:
        heads, metadata = classifier.heads, classifier.metadata
        if archive.features is not None:
            _check_features(archive, classifier)
    texts = isinstance(metadata.input, TextInput)
    if config is not None and archive.features is not None:
        raise ConfigError("--config runs the originals, which need the pictures: give --data, not --features")
    total = count_labelled(archive, heads, texts=texts)
    jobs = running.jobs or (processors() if total > _MANY or running.address else 1)
    # The number of threads affects only the time, not the answers.
    threads = 1 if jobs > 1 or running.address else None
    asked = {
        "file": str(file.absolute()), "head_packs": running.head_packs, "column": archive.column,
        "skip_broken": running.skip_broken, "for_originals": config is not None, "threads": threads,
    }  # fmt: skip
    counted = _Counted(heads, metadata, _beside(config, asked, heads, metadata, archive))
    with Seen() as seen, _lines(running.csv) as line:
        blocks = blocks_of(archive, heads, texts=texts)
        done = 0
        for answers in side_by_side(Asker, asked, blocks, jobs=jobs, address=running.address):
            fresh = [i for i, s in enumerate(answers.samples) if seen.is_new(answers.digests[i], s.head, s.label)]
            done += len(answers.samples) + len(answers.left_out)
            counted.add(answers.at(fresh), line)
            running.advance(done, total, done)
        if not counted.samples:
            raise SamplesError(f"expected readable samples, found none: {'; '.join(counted.left_out[:5])}")
    contents = Contents(texts=texts, column=archive.column)
    return counted.evaluation(file, str(archive), seen, contents)


class _Beside:
    """Answers to compare with: none, or those that the configuration of the build gives."""

    def __init__(self, floats: Sequence[Any] = (), anew: Any = None) -> None:
        self._floats, self._anew = floats, anew

    def floats(self, answers: Answers) -> list[np.ndarray] | None:
        return [original.scores(answers) for original in self._floats] or None

    def anew(self, answers: Answers) -> np.ndarray | None:
        return None if self._anew is None else self._anew(answers)


def _beside(
    config: BuildConfig | None, asked: Mapping[str, Any], heads: Sequence[HeadInfo], metadata: Metadata, archive: Archive
) -> _Beside:
    if config is None:
        return _Beside()
    from builder.judging import originals  # imports TensorFlow

    own = heads[: len(metadata.heads)]
    anew = None
    if config.calibration_data is not None and not isinstance(metadata.input, TextInput):
        judged = (found.sample for found in find_labelled(archive, heads))
        contents, lists = Contents(texts=False, column=archive.column), Lists.of(own, metadata.joint)
        anew = originals.retrained(Asker(**asked), own, lists, config.calibration_data, judged, contents)
    return _Beside(originals.originals(config), anew)


class _Counted:
    """All counts, updated with each block of samples."""

    def __init__(self, heads: Sequence[HeadInfo], metadata: Metadata, beside: _Beside) -> None:
        joint = metadata.joint
        # Packs are not in the joint list, which covers the file's own heads.
        self._heads, self._lists = heads, Lists.of(heads if joint is None else metadata.heads, joint)
        self._beside = beside
        self._of_heads: dict[str, dict[str, Counts]] = {}
        self._of_lists: dict[str, Counts] = {}
        self._answered = Pairs(with_none(self._lists.labels))
        self._galleries = {name: Gallery() for name in (JOINT, *(head.head_name for head in heads))}
        self._separation = Separation()
        self._refused = np.zeros((2, 2), np.int64)  # of none or of a head; known or refused
        self.samples = self.broken = 0
        self.left_out: list[str] = []

    def add(self, answers: Answers, line: Callable[[Sequence[object]], None]) -> None:
        """Count a block. ``line`` is called with a row of the CSV file for each sample."""
        self.broken += len(answers.left_out)
        self.left_out += answers.left_out[: MOST_NAMED - len(self.left_out)]
        self.samples += len(answers.samples)
        if not answers.samples:
            return
        floats = self._beside.floats(answers)
        rows: list[list[object]] = [[sample.source] for sample in answers.samples]
        self._add_heads(answers, floats, rows)
        scores = self._lists.scores(answers, floats, self._beside.anew(answers))
        truth = self._lists.truth(answers)
        for name, found in scores.items() if len(truth) else ():
            self._of_lists.setdefault(name, Counts(self._lists.labels)).add(found, truth)
        self._add_joint(answers, truth, rows)
        for row in rows:
            line(row)

    def _add_heads(self, answers: Answers, floats: Sequence[np.ndarray] | None, rows: list[list[object]]) -> None:
        for h, head in enumerate(self._heads):
            own = np.flatnonzero(answers.head == h)
            if not len(own):
                continue
            labels = sides(head)
            kinds = {"int8": answers.scores[h]}
            if floats is not None and h < len(floats):
                kinds["float"] = floats[h]
            counts = self._of_heads.setdefault(head.head_name, {})
            for kind, scores in kinds.items():
                found, truth = _sides(scores[own], answers.label[own])
                counts.setdefault(kind, Counts(labels)).add(found, truth)
            found, truth = _sides(answers.scores[h][own], answers.label[own])
            best, sure = found.argmax(1), found.max(1)
            self._galleries[head.head_name].add([answers.samples[i] for i in own], best, truth, sure, labels)
            for i, answer, true, score in zip(own.tolist(), best.tolist(), truth.tolist(), sure.tolist(), strict=True):
                rows[i] += [head.head_name, labels[true], labels[answer], f"{score:.4f}", int(answer == true)]
        for row in rows:
            row += ["", "none", "", "", ""] if len(row) == 1 else []

    def _add_joint(self, answers: Answers, truth: np.ndarray, rows: list[list[object]]) -> None:
        if answers.joint is None or answers.classes is None:
            return
        lists, labels = self._lists, with_none(self._lists.labels)
        strange, known = answers.head == len(self._heads), answers.head < len(lists.places)
        refused = lists.refused(answers.classes)
        np.add.at(self._refused, ((~strange).astype(int), refused.astype(int)), (strange | known).astype(int))
        self._separation.add(known_score(answers.classes, len(lists.places))[strange | known], strange[strange | known])
        found = lists.answered(answers.classes, answers.joint)
        sure = np.where(refused, 1 - answers.classes[:, : len(lists.places)].max(1), answers.joint.max(1))
        for row, place, score in zip(rows, found.tolist(), sure.tolist(), strict=True):
            row += [labels[place], f"{score:.4f}"]
        judged = np.flatnonzero(lists.known(answers) | strange)
        true = np.full(len(answers.samples), len(lists.labels))
        true[lists.known(answers)] = truth
        self._answered.add(found[judged], true[judged])
        samples = [answers.samples[i] for i in judged]
        self._galleries[JOINT].add(samples, found[judged], true[judged], sure[judged], labels)

    def evaluation(self, file: Path, place: str, seen: Seen, contents: Contents) -> Evaluation:
        """The result."""
        heads = {name: {kind: c.accuracy for kind, c in kinds.items()} for name, kinds in self._of_heads.items()}
        lists = {name: counts.accuracy for name, counts in self._of_lists.items()}
        tables = {name: kinds["int8"].table for name, kinds in self._of_heads.items()}
        if self._lists.joint is not None:
            tables = {JOINT: self._answered, **tables}
        elif CONCATENATED in self._of_lists:
            tables = {CONCATENATED: self._of_lists[CONCATENATED].table, **tables}
        wrong = {name: gallery.surest for name, gallery in self._galleries.items() if gallery.surest}
        found = Evaluation(
            file=file, samples=self.samples, heads=heads, lists=lists,
            labels={name: table.rates() for name, table in tables.items()}, unknown=self._unknown(), wrong=wrong, page="",
            equal=seen.equal, contradicting=seen.contradicting, broken=self.broken, left_out=tuple(self.left_out),
        )  # fmt: skip
        page = Page(
            title=f"{file.name} on {Path(place).name}",
            heads=heads,
            lists=lists,
            unknown=unknown_facts(found.unknown),
            matrices=[Matrix(name, table.labels, table.counts) for name, table in tables.items()],
            curves={name: counts.reliability.curve for name, counts in self._of_lists.items()},
            rates=found.labels,
            wrong=[(name, cards(((w.sample, w.lines) for w in shown), contents)) for name, shown in wrong.items()],
            notes=found.notes,
        )
        return dataclasses.replace(found, page=render(page))

    def _unknown(self) -> dict[str, float]:
        """The effect of the file's thresholds on these samples."""
        joint, (strange, known) = self._lists.joint, self._refused.tolist()
        if joint is None:
            return {}
        found = {"threshold": joint["threshold"], "known_pictures_refused": known[1] / max(sum(known), 1)}
        if sum(strange):
            found.update(none_pictures=float(sum(strange)), none_pictures_refused=strange[1] / sum(strange))
            found.update(auroc=self._separation.auroc, fpr_at_95_tpr=self._separation.fpr_at_95_tpr)
        return found


def _sides(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all answers (samples, sides), and the index of the true one (samples,)."""
    if scores.shape[1] > 1:
        return scores, labels
    return np.concatenate([1 - scores, scores], axis=1), labels + 1


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Sequence[object]], None]]:
    """A function that writes rows of a CSV file, which is written atomically."""
    if path is None:
        yield lambda row: None
        return
    with written(path) as draft:
        file: IO[str]
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            yield writer.writerow


def _check_features(archive: Archive, classifier: MultiHeadClassifier) -> None:
    """Raises ``ConfigError`` for stored features of another file."""
    assert archive.features is not None
    stored, seam = archive.features, classifier.metadata.seam
    advice = "compute them again with this file"
    if stored.backbone and stored.backbone != classifier.metadata.backbone_digest:
        raise ConfigError(f"{stored.path}: holds the features of another backbone; {advice}")
    kept, wanted = ({t.name: (t.shape, t.quantization) for t in tensors} for tensors in (stored.seam, seam))
    if kept != wanted:
        raise ConfigError(f"{stored.path}: expected features like those of this file ({wanted}), found {kept}; {advice}")
    for block in itertools.islice(stored.blocks(), 1):
        there = [i for i, source in enumerate(block.sources) if Path(source).is_file()][:_COMPARED]
        for i in there:
            own = by_name(classifier.features(block.sources[i]))
            if any(not np.array_equal(own[name][0], values[i]) for name, values in block.tensors.items()):
                raise ConfigError(f"{stored.path}: the features of {block.sources[i]} differ from this file's; {advice}")
