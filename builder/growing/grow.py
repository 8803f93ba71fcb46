"""Add or replace heads of a finished file without its models; the other heads answer as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.growing.change import Change, check_free, finish, heads_of, held, read
from builder.growing.finished import Finished, prove_kept, read_finished, with_heads
from builder.growing.packs import head_pack
from builder.reading.early import check_early
from builder.reading.loading import start_original
from builder.samples.calibration import SampleSet, collect
from builder.settings.growing import GrowConfig
from builder.settings.heads import HeadConfig
from builder.support.errors import ConfigError, QualityError
from edge_runtime.bundle import append_members
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.metadata import BACKBONE

if TYPE_CHECKING:
    from builder.growing.finished import Heads
    from builder.growing.new_head import NewHead
    from builder.joint import JointHead
    from builder.judging.verify import HeadQuality


def add_head(config: GrowConfig, *, replacing: bool = False) -> Change:
    """Add the new head to the file, or replace the head of its name.

    Raises ``BuilderError`` and ``EdgeRuntimeError``; then nothing was written.
    """
    head, pictures = _new_head_of(config)
    change = Change(f"{'replaced' if replacing else 'added'} head {head.name}", config.output)
    with held(config) as output:
        with change.stage("read"):
            before = read(config, change)
            if replacing:
                before.head(head.name)
            else:
                check_free(before, head.name)
        new, verification = _make(before, head, pictures, config, change)
        heads = heads_of(before)
        heads[head.name] = (new.info, new.part)
        with change.stage("joint"):
            joint = _joint(before, heads, pictures, verification, change)
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
            finish(draft, append_members(content[: metadata.model_bytes], metadata), metadata, config, change)
    return change


def _joint(before: Finished, heads: Heads, pictures: Path, held_out: SampleSet, change: Change) -> JointHead | None:
    if before.metadata.joint is None:  # fitting a list needs half a second of imports
        return None
    from builder.growing.refit import joint_again

    found, notes = joint_again(before, heads, pictures, held_out)
    change.notes += notes
    return found


def build_head(config: GrowConfig) -> Change:
    """Write the new head as a head pack, a separate file for ``config.file``. Raises as ``add_head``."""
    head, pictures = _new_head_of(config)
    change = Change(f"built head pack {head.name}", config.output)
    with held(config) as output:
        with change.stage("read"):
            main = read_finished(config.file)
            check_free(main, head.name)
        new, verification = _make(main, head, pictures, config, change)
        model, pack = head_pack(main.metadata, new.info, new.part)
        with output.draft(was_read=True) as draft:
            draft.write_bytes(append_members(model, pack))
            with change.stage("verify"), MultiHeadClassifier(config.file, head_packs=[draft]) as opened:
                quality = _judge(opened, new, verification, config, change)
            pack = replace(pack, quality={"heads": {head.name: quality.to_json()}})
            finish(draft, append_members(model, pack), pack, config, change)
    return change


def _new_head_of(config: GrowConfig) -> tuple[HeadConfig, Path]:
    """The new head, and the folder of samples to quantize it with."""
    if config.head is None or config.calibration_data is None:
        raise ConfigError("a new head needs a model and --calibration-data, pictures to quantize it with")
    check_early(config)
    start_original(config.head.model)
    return config.head, config.calibration_data


def _make(
    file: Finished, head: HeadConfig, pictures: Path, config: GrowConfig, change: Change
) -> tuple[NewHead, SampleSet]:
    with change.stage("import"):
        from builder.growing.new_head import load, made_and_answered  # imports TensorFlow
    with change.stage("load"):
        classifier = load(file, head, allow_code=config.allow_code, limits=config.limits)
    with change.stage("pictures"):
        names = [*(info.head_name for info in file.metadata.heads), head.name]
        calibration, verification = collect(pictures, config.verification_data, names, file.metadata.input)
        change.notes += verification.drawn(file.metadata.input.noun)
    with change.stage("head"):
        new = made_and_answered(file, classifier, calibration, verification, rounding=config.rounding)
    change.notes += new.notes
    titles = {info.head_name: info.title for info in file.metadata.heads}  # a replaced head keeps its title
    info = replace(new.info, title=head.title or titles.get(head.name, ""))
    return replace(new, info=info), verification


def _judge(
    opened: MultiHeadClassifier, new: NewHead, pictures: SampleSet, config: GrowConfig, change: Change
) -> HeadQuality:
    """Verify the new head. Raises ``QualityError`` where it fails."""
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
