"""Features of the demo's pictures in random splits, on which ``benchmarks.joint`` compares its methods."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import softmax

from builder.joint.logistic import cross_validated, fit_logistic, folds, principal
from builder.joint.router import PENALTIES, Evidence, unit
from edge_runtime import MultiHeadClassifier
from edge_runtime.metadata import FEATURES
from edge_runtime.seam import by_name

HELD_OUT = 0.3


@dataclass(frozen=True)
class Pictures:
    """All pictures, one in each row. ``kinds``: groups that a split does not divide; ``head_of``: the head of each class.

    ``views``: features (pictures, views, features) of the picture as it is, mirrored, and cropped on two sides.
    """

    features: np.ndarray
    views: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    names: tuple[str, ...]
    head_of: np.ndarray

    @property
    def heads(self) -> np.ndarray:
        found: np.ndarray = self.head_of[self.classes]
        return found


def load(file: Path, data: Path) -> Pictures:
    """Features of every picture ``<task>/<class>/*`` and ``held_out/<task>/<class>/*``."""
    paths = sorted(data.rglob("*.jpg"))
    with MultiHeadClassifier(file) as classifier:
        seam = classifier.metadata.seam[0].quantization
        rows = [
            [
                seam.dequantize(by_name(classifier.features_of(tensor))[FEATURES])[0]
                for tensor in views_of(classifier, path)
            ]
            for path in paths
        ]
    views = np.asarray(rows, np.float64)
    names = [f"{path.parent.parent.name}/{path.parent.name}" for path in paths]
    unique = tuple(sorted(set(names)))
    tasks = sorted({name.split("/")[0] for name in unique})
    head_of = np.array([tasks.index(name.split("/")[0]) for name in unique])
    classes = np.array([unique.index(name) for name in names])
    kinds = np.array([_kind(path) for path in paths])
    return Pictures(views[:, 0], views, classes, kinds, unique, head_of)


def views_of(classifier: MultiHeadClassifier, path: Path) -> Iterator[np.ndarray]:
    """The picture's tensor, its mirror image, and a crop to each corner that leaves out 12 % on the other two sides."""
    whole = classifier.prepare(path)
    yield whole
    yield np.ascontiguousarray(whole[:, :, ::-1])
    image, margin = Image.fromarray(whole[0]), round(0.12 * min(whole.shape[1:3]))
    width, height = image.width - margin, image.height - margin
    for left, top in itertools.product((0, margin), repeat=2):
        part = image.crop((left, top, left + width, top + height)).resize(image.size, Image.Resampling.BILINEAR)
        yield np.asarray(part)[None]


def _kind(path: Path) -> str:
    """The first word of the object's name, as in ``calibration_data/make_pictures.py``."""
    name, label = path.stem.rpartition("__")[0].lower(), path.parent.name
    word = re.match(r"[a-z]*", name)[0].rstrip("s")  # type: ignore[index]  # * always matches
    return f"{label}/{name if word in ('', label) else word}"


def split(pictures: Pictures, seed: int) -> np.ndarray:
    """Whether each picture is held out, bool (pictures,)."""
    rng, aside = np.random.default_rng(seed), np.zeros(len(pictures.classes), bool)
    for each in range(len(pictures.names)):
        own = pictures.classes == each
        for kind in rng.permutation(np.unique(pictures.kinds[own])):
            group = pictures.kinds == kind
            if aside[own].sum() + group.sum() / 2 <= HELD_OUT * own.sum():
                aside |= group
    return aside


@dataclass(frozen=True)
class Problem:
    """One split. ``evidence``: what a method learns from; ``views``: all views of it. ``unseen``: the held-out pictures,
    whose ``truth`` is hidden from it. ``pseudo``: the class that its own head predicts for each picture of ``evidence``.
    """

    evidence: Evidence
    views: Evidence
    unseen: Evidence
    truth: np.ndarray
    pseudo: np.ndarray
    head_of: np.ndarray

    def joint(self, heads: np.ndarray, temperatures: Sequence[float] | None = None) -> np.ndarray:
        """P(head) x P(label | head), for P(head) (pictures, heads)."""
        scales = temperatures or [1.0] * len(self.unseen.logits)
        own = [softmax(z / t, axis=1) for z, t in zip(self.unseen.logits, scales, strict=True)]
        return np.concatenate([heads[:, [h]] * p for h, p in enumerate(own)], axis=1)


def heads_of(pictures: Pictures, training: np.ndarray) -> list[Callable[[np.ndarray], np.ndarray]]:
    """A head for each task, trained on the pictures of ``training``, bool (pictures,).

    Each maps features to logits (pictures, labels).
    """
    found = []
    for head in np.unique(pictures.head_of):
        own = training & (pictures.heads == head)
        found.append(train(pictures.features[own], np.unique(pictures.classes[own], return_inverse=True)[1]))
    return found


def evidence_of(pictures: Pictures, heads: Sequence[Callable[[np.ndarray], np.ndarray]], chosen: np.ndarray) -> Evidence:
    """All views of the pictures ``chosen``. The views of one picture are one scene."""
    count = pictures.views.shape[1]
    features = pictures.views[chosen].reshape(len(chosen) * count, -1)
    scenes = np.repeat(np.arange(len(chosen)), count)
    logits = tuple(head(features) for head in heads)
    return Evidence(features, logits, np.repeat(pictures.heads[chosen], count), scenes)


def train(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression as in the router. It also trains the single head on all labels."""
    basis = principal(unit(features))
    inner, number = unit(features) @ basis, int(labels.max()) + 1
    fold = folds(np.arange(len(labels)), labels, 5)
    penalty, _ = cross_validated(inner, labels, PENALTIES, number=number, folds_of=fold)
    fit = fit_logistic(inner, labels, penalty=penalty, number=number)
    return lambda unseen: fit.evidence(unit(unseen) @ basis)
