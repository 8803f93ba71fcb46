"""``builder init FOLDER``: find classifiers in a folder, group them by shared base, write a TOML file to build from."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.merging.kin import kin, kin_difference
from builder.merging.mixed_sources import Conversions
from builder.reading.checks import read_labels
from builder.reading.classifier import Classifier
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.settings.heads import HeadConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.starting.look import sources
from builder.starting.names import head_names, title_of
from builder.starting.project import PROJECT, unpack
from builder.support.errors import BuilderError, ConfigError
from builder.support.files import write_text
from edge_runtime.counting import count_of
from edge_runtime.preprocess import PICTURE_SUFFIXES

CONFIG = "polyhead.toml"
SAMPLES = "calibration_data"  # where pictures from projects go, a folder for each head


@dataclass(frozen=True)
class Found:
    """One classifier. ``missing``: lines of the TOML file that only the user can write."""

    classifier: Classifier
    name: str
    title: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """``heads``: classifiers that share one base. ``left_out``: other files, each with the reason."""

    config: Path
    heads: tuple[Found, ...]
    left_out: tuple[tuple[str, str], ...]
    samples: Path | None
    pictures: int  # extracted from projects

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(f"heads.{head.name}: {line}" for head in self.heads for line in head.missing)


def init(folder: Path, config: Path | None = None) -> Start:
    """Write the TOML file. Raises ``ConfigError`` where nothing can be built, or the file exists already."""
    config = config or folder / CONFIG
    if config.exists():
        raise ConfigError(f"{config}: exists already; edit it, remove it or choose another by --output")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of classifiers")
    classifiers, left_out = _read(folder)
    if not classifiers:
        why = "".join(f"\n{name}: {reason}" for name, reason in left_out)
        raise ConfigError(f"{folder}: expected readable classifiers, found none{why}")
    conversions = Conversions()
    first, *others = sorted(kin(classifiers, 0.0, conversions), key=lambda group: -len(group))
    for group in others:
        reason = _apart(group, first, conversions)
        left_out += [(_named(c, folder), reason) for c in group]
    heads = _heads(first, folder)
    pictures = sum(_unpacked(head, folder) for head in heads)
    start = Start(config, heads, tuple(left_out), _samples(folder), pictures)
    write_text(config, toml(start, folder))
    return start


def _read(folder: Path) -> tuple[list[Classifier], list[tuple[str, str]]]:
    reader, found, left_out = Reader(), list[Classifier](), list[tuple[str, str]]()
    for path in sources(folder):
        try:
            found += reader.read_each(str(path), path, None)
        except BuilderError as error:
            reason = str(error).removeprefix(f"{path}: ").split("\n")[0]
            left_out.append((str(path.relative_to(folder)), reason))
    return found, left_out


def _apart(group: Sequence[Classifier], first: Sequence[Classifier], conversions: Conversions) -> str:
    difference = kin_difference(first[0], group[0], conversions)
    what = difference.what if difference is not None else "no base in common"
    return f"another base than {count_of(len(first), 'other classifiers')}: {what}; build a separate file"


def _heads(classifiers: Sequence[Classifier], folder: Path) -> tuple[Found, ...]:
    titles = [c.output_name or title_of(c.path, c.labels, folder) for c in classifiers]
    names = head_names(titles)
    return tuple(
        Found(c, name, title, _missing(c, name)) for c, name, title in zip(classifiers, names, titles, strict=True)
    )


def _missing(classifier: Classifier, name: str) -> tuple[str, ...]:
    found, source = [], classifier.source_input
    if isinstance(source, PictureSourceInput) and source.unsaid:
        known = classifier.application
        word = known.preprocessing if known else "|".join(PREPROCESSING)
        found.append(f'preprocessing = "{word}"' + (f"  # {known.name}'s preprocess_input" if known else ""))
    try:
        head = HeadConfig(name, classifier.path, output_name=classifier.output_name)
        read_labels(head, classifier.labels, classifier.trouble)
    except ConfigError:
        found.append(f"labels = [...]  # {classifier.trouble or f'{classifier.end[1]} names'}")
    return tuple(found)


def _unpacked(head: Found, folder: Path) -> int:
    path = head.classifier.path
    project = (path if path.is_dir() else path.parent) / PROJECT
    return unpack(project, folder / SAMPLES / head.name) if project.is_file() else 0


def _samples(folder: Path) -> Path | None:
    """The folder of pictures; the whole folder where they are beside the models."""
    if (folder / SAMPLES).is_dir():
        return folder / SAMPLES
    found = (p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and ".report" not in str(p))
    return folder if len(list(itertools.islice(found, 2))) > 1 else None


def _named(classifier: Classifier, folder: Path) -> str:
    return str(classifier.path.relative_to(folder))


def toml(start: Start, folder: Path) -> str:
    """The text of the TOML file. Paths are relative to it."""
    here = start.config.parent
    lines = [
        f"# Written by `builder init`: {count_of(len(start.heads), 'classifiers')} with one base.",
        "# Edit it as needed, then run: builder build " + start.config.name,
        f"output = {_text(folder.resolve().name + '.tflite')}",
    ]
    if start.samples is not None:
        lines.append(f"calibration_data = {_text(_relative(start.samples, here))}")
    else:
        lines += ["# No pictures were found. int8 needs a folder of pictures like those that the device will see:"]
        lines += ['# calibration_data = "pictures"']
    for head in start.heads:
        labels = count_of(len(head.classifier.labels), "labels") if head.classifier.labels else "labels unknown"
        about = f"{head.classifier.kind}, {labels}" + (
            f": {', '.join(head.classifier.labels[:4])}" if head.classifier.labels else ""
        )
        lines += ["", f"# {_comment(about)}", f"[heads.{head.name}]"]
        lines += [f"title = {_text(head.title)}"] if head.title != head.name else []
        lines += [f"model = {_text(_relative(head.classifier.path, here))}"]
        if head.classifier.output_name is not None:
            lines += [f"output_name = {_text(head.classifier.output_name)}"]
        lines += [f"# missing: {_comment(line)}" for line in head.missing]
    if start.left_out:
        lines += ["", "# Left out:"]
        lines += [f"# {_comment(name)}: {_comment(reason)}" for name, reason in start.left_out]
    return "\n".join(lines) + "\n"


def _relative(path: Path, here: Path) -> str:
    return Path(os.path.relpath(path, here)).as_posix()


def _text(value: str) -> str:
    """A TOML string; TOML has the escapes of JSON."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return " ".join(text.split()) if text.isprintable() else " ".join(repr(text)[1:-1].split())
