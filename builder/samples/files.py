"""Find samples in a folder: pictures, one in each file, and texts, one in each line of a ``.txt`` file."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.support.errors import SamplesError
from edge_runtime.files import open_file, read_file
from edge_runtime.inputs import InputSpec
from edge_runtime.preprocess import PICTURE_SUFFIXES
from edge_runtime.text import TextInput

TEXT_SUFFIXES = (".txt",)
MAX_TEXT_FILE = 1 << 30  # bytes


@dataclass(frozen=True)
class Picture:
    """One picture file. ``head``: the name of its sub-folder, if that is the name of a head."""

    path: Path
    head: str | None
    digest: str  # of the file's bytes: one picture under two names counts once

    @property
    def content(self) -> Path:
        """What ``edge_runtime`` preprocesses to a tensor."""
        return self.path

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def group(self) -> Path:
        """Samples are drawn evenly from all groups."""
        return self.path.parent


@dataclass(frozen=True)
class Text:
    """One line of a file, without the line break. ``head``, ``digest``: as of ``Picture``; heads may share a text."""

    path: Path
    line: int
    content: bytes
    head: str | None
    digest: str

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}:{self.line}"

    @property
    def group(self) -> Path:
        return self.path


Sample = Picture | Text


def find_samples(folder: Path, heads: Sequence[str], spec: InputSpec) -> list[Sample]:
    """All pictures or texts below ``folder``, as ``spec`` says; see ``find_pictures`` and ``find_texts``."""
    return list(find_texts(folder, heads) if isinstance(spec, TextInput) else find_pictures(folder, heads))


def find_pictures(folder: Path, heads: Sequence[str]) -> list[Picture]:
    """Every picture below ``folder`` once, ordered by content hash, so that names and places change nothing.

    Raises ``SamplesError`` for a folder that is missing or empty.
    """
    found: dict[str, Picture] = {}
    for path in _files(folder, PICTURE_SUFFIXES, "pictures"):
        digest = _digest(path)
        found.setdefault(digest, Picture(path, _head_of(path, folder, heads), digest))
    return sorted(found.values(), key=lambda p: p.digest)


def find_texts(folder: Path, heads: Sequence[str]) -> list[Text]:
    """Every non-empty line, once for each head in whose folder it is, ordered by content hash.

    Raises ``SamplesError``.
    """
    found: dict[tuple[str, str], Text] = {}
    for path in _files(folder, TEXT_SUFFIXES, "texts"):
        head = _head_of(path, folder, heads)
        for number, line in enumerate(read_file(path, MAX_TEXT_FILE).split(b"\n"), 1):
            content = line.rstrip(b"\r")
            if content.strip():
                digest = hashlib.sha256(content).hexdigest()
                found.setdefault((digest, head or ""), Text(path, number, content, head, digest))
    if not found:
        raise SamplesError(f"{folder}: expected texts, one in each line, found empty files")
    return [found[key] for key in sorted(found)]


def draw_evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most ``most`` samples, taken from the groups in turn, so that a large group does not outweigh a small one."""
    groups: dict[Path, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.digest):
        groups.setdefault(sample.group, []).append(sample)
    turns = itertools.zip_longest(*(groups[key] for key in sorted(groups, key=lambda k: groups[k][0].digest)))
    return [s for turn in turns for s in turn if s is not None][:most]


def _files(folder: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    if not folder.is_dir():
        raise SamplesError(f"{folder}: no such folder; expected {what} ({', '.join(suffixes)}) in it")
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes and p.is_file()]
    if not paths:
        raise SamplesError(f"{folder}: expected {what} ({', '.join(suffixes)}), found none")
    return paths


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def _head_of(path: Path, folder: Path, heads: Sequence[str]) -> str | None:
    return next((part for part in path.relative_to(folder).parts[:-1] if part in heads), None)
