"""Labelled samples, pictures in class folders or texts in a CSV file, and the choice of validation samples."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builder.support.errors import ConfigError, SamplesError
from edge_runtime.counting import count_of
from edge_runtime.errors import PictureError
from edge_runtime.files import open_file
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import PICTURE_SUFFIXES, image_tensor

VALIDATION_EVERY = 6  # every sixth group of a class is for validation
MIN_GROUPS = 2  # of a class: one for training, one for validation


@dataclass(frozen=True)
class Samples:
    """``inputs``: float32 pictures (n, height, width, 3), RGB, 0..255, texts (n,), or features (n, features).

    ``classes``: int (n,), indices into ``labels``. ``groups``: (n,) names; samples of one group are not independent.
    ``sources``: for messages.
    """

    inputs: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    labels: tuple[str, ...]
    sources: tuple[str, ...]


def read_class_folders(folder: Path, spec: ImageInput, *, group_by: str | None = None) -> Samples:
    """Read all pictures below ``folder/<label>/``, as the device would see them; labels in alphabetical order.

    ``group_by``: a regular expression whose first group, found in a file's name without its suffix, names the picture's
    group. Raises ``SamplesError``.
    """
    if not folder.is_dir():
        raise SamplesError(f"{folder}: expected a folder with a folder of pictures for each label, found none")
    labels = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    paths = [(path, i) for i, label in enumerate(labels) for path in _pictures(folder / label)]
    counts = np.bincount([i for _, i in paths], minlength=len(labels))
    if len(labels) < 2 or counts.min() < 1:
        empty = [label for label, count in zip(labels, counts, strict=True) if not count]
        found = f"no pictures in {', '.join(empty)}" if empty else count_of(len(labels), "folders")
        raise SamplesError(f"{folder}: expected two labels or more, each a folder of pictures; found {found}")
    try:
        images = np.concatenate([image_tensor(path, spec) for path, _ in paths]).astype(np.float32)
    except PictureError as error:
        raise SamplesError(f"{error}; repair or remove it") from error
    classes, names = np.array([i for _, i in paths]), tuple(str(path) for path, _ in paths)
    groups = np.array([_group(path.stem, group_by) or str(path) for path, _ in paths])
    return _checked(Samples(images, classes, groups, labels, names), folder)


def read_csv(path: Path) -> Samples:
    """Read a CSV file with a header ``text,label`` and a row for each text. Raises ``ConfigError``."""
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: expected a CSV file in UTF-8, found something else ({error})") from error
    if not rows or not {"text", "label"} <= set(rows[0]) or any(not (r["text"] and r["label"]) for r in rows):
        raise ConfigError(f"{path}: expected the columns text and label, and both in every row")
    labels = tuple(sorted({row["label"] for row in rows}))
    if len(labels) < 2:
        raise ConfigError(f"{path}: expected two labels or more, found {', '.join(labels)}")
    texts = np.array([row["text"] for row in rows], object)
    classes = np.array([labels.index(row["label"]) for row in rows])
    return _checked(Samples(texts, classes, texts.astype(str), labels, tuple(texts)), path)


def labelled(
    inputs: np.ndarray,
    sources: Sequence[str],
    place: Path | str,
    *,
    group_by: str | None = None,
    said: Sequence[str] | None = None,
) -> Samples:
    """Label ``inputs`` (n, ...) of pictures at ``sources`` by ``said``, or by their folders.

    ``place``: for messages. ``group_by``: as in ``read_class_folders``. Raises ``SamplesError``.
    """
    given = [Path(source).parent.name for source in sources] if said is None else said
    labels = tuple(sorted(set(given)))
    if len(labels) < 2:
        where = ", each in a folder of its name" if said is None else ""
        raise SamplesError(
            f"{place}: expected pictures of two labels or more{where}; found {', '.join(labels) or 'no picture'}"
        )
    groups = np.array([_group(Path(source).stem, group_by) or source for source in sources])
    classes = np.array([labels.index(label) for label in given])
    return _checked(Samples(inputs, classes, groups, labels, tuple(sources)), place)


def validating(samples: Samples) -> np.ndarray:
    """bool (n,): the validation samples. Each class has some; a group is never split."""
    chosen = np.zeros(len(samples.classes), bool)
    for index in range(len(samples.labels)):
        of_class = samples.classes == index
        chosen |= of_class & np.isin(samples.groups, np.unique(samples.groups[of_class])[::VALIDATION_EVERY])
    return chosen


def _checked(samples: Samples, source: Path | str) -> Samples:
    for i, label in enumerate(samples.labels):
        groups = len(np.unique(samples.groups[samples.classes == i]))
        if groups < MIN_GROUPS:
            raise SamplesError(
                f"{source}: expected {MIN_GROUPS} or more samples of {label} that are independent, found {groups}"
            )
    return samples


def _group(name: str, pattern: str | None) -> str | None:
    if pattern is None:
        return None
    try:
        found = re.search(pattern, name)
        return None if found is None else found[1]
    except (re.error, IndexError) as error:
        raise ConfigError(
            f"--group-by {pattern}: expected a regular expression with a group in brackets ({error})"
        ) from error


def _pictures(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
