"""Models to compare a file with, given the configuration of its build: the float originals, and one head that was trained
on all labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import softmax

from builder.joint.logistic import cross_validated, fit_logistic, folds, principal
from builder.joint.router import FOLDS, PENALTIES, unit
from builder.judging.answers import Answers, Asker
from builder.judging.labelled import BLOCK, Block, Labelled
from builder.judging.lists import Lists
from builder.reading.classifier import Classifier
from builder.reading.loading import load_classifiers
from builder.scoring.contents import Contents
from builder.scoring.samples import Planned
from builder.settings.config import BuildConfig
from builder.support.errors import SamplesError
from edge_runtime.metadata import HeadInfo
from edge_runtime.preprocess import PICTURE_SUFFIXES

Scores = Callable[[Answers], np.ndarray]  # (samples, labels)


@dataclass(frozen=True)
class Original:
    """The float model of one head."""

    head: str
    scores: Scores


def originals(config: BuildConfig) -> list[Original]:
    """Read the originals of a build. Raises ``BuilderError`` where one cannot be read."""
    classifiers = load_classifiers(config.heads, allow_code=config.allow_code, limits=config.limits)
    return [Original(classifier.name, partial(_predict, classifier)) for classifier in classifiers]


def _predict(classifier: Classifier, answers: Answers) -> np.ndarray:
    return classifier.predict(list(answers.shown or ()))


def retrained(
    ask: Asker,
    heads: Sequence[HeadInfo],
    lists: Lists,
    folder: Path,
    judged: Iterable[Planned],
    contents: Contents,
) -> Scores | None:
    """One logistic regression on the features, trained with every label, which the joint list does not need.

    It is trained on the pictures in ``folder``, ``<head>/<label>/*``, without those in ``judged``. None where a label has
    no pictures.
    """
    training = _training(heads, folder)
    known = {_digest(contents, sample.sample): sample for sample in training}
    for sample in judged:
        known.pop(_digest(contents, sample), None)
    left = tuple(known.values())
    found = [ask(Block(left[i : i + BLOCK])) for i in range(0, len(left), BLOCK)]
    classes = np.array([lists.places[s.head][s.label] for answers in found for s in answers.samples], int)
    if len(np.unique(classes)) < len(lists.labels):
        return None
    features = unit(np.concatenate([answers.features for answers in found if answers.features is not None]))
    basis = principal(features)
    fold = folds(np.arange(len(classes)), classes, FOLDS)
    penalty, _ = cross_validated(features @ basis, classes, PENALTIES, number=len(lists.labels), folds_of=fold)
    fit = fit_logistic(features @ basis, classes, penalty=penalty, number=len(lists.labels))

    def scores(answers: Answers) -> np.ndarray:
        assert answers.features is not None
        return np.asarray(softmax(fit.evidence(unit(answers.features) @ basis), axis=1))

    return scores


def _training(heads: Sequence[HeadInfo], folder: Path) -> list[Labelled]:
    return [
        Labelled(Planned(str(path)), h, i)
        for h, head in enumerate(heads)
        for i, label in enumerate(head.labels)
        for path in sorted((folder / head.head_name / label).glob("*"))
        if path.suffix.lower() in PICTURE_SUFFIXES
    ]


def _digest(contents: Contents, sample: Planned) -> bytes:
    try:
        return hashlib.sha256(contents.read(sample)).digest()
    except SamplesError:
        return b""
