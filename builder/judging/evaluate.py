"""How good a finished file is on labelled pictures: ``DIR/<head>/<class>/*``, and ``DIR/none/*`` for pictures of no head.

Each head, the joint list, what people do without one (the largest of all heads' scores), and, where the configuration of
the build is given, the float originals and one head trained anew on all labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import softmax

from builder.joint.layout import NONE, lay_out
from builder.joint.logistic import cross_validated, fit_logistic, folds, principal
from builder.joint.router import FOLDS, PENALTIES, unit
from builder.joint.unknown import known_score, separation
from builder.judging.evaluate_page import Matrix, Page, render
from builder.judging.metrics import Accuracy, confusion, judge, reliability
from builder.samples.files import find_pictures
from builder.settings.config import BuildConfig
from builder.support.arrays import pooled
from builder.support.errors import SamplesError
from builder.support.files import write_text
from builder.support.plain import plain
from edge_runtime.engine import MultiHeadClassifier, by_name
from edge_runtime.errors import PictureError
from edge_runtime.escape import printable
from edge_runtime.inputs import picture_input
from edge_runtime.metadata import FEATURES, HeadInfo
from edge_runtime.preprocess import PICTURE_SUFFIXES

INTERPRETER = "ai_edge_litert"


@dataclass(frozen=True)
class Labelled:
    """One picture: the head and the class its folders name; ``head`` is the number of heads for a picture of none.
    ``label`` is -1 there, and where a head of one label answers "not" so.
    """

    path: Path
    head: int
    label: int


@dataclass(frozen=True)
class Answers:
    """What the file says of every picture. ``scores``: of each head (pictures, labels). ``joint``, ``classes``: the joint
    list and P(heads and none), None without a joint head. ``features``: real (pictures, features). ``pixels``: uint8,
    None where nobody runs the originals: they alone are large. ``left_out``: why, of each that is broken.
    """

    pictures: tuple[Labelled, ...]
    scores: tuple[np.ndarray, ...]
    joint: np.ndarray | None
    classes: np.ndarray | None
    features: np.ndarray
    pixels: np.ndarray | None
    left_out: tuple[str, ...] = ()

    @property
    def head(self) -> np.ndarray:
        return np.array([p.head for p in self.pictures])

    @property
    def label(self) -> np.ndarray:
        return np.array([p.label for p in self.pictures])


@dataclass(frozen=True)
class Evaluation:
    """``heads``: int8, and float where the originals were given, by head. ``lists``: every way to one list of all labels,
    by its name; none of one label, which would always be right. ``unknown``: how the threshold of the file does.
    ``page``: the same as HTML. ``left_out``: pictures that cannot be read, where they were to be skipped.
    """

    file: Path
    heads: Mapping[str, Mapping[str, Accuracy]]
    lists: Mapping[str, Accuracy]
    unknown: Mapping[str, float]
    page: str
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of ``evaluate --json``."""
        return {
            "file": str(self.file),
            "heads": {n: {kind: a.to_json() for kind, a in kinds.items()} for n, kinds in self.heads.items()},
            "joint": {name: a.to_json() for name, a in self.lists.items()},
            "unknown": {name: round(v, 4) for name, v in self.unknown.items()},
            "left_out": list(self.left_out),
        }


