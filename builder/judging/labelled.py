"""Labelled samples, one after the other, labelled by folders, a column of a table, or the paths of stored features."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from builder.joint.layout import NONE
from builder.scoring.features import StoredFeatures
from builder.scoring.samples import Planned, planned
from builder.support.errors import ConfigError, SamplesError
from edge_runtime.metadata import HeadInfo

BLOCK = 128  # samples that are answered together


@dataclass(frozen=True)
class Labelled:
    """One sample with the indices of its head and label. For a sample of no head, ``head`` is the number of heads and
    ``label`` -1; ``label`` is also -1 for the negative answer of a head with one label.
    """

    sample: Planned
    head: int
    label: int

    @property
    def source(self) -> str:
        return self.sample.source


@dataclass(frozen=True)
class Block:
    """``features``: stored features of its samples, by tensor of the seam, integers (samples, *shape)."""

    samples: tuple[Labelled, ...]
    features: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Archive:
    """Where labelled samples are.

    Attributes:
        place: A folder ``<head>/<label>/*``, a glob, a table, or an address; see ``samples.planned``.
        column: The column of a table with the samples.
        labels: The column of a table with ``head/label``, ``none``, or a label of ``head``.
        head: The head of those labels, where the column has only labels.
        features: Instead of all of these: stored features, whose sources end in ``<head>/<label>/NAME``.
    """

    place: str | None = None
    column: str | None = None
    labels: str | None = None
    head: str | None = None
    features: StoredFeatures | None = None

    def __str__(self) -> str:
        return str(self.features.path) if self.features is not None else str(self.place)


def sides(head: HeadInfo) -> tuple[str, ...]:
    """The answers that a head can give: its labels; for a single label, its negation and the label."""
    return head.labels if len(head.labels) > 1 else (f"not {head.labels[0]}", head.labels[0])


def find_labelled(archive: Archive, heads: Sequence[HeadInfo], *, texts: bool = False) -> Iterator[Labelled]:
    """Every sample of a place, in a fixed order. Raises ``SamplesError`` for an unknown label."""
    assert archive.place is not None
    by_table, root, read = _by_words(heads, archive.head), _root(archive.place), _by_folders(heads, archive.place)
    tables = archive.column is not None
    for sample in planned(
        archive.place, texts=texts, column=archive.column, labels=archive.labels if tables else None, tables=tables
    ):
        if tables and sample.label is not None:
            yield Labelled(replace(sample, label=None), *by_table(sample.source, sample.label))
        else:
            yield Labelled(sample, *read(sample.source, _folders(sample, root)))


def count_labelled(archive: Archive, heads: Sequence[HeadInfo], *, texts: bool = False) -> int:
    """The number of samples. Raises ``SamplesError`` for an unknown label, or without samples of a head."""
    total, of_heads = 0, 0
    for sample in _stored(archive.features, heads) if archive.features else find_labelled(archive, heads, texts=texts):
        total += 1
        of_heads += sample.head < len(heads)
    if not of_heads:
        found = f"those of {NONE} only" if total else "none"
        raise SamplesError(f"{archive}: expected {'texts' if texts else 'pictures'} of at least one head, found {found}")
    return total


def blocks_of(archive: Archive, heads: Sequence[HeadInfo], *, texts: bool = False, size: int = BLOCK) -> Iterator[Block]:
    """The samples in blocks, with their features where these are stored."""
    if archive.features is None:
        source = find_labelled(archive, heads, texts=texts)
        while samples := tuple(itertools.islice(source, size)):
            yield Block(samples)
        return
    read = _by_ending(heads, archive.features.path)
    for block in archive.features.blocks():
        found = tuple(Labelled(Planned(source), *read(source)) for source in block.sources)
        yield Block(found, block.tensors)


def _stored(features: StoredFeatures, heads: Sequence[HeadInfo]) -> Iterator[Labelled]:
    read = _by_ending(heads, features.path)
    return (Labelled(Planned(source), *read(source)) for sources in features.sources() for source in sources)


def _root(place: str) -> str:
    """The common prefix of all sources; of a glob, the part before its first wildcard."""
    if "://" in place or Path(place).is_dir():
        return place
    fixed = itertools.takewhile(lambda part: not re.search(r"[*?\[]", part), Path(place).parts[:-1])
    return str(Path(*fixed))


def _folders(sample: Planned, root: str) -> tuple[str, ...]:
    """The folders below ``root``; for a text, also the name of its file, since a text is one line."""
    name = sample.source if sample.text is None else sample.source.rsplit(":", 1)[0]
    parts = PurePosixPath(Path(name).as_posix()).relative_to(PurePosixPath(Path(root).as_posix())).parts
    return parts[:-1] if sample.text is None else (*parts[:-1], PurePosixPath(parts[-1]).stem)


def _by_folders(heads: Sequence[HeadInfo], place: str) -> Callable[[str, Sequence[str]], tuple[int, int]]:
    names = [head.head_name for head in heads]

    def read(source: str, folders: Sequence[str]) -> tuple[int, int]:
        folder, *rest = folders or ("",)
        if folder == NONE and folder not in names:
            return len(heads), -1
        if folder not in names:
            raise SamplesError(
                f"{source}: expected {place}/<head>/<class>/ with a head of the file ({', '.join(names[:20])}) or "
                f"{place}/{NONE}/, found {folder or 'no folder'}"
            )
        head = names.index(folder)
        label = _label(heads[head], rest[0]) if rest else None
        if label is None:
            raise SamplesError(
                f"{source}: expected a folder named like a label of {folder} ({', '.join(sides(heads[head])[:20])}), "
                f"found {rest[0] if rest else 'none'}"
            )
        return head, label

    return read


def _by_words(heads: Sequence[HeadInfo], chosen: str | None) -> Callable[[str, str], tuple[int, int]]:
    names = [head.head_name for head in heads]
    if chosen is not None and chosen not in names:
        raise ConfigError(f"--head {chosen}: no such head; there are: {', '.join(names[:20])}")
    alone = chosen or (names[0] if len(names) == 1 else None)

    def read(source: str, words: str) -> tuple[int, int]:
        for head, name in enumerate(names):
            given = words.removeprefix(f"{name}/") if words.startswith(f"{name}/") else words if name == alone else None
            label = None if given is None else _label(heads[head], given)
            if label is not None:
                return head, label
        if words == NONE:
            return len(heads), -1
        wanted = f"a label of {alone}, " if alone else ""
        raise SamplesError(f"{source}: expected {wanted}HEAD/LABEL of the file, or {NONE}; found {words!r:.60}")

    return read


def _by_ending(heads: Sequence[HeadInfo], path: Path) -> Callable[[str], tuple[int, int]]:
    names = [head.head_name for head in heads]

    def read(source: str) -> tuple[int, int]:
        folders = PurePosixPath(source.replace("\\", "/")).parts[:-1]
        for place in reversed(range(len(folders) - 1)):
            if folders[place] in names:
                label = _label(heads[head := names.index(folders[place])], folders[place + 1])
                if label is not None:
                    return head, label
        if NONE in folders:
            return len(heads), -1
        raise SamplesError(
            f"{path}: expected sources <head>/<class>/NAME with a head of the file ({', '.join(names[:20])}), or "
            f"{NONE}/; found {source}"
        )

    return read


def _label(head: HeadInfo, name: str) -> int | None:
    labels = sides(head)
    return labels.index(name) - len(labels) + len(head.labels) if name in labels else None
