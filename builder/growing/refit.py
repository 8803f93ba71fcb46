"""Fit the joint list of a finished file again, to other heads."""

from __future__ import annotations

from pathlib import Path

from builder.growing.finished import Finished, Heads
from builder.joint import JointHead, fit_joint, grouped_samples
from builder.samples.calibration import SampleSet
from builder.settings.config import JointConfig
from edge_runtime.metadata import BACKBONE


def joint_again(
    before: Finished, heads: Heads, calibration_data: Path, held_out: SampleSet | None
) -> tuple[JointHead | None, list[str]]:
    """The joint head for a file that had one, or None; and notes for the user."""
    table, names = before.metadata.joint, list(heads)
    if table is None:
        return None, []
    chosen = JointConfig(
        enabled=True,
        merge_labels=bool(table.get("merge_labels")),
        false_alarm=table.get("false_alarm", 0.05),
        everyday=bool(table.get("everyday")),
    )
    spec, forbidden = before.metadata.input, () if held_out is None else held_out.sources
    samples = grouped_samples(calibration_data, names, spec, forbidden)
    parts = {BACKBONE: before.parts[BACKBONE], **{name: part for name, (_, part) in heads.items()}}
    found, reason = fit_joint(chosen, spec, parts, [info for info, _ in heads.values()], samples, held_out=held_out)
    if found is None:
        return None, [f"the joint list is dropped: {reason}"]
    return found, [f"the joint list was fitted again, on {sum(found.pictures.values())} {spec.noun}", *found.notes]