def evaluate(
    file: Path,
    data: Path,
    config: BuildConfig | None = None,
    advance: Callable[[], None] = lambda: None,
    *,
    skip_broken: bool = False,
) -> Evaluation:
    """Run every picture below ``data`` once. ``config``: of the build. ``advance`` is called after each picture.
    ``skip_broken``: those that cannot be read are left out and counted, else they are an error.

    Raises ``SamplesError`` for folders that are no heads or classes of the file.
    """
    with MultiHeadClassifier(file, interpreter=INTERPRETER) as classifier:
        picture_input(classifier.metadata.input)
        heads = classifier.metadata.heads
        found = find_labelled(data, heads)
        answers = run_file(classifier, found, advance, skip_broken=skip_broken, keep_pixels=config is not None)
        anew = None if config is None else _retrained(classifier, config, answers, advance)
        joint_info = classifier.metadata.joint
    floats = None if config is None else _originals(config, answers)
    known = answers.label >= 0
    by_head = _heads(heads, answers, floats)
    place = list_places(heads, joint_info)
    truth = np.array([place[0][h][i] for h, i in zip(answers.head[known], answers.label[known], strict=True)], int)
    lists = _lists(heads, answers, floats, anew, known, place) if len(place[1]) > 1 and np.any(known) else {}
    judged = {name: judge(scores, truth) for name, scores in lists.items()}
    unknown = {} if joint_info is None else _unknown(answers, joint_info, answers.head < len(heads))
    page = _page(file, data, heads, answers, by_head, judged, lists, truth, place[1], unknown)
    return Evaluation(file, by_head, judged, unknown, page, answers.left_out)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """``evaluation.json`` and ``evaluation.html``, each whole or not at all."""
    document = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False) + "\n"
    for name, text in {"evaluation.json": document, "evaluation.html": evaluation.page}.items():
        write_text(folder / name, text)


def print_evaluation(evaluation: Evaluation, page: Path) -> None:
    """The table on standard output."""
    table = Table(title=plain(evaluation.file), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "pictures", "accuracy", "95 % interval", "calibration error", "by chance"):
        table.add_column(column, justify="right" if column else "left")
    rows = {f"{name}, {kind}": a for name, kinds in evaluation.heads.items() for kind, a in kinds.items()}
    for name, a in {**rows, **evaluation.lists}.items():
        interval = f"{a.interval[0]:.3f} to {a.interval[1]:.3f}"
        figures = (f"{a.share:.3f}", interval, f"{a.calibration_error:.3f}", f"{a.calibration_floor:.3f}")
        table.add_row(name, str(a.pictures), *figures)
    Console(width=None if Console().is_terminal else 120).print(table)
    for name, value in evaluation.unknown.items():
        print(f"{name.replace('_', ' ')}: {value:.4g}")
    for why in evaluation.left_out:
        print(printable(f"left out: {why}"))
    print(f"page: {printable(str(page))}")


def find_labelled(data: Path, heads: Sequence[HeadInfo]) -> list[Labelled]:
    """Every picture of ``data``, once; the folders say what is on it. Raises ``SamplesError``."""
    names, found = [head.head_name for head in heads], []
    for picture in find_pictures(data, ()):
        folder, *rest = picture.path.relative_to(data).parts[:-1] or ("",)
        if folder == NONE and folder not in names:
            found.append(Labelled(picture.path, len(heads), -1))
            continue
        if folder not in names:
            raise SamplesError(
                f"{picture.path}: expected {data}/<head>/<class>/ with a head of the file ({', '.join(names[:20])}) or "
                f"{data}/{NONE}/, found {folder or 'no folder'}"
            )
        labels = sides(heads[names.index(folder)])
        if not rest or rest[0] not in labels:
            raise SamplesError(
                f"{picture.path}: expected a folder named as a label of {folder} ({', '.join(labels[:20])}), found "
                f"{rest[0] if rest else 'none'}"
            )
        own = heads[names.index(folder)].labels
        found.append(Labelled(picture.path, names.index(folder), labels.index(rest[0]) - len(labels) + len(own)))
    if all(p.head == len(heads) for p in found):
        raise SamplesError(f"{data}: expected pictures of at least one head, found those of {NONE} only")
    return found


