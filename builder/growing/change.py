"""Remove and rename heads of a finished file; the others answer as before. Needs only the runtime's libraries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from builder.exporting.sign import is_signed
from builder.growing.finished import (
    Finished,
    Heads,
    Kept,
    prove_kept,
    read_finished,
    record,
    renamed,
    saved_model_of,
    with_heads,
)
from builder.support.errors import ConfigError
from builder.support.files import Output, locked
from builder.support.places import check_file, report_folder
from edge_runtime.metadata import HeadPack, Metadata, check_new_head_name

if TYPE_CHECKING:
    from builder.joint import JointHead
    from builder.judging.verify import HeadQuality


class Place(Protocol):
    """``file``: to be changed. ``output``: for the result. ``calibration_data``: to fit the joint list again."""

    @property
    def file(self) -> Path: ...
    @property
    def output(self) -> Path: ...
    @property
    def calibration_data(self) -> Path | None: ...
    @property
    def report_folder(self) -> Path: ...


@dataclass(frozen=True)
class InPlace:
    """A ``Place`` without settings."""

    file: Path
    output: Path
    report: Path | None = None
    calibration_data: Path | None = None

    @property
    def report_folder(self) -> Path:
        return self.report or report_folder(self.output)


@dataclass
class Change:
    """What was changed. ``quality``: of a new head. ``notes``: what the user should know. ``kept``: None for a head
    pack.
    """

    what: str
    output: Path
    file_bytes: int = 0
    heads: int = 0
    head_bytes: int | None = None
    quality: HeadQuality | None = None
    kept: Kept | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def to_json(self) -> dict[str, Any]:
        kept, quality = self.kept, self.quality
        others = None if kept is None else {"bit_identical": kept.heads, "samples": kept.samples, "noise": kept.noise}
        return {
            "what": self.what,
            "bytes": self.file_bytes,
            "heads": self.heads,
            "other_heads": others,
            "quality": None if quality is None else quality.to_json(),
            "notes": self.notes,
            "seconds": self.seconds,
        }


def remove_head(config: Place, name: str) -> Change:
    """Remove a head; the last one stays. Raises ``BuilderError`` and ``EdgeRuntimeError``; then nothing was written."""
    change = Change(f"removed head {name}", config.output)
    with held(config) as output:
        before = read(config, change)
        before.head(name)
        heads = heads_of(before)
        del heads[name]
        if not heads:
            raise ConfigError(f"{config.file}: {name} is its only head; a file without heads has no answers")
        with change.stage("joint"):
            joint = _joint_of_the_rest(before, heads, config, change)
        with change.stage("link"):
            after, content = with_heads(before, heads, joint)
        _write_changed(after, content, {name: name for name in heads}, config, output, change)
    return change


def _joint_of_the_rest(before: Finished, heads: Heads, config: Place, change: Change) -> JointHead | None:
    """An existing joint list is fitted to the remaining heads, or dropped."""
    if before.metadata.joint is not None and config.calibration_data is None:
        change.notes.append(
            "the joint list is dropped, because it must be fitted again; give --calibration-data to keep one"
        )
    if before.metadata.joint is None or config.calibration_data is None:
        return None
    from builder.growing.refit import joint_again  # needs what the builder needs

    found, notes = joint_again(before, heads, config.calibration_data, None)
    change.notes += notes
    return found


def rename_head(config: Place, old: str, new: str) -> Change:
    """Rename a head, also in the joint list, which is otherwise unchanged. Raises as ``remove_head``."""
    change = Change(f"renamed head {old} to {new}", config.output)
    with held(config) as output:
        before = read(config, change)
        before.head(old)
        check_free(before, new)
        with change.stage("link"):
            after, content = renamed(before, old, new)
        names = {info.head_name: new if info.head_name == old else info.head_name for info in before.metadata.heads}
        _write_changed(after, content, names, config, output, change)
    return change


def read(config: Place, change: Change) -> Finished:
    before = read_finished(config.file)
    if is_signed(config.file):
        change.notes.append(
            "the signature is dropped, because it was for the old file; sign the new one with builder sign"
        )
    return before


@contextmanager
def held(config: Place) -> Iterator[Output]:
    """Lock the output from before the file is read until it is written, so that no change undoes another."""
    check_file(config.output)
    with locked(config.output) as output:
        yield output


def check_free(file: Finished, name: str) -> None:
    try:
        check_new_head_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if name in file.parts:
        raise ConfigError(
            f"{file.path}: head {name} is there already; choose another name, or use `builder replace-head`"
        )


def heads_of(file: Finished) -> Heads:
    return {info.head_name: (info, file.parts[info.head_name]) for info in file.metadata.heads}


def _write_changed(
    after: Finished, content: bytes, kept: Mapping[str, str], config: Place, output: Output, change: Change
) -> None:
    with output.draft(was_read=True) as draft:
        draft.write_bytes(content)
        with change.stage("others"):
            change.kept = prove_kept(config.file, draft, kept, None)
        finish(draft, content, after.metadata, config, change)


def finish(draft: Path, content: bytes, metadata: Metadata | HeadPack, config: Place, change: Change) -> None:
    """The finished bytes, ready to take the place of the output; what was done is written down first."""
    change.file_bytes = len(content)
    if isinstance(metadata, Metadata):
        change.heads = len(metadata.heads)
    draft.write_bytes(content)
    server = saved_model_of(config.file, report_folder(config.file))
    if server is not None:
        change.notes.append(f"the SavedModel {server} still has the old heads; build again to update it")
    record(config.output, config.report_folder, change.to_json())
