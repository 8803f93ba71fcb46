"""Change a finished file without its models: heads come, go and get other names, and the others answer as before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.exporting.sign import is_signed
from builder.growing.finished import Finished, Kept, prove_kept, read_finished, record, renamed, with_heads
from builder.growing.packs import head_pack
from builder.joint import JointHead, fit_joint, grouped_samples
from builder.reading.early import check_early
from builder.samples.calibration import SampleSet, collect
from builder.settings.config import HeadConfig, JointConfig
from builder.settings.growing import GrowConfig
from builder.support.errors import ConfigError, QualityError
from builder.support.files import Output, locked
from builder.support.places import check_file
from builder.tflite.flatbuffer import Part
from edge_runtime.bundle import append_members
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.metadata import BACKBONE, HeadInfo, HeadPack, Metadata, check_new_head_name

if TYPE_CHECKING:
    from builder.growing.new_head import NewHead
    from builder.judging.verify import HeadQuality

Heads = dict[str, tuple[HeadInfo, Part]]


@dataclass
class Change:
    """What was done. ``quality``: of a new head. ``notes``: what the user should know. ``kept``: None for a head pack."""

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


def add_head(config: GrowConfig, *, replacing: bool = False) -> Change:
    """The new head joins the file, or takes the place of the head of its name.

    Raises ``BuilderError`` and ``EdgeRuntimeError``; then nothing was written.
    """
    head = _new_head_of(config)
    change = Change(f"{'replaced' if replacing else 'added'} head {head.name}", config.output)
    with _held(config) as output:
        with change.stage("read"):
            before = _read(config, change)
            if replacing:
                before.head(head.name)
            else:
                _check_free(before, head.name)
        new, verification = _make(before, head, config, change)
        heads = _heads_of(before)
        heads[head.name] = (new.info, new.part)
        with change.stage("joint"):
            joint = _joint_again(before, heads, config, verification, change)
        with change.stage("link"):
            after, content = with_heads(before, heads, joint)
        with output.draft(was_read=True) as draft:
            draft.write_bytes(content)
            others = {name: name for name in before.parts if name not in (BACKBONE, head.name)}
            with change.stage("others"):
                change.kept = prove_kept(config.file, draft, others, verification.tensors)
            with change.stage("verify"), MultiHeadClassifier(draft, head_packs=()) as opened:
                _judge(opened, new, verification, config, change)
            quality = dict(after.metadata.quality)
            quality["heads"] = {**quality.get("heads", {}), head.name: change.quality.to_json() if change.quality else {}}
            metadata = replace(after.metadata, quality=quality)
            _finish(draft, append_members(content[: metadata.model_bytes], metadata), metadata, config, change)
    return change


def remove_head(config: GrowConfig, name: str) -> Change:
    """Raises as ``add_head``; the last head stays."""
    change = Change(f"removed head {name}", config.output)
    with _held(config) as output:
        before = _read(config, change)
        before.head(name)
        heads = _heads_of(before)
        del heads[name]
        if not heads:
            raise ConfigError(f"{config.file}: {name} is its only head; a file without heads answers nothing")
        with change.stage("joint"):
            joint = _joint_again(before, heads, config, None, change)
        with change.stage("link"):
            after, content = with_heads(before, heads, joint)
        _write_changed(after, content, {name: name for name in heads}, config, output, change)
    return change


def rename_head(config: GrowConfig, old: str, new: str) -> Change:
    """The joint list stays as it is but for the name. Raises as ``add_head``."""
    change = Change(f"renamed head {old} to {new}", config.output)
    with _held(config) as output:
        before = _read(config, change)
        before.head(old)
        _check_free(before, new)
        with change.stage("link"):
            after, content = renamed(before, old, new)
        names = {info.head_name: new if info.head_name == old else info.head_name for info in before.metadata.heads}
        _write_changed(after, content, names, config, output, change)
    return change


def build_head(config: GrowConfig) -> Change:
    """The new head in a file of its own, a head pack for ``config.file``. Raises as ``add_head``."""
    head = _new_head_of(config)
    change = Change(f"built head pack {head.name}", config.output)
    with _held(config) as output:
        with change.stage("read"):
            main = read_finished(config.file)
            _check_free(main, head.name)
        new, verification = _make(main, head, config, change)
        model, pack = head_pack(main.metadata, new.info, new.part)
        with output.draft(was_read=True) as draft:
            draft.write_bytes(append_members(model, pack))
            with change.stage("verify"), MultiHeadClassifier(config.file, head_packs=[draft]) as opened:
                quality = _judge(opened, new, verification, config, change)
            pack = replace(pack, quality={"heads": {head.name: quality.to_json()}})
            _finish(draft, append_members(model, pack), pack, config, change)
    return change


def _read(config: GrowConfig, change: Change) -> Finished:
    before = read_finished(config.file)
    if is_signed(config.file):
        change.notes.append("the signature is dropped: it was of the file before; sign this one: builder sign")
    return before


@contextmanager
def _held(config: GrowConfig) -> Iterator[Output]:
    """The output is this process's from before the file is read until it is written: no change undoes another."""
    check_file(config.output)
    with locked(config.output) as output:
        yield output