def run_file(
    classifier: MultiHeadClassifier,
    pictures: Sequence[Labelled],
    advance: Callable[[], None] = lambda: None,
    *,
    skip_broken: bool = False,
    keep_pixels: bool = False,
) -> Answers:
    """Every picture through the file, the backbone once for each. Raises ``SamplesError`` for one that is broken."""
    joint = classifier.metadata.joint is not None
    kept, left_out, features, pixels, scores, lists = [], [], [], [], [], []
    for picture in pictures:
        try:
            image = classifier.prepare(picture.path)
        except PictureError as error:
            if not skip_broken:
                why = "take it away, or --skip-broken: a figure must say how many pictures it stands on"
                raise SamplesError(f"{error}; {why}") from error
            left_out.append(str(error))
            continue
        row = classifier.features_of(image)
        kept.append(picture)
        features.append(by_name(row)[FEATURES])
        if keep_pixels:
            pixels.append(image)
        scores.append([classifier.head_scores(row, name) for name in classifier.head_names])
        if joint:
            lists.append(classifier.joint_scores(row))
        advance()
    if not kept:
        raise SamplesError(f"expected pictures that can be read, found none: {'; '.join(left_out[:5])}")
    return Answers(
        tuple(kept),
        tuple(np.stack(column) for column in zip(*scores, strict=True)),
        np.stack([s for s, _ in lists]) if joint else None,
        np.stack([c for _, c in lists]) if joint else None,
        pooled(classifier.metadata.seam[0].quantization.dequantize(np.concatenate(features))),
        np.concatenate(pixels) if pixels else None,
        tuple(left_out),
    )


def sides(head: HeadInfo) -> tuple[str, ...]:
    """The answers that a head can give: its labels, or, of one alone, that it is not so and that it is."""
    return head.labels if len(head.labels) > 1 else (f"not {head.labels[0]}", head.labels[0])


def _sides(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (pictures, sides), and the true ones among them (pictures,)."""
    if scores.shape[1] > 1:
        return scores, labels
    return np.concatenate([1 - scores, scores], axis=1), labels + 1


def list_places(heads: Sequence[HeadInfo], joint: Mapping[str, Any] | None) -> tuple[list[list[int]], tuple[str, ...]]:
    """For each head the places of its labels in the list of all labels, and the list, without ``none``.

    ``joint``: what the file says of its joint list, where it has one.
    """
    none, merge = (False, False) if joint is None else (joint["none"], joint.get("merge_labels", False))
    layout = lay_out(heads, none=none, merge=merge)
    places = [[0] * len(head.labels) for head in heads]
    for place, members in enumerate(layout.members):
        for h, i in members:
            places[h][i] = place
    return places, layout.labels[: len(layout.labels) - none]


def _heads(
    heads: Sequence[HeadInfo], answers: Answers, floats: Sequence[np.ndarray] | None
) -> dict[str, dict[str, Accuracy]]:
    found: dict[str, dict[str, Accuracy]] = {}
    for h, head in enumerate(heads):
        own = answers.head == h
        if np.any(own):
            found[head.head_name] = {"int8": judge(*_sides(answers.scores[h][own], answers.label[own]))}
            if floats is not None:
                found[head.head_name]["float"] = judge(*_sides(floats[h][own], answers.label[own]))
    return found


def _lists(
    heads: Sequence[HeadInfo],
    answers: Answers,
    floats: Sequence[np.ndarray] | None,
    anew: np.ndarray | None,
    known: np.ndarray,
    place: tuple[list[list[int]], tuple[str, ...]],
) -> dict[str, np.ndarray]:
    """Scores (known pictures, labels) of every way to one list."""
    places, labels = place
    found = {}

    def spread(scores: Sequence[np.ndarray], gates: np.ndarray) -> np.ndarray:
        total: np.ndarray = np.zeros((len(answers.pictures), len(labels)))
        for h, own in enumerate(places):
            for i, target in enumerate(own):
                total[:, target] += gates[:, h] * scores[h][:, i]
        return np.asarray(total[known])

    if answers.joint is not None and answers.classes is not None:
        found["joint"] = answers.joint[known][:, : len(labels)]
        if floats is not None:
            found["joint, float heads"] = spread(floats, answers.classes)
    even = np.full((len(answers.pictures), len(heads)), 1 / len(heads))
    found["concatenated scores"] = spread(answers.scores, even)
    if anew is not None:
        found["one head trained anew on all labels"] = anew[known]
    return found


def _unknown(answers: Answers, joint: Mapping[str, Any], known: np.ndarray) -> dict[str, float]:
    """What the file's thresholds do to these pictures."""
    assert answers.classes is not None and answers.joint is not None
    heads = len(joint["head_thresholds"])
    largest = answers.classes[:, :heads].max(1)
    passes = largest >= joint["threshold"]
    if joint["none"]:
        passes &= largest >= answers.classes[:, -1]
    found = {"threshold": joint["threshold"], "known_pictures_refused": float(1 - passes[known].mean())}
    if not np.all(known):
        score = known_score(answers.classes, heads)
        auroc, fpr = separation(score[known], score[~known])
        found.update(none_pictures=float(np.sum(~known)), none_pictures_refused=float(1 - passes[~known].mean()))
        found.update(auroc=auroc, fpr_at_95_tpr=fpr)
    return found


def _originals(config: BuildConfig, answers: Answers) -> list[np.ndarray]:
    """Float probabilities (pictures, labels) of the Keras models of ``config``."""
    from builder.reading.loading import load_classifiers

    classifiers = load_classifiers(config.heads, allow_code=config.allow_code, limits=config.limits)
    assert answers.pixels is not None
    return [c.predict(list(answers.pixels)) for c in classifiers]


def _retrained(
    classifier: MultiHeadClassifier, config: BuildConfig, answers: Answers, advance: Callable[[], None]
) -> np.ndarray | None:
    """Scores of one logistic regression on the features, told every label: what the joint list does without.

    From the calibration pictures in folders ``<head>/<class>``; None where a class has no folder.
    """
    if config.calibration_data is None:
        return None
    heads, seen = classifier.metadata.heads, {p.path.read_bytes() for p in answers.pictures}
    paths = [
        (Labelled(path, h, i))
        for h, head in enumerate(heads)
        for i, label in enumerate(head.labels)
        for path in sorted((config.calibration_data / head.head_name / label).glob("*"))
        if path.suffix.lower() in PICTURE_SUFFIXES and path.read_bytes() not in seen
    ]
    training = run_file(classifier, paths, advance) if paths else None
    places, labels = list_places(heads, classifier.metadata.joint)
    if training is None:
        return None
    classes = np.array([places[p.head][p.label] for p in training.pictures])
    if len(np.unique(classes)) < len(labels):
        return None
    basis = principal(unit(training.features))
    features, fold = unit(training.features) @ basis, folds(np.arange(len(classes)), classes, FOLDS)
    penalty, _ = cross_validated(features, classes, PENALTIES, number=len(labels), folds_of=fold)
    fit = fit_logistic(features, classes, penalty=penalty, number=len(labels))
    found: np.ndarray = softmax(fit.evidence(unit(answers.features) @ basis), axis=1)
    return found


def _page(
    file: Path,
    data: Path,
    heads: Sequence[HeadInfo],
    answers: Answers,
    by_head: Mapping[str, Mapping[str, Accuracy]],
    judged: Mapping[str, Accuracy],
    lists: Mapping[str, np.ndarray],
    truth: np.ndarray,
    labels: tuple[str, ...],
    unknown: Mapping[str, float],
) -> str:
    best = list(lists)[:1]  # the joint list where there is one
    matrices = [Matrix(name, labels, confusion(lists[name].argmax(1), truth, len(labels))) for name in best]
    for h, head in enumerate(heads):
        own = answers.head == h
        if np.any(own):
            scores, right = _sides(answers.scores[h][own], answers.label[own])
            labels_of = sides(head)
            matrices.append(Matrix(head.head_name, labels_of, confusion(scores.argmax(1), right, len(labels_of))))
    curves = {name: reliability(s.max(1), s.argmax(1) == truth) for name, s in lists.items()}
    return render(Page(f"{file.name} on {data.name}", by_head, judged, unknown, tuple(matrices), curves))