def _new_head_of(config: GrowConfig) -> HeadConfig:
    if config.head is None or config.calibration_data is None:
        raise ConfigError("a new head needs a model and --calibration-data, pictures to quantize it with")
    check_early(config)
    return config.head


def _check_free(file: Finished, name: str) -> None:
    try:
        check_new_head_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if name in file.parts:
        raise ConfigError(f"{file.path}: head {name} is there already; take another name, or `builder replace-head`")


def _heads_of(file: Finished) -> Heads:
    return {info.head_name: (info, file.parts[info.head_name]) for info in file.metadata.heads}


def _make(file: Finished, head: HeadConfig, config: GrowConfig, change: Change) -> tuple[NewHead, SampleSet]:
    with change.stage("import"):
        from builder.growing.new_head import load, made_and_answered  # imports TensorFlow
    with change.stage("load"):
        classifier = load(file, head, allow_code=config.allow_code, limits=config.limits)
    with change.stage("pictures"):
        names = [*(info.head_name for info in file.metadata.heads), head.name]
        folder = config.calibration_data or config.file.parent
        calibration, verification = collect(folder, config.verification_data, names, file.metadata.input)
        change.notes += verification.drawn(file.metadata.input.noun)
    with change.stage("head"):
        new = made_and_answered(file, classifier, calibration, verification, rounding=config.rounding)
    titles = {info.head_name: info.title for info in file.metadata.heads}  # a head that is replaced keeps its own
    info = replace(new.info, title=head.title or titles.get(head.name, ""))
    return replace(new, info=info), verification


def _joint_again(
    before: Finished, heads: Heads, config: GrowConfig, held_out: SampleSet | None, change: Change
) -> JointHead | None:
    """A list that was there is fitted to the new heads, or given up; one that was not is not invented."""
    table, names = before.metadata.joint, list(heads)
    if table is None:
        return None
    if config.calibration_data is None:
        change.notes.append("the joint list is dropped: it has to be fitted again, with --calibration-data")
        return None
    chosen = JointConfig(
        enabled=True,
        merge_labels=bool(table.get("merge_labels")),
        false_alarm=table.get("false_alarm", 0.05),
        everyday=bool(table.get("everyday")),
    )
    spec, forbidden = before.metadata.input, () if held_out is None else held_out.sources
    samples = grouped_samples(config.calibration_data, names, spec, forbidden)
    parts = {BACKBONE: before.parts[BACKBONE], **{name: part for name, (_, part) in heads.items()}}
    found, reason = fit_joint(chosen, spec, parts, [info for info, _ in heads.values()], samples, held_out=held_out)
    if found is not None:
        change.notes += [f"the joint list was fitted again, on {sum(found.pictures.values())} {spec.noun}", *found.notes]
        return found
    change.notes.append(f"the joint list is dropped: {reason}")
    return None


def _judge(
    opened: MultiHeadClassifier, new: NewHead, pictures: SampleSet, config: GrowConfig, change: Change
) -> HeadQuality:
    """Raises ``QualityError`` for a head that failed verification."""
    from builder.growing.new_head import compare
    from builder.reporting.verdicts import reason_of_failure

    quality = change.quality = compare(opened, new, pictures)
    bar = config.min_agreement
    if not quality.passes(bar):
        precision = opened.metadata.built["precision"]
        why = reason_of_failure(quality, bar, opened.metadata.input.noun, precision=precision, chosen_by_name=False)
        raise QualityError(f"{why}; nothing was written")
    if not quality.can_tell(bar):
        change.notes.append(f"{quality.pictures} held-out samples are too few to prove an agreement of {bar:g}")
    return quality


def _write_changed(
    after: Finished, content: bytes, kept: Mapping[str, str], config: GrowConfig, output: Output, change: Change
) -> None:
    with output.draft(was_read=True) as draft:
        draft.write_bytes(content)
        with change.stage("others"):
            change.kept = prove_kept(config.file, draft, kept, None)
        _finish(draft, content, after.metadata, config, change)


def _finish(draft: Path, content: bytes, metadata: Metadata | HeadPack, config: GrowConfig, change: Change) -> None:
    """The finished bytes, ready to take the place of the output; what was done is written down first."""
    change.file_bytes = len(content)
    if isinstance(metadata, Metadata):
        change.heads = len(metadata.heads)
    draft.write_bytes(content)
    record(config.output, config.report_folder, change.to_json())
