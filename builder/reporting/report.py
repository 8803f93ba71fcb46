"""What a build did, for a person and for a program: a table, ``report.json``, and one page with plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from builder.boards.times import Times
from builder.joint import JointHead
from builder.judging.verify import Quality
from builder.merging.equivalence import Equivalence
from builder.merging.share import HeadShare, percent, share_sentences
from builder.precisions import BuiltPrecision, SkippedPrecision, last_built
from builder.quantizing.coverage import MOST_BEYOND
from builder.reporting.made import made, made_lines
from builder.reporting.report_page import Page, Worst, render
from builder.reporting.verdicts import caption, marked_agreement, reason_of_failure
from builder.samples.calibration import SampleSet
from builder.samples.gathered import Samples
from builder.settings.config import BuildConfig
from builder.support.files import write_text
from builder.support.plain import plain
from builder.tflite.link import LinkedModel
from edge_runtime.escape import printable
from edge_runtime.metadata import BACKBONE, Metadata

_NAMED = 12  # heads in a warning
_ROWS = 24  # heads in the table on a terminal


@dataclass(frozen=True)
class Report:
    """Everything the stages found out.

    ``notes``: what the user should know, a sentence each. ``shares``: what each head costs. ``beyond``: see
    ``coverage.beyond_calibration``. ``tried``: precisions in the order they were tried. ``times``: of the board
    that was planned for.
    """

    config: BuildConfig
    times: Times
    tried: Sequence[BuiltPrecision | SkippedPrecision]
    samples: Samples
    equivalence: Equivalence
    beyond: float
    notes: tuple[str, ...]
    shares: Sequence[HeadShare]
    seconds: Mapping[str, float]

    @property
    def chosen(self) -> BuiltPrecision:
        """The precision that was taken."""
        return last_built(self.tried)

    @property
    def calibration(self) -> SampleSet:
        return self.samples.calibration

    @property
    def verification(self) -> SampleSet:
        return self.samples.verification

    @property
    def metadata(self) -> Metadata:
        return self.chosen.metadata

    @property
    def quality(self) -> Quality:
        return self.chosen.quality

    @property
    def linked(self) -> LinkedModel:
        return self.chosen.linked

    @property
    def joint(self) -> JointHead | None:
        return self.chosen.joint

    @property
    def file_bytes(self) -> int:
        """Of the finished file."""
        return len(self.chosen.model)

    @property
    def noun(self) -> str:
        """What the samples are called that the file was compared on."""
        return f"noise {self.metadata.input.noun}" if self.quality.noise else self.metadata.input.noun

    @property
    def failures(self) -> list[str]:
        """Heads that failed verification, with the reason."""
        bar, noun, by_name = self.config.min_agreement, self.noun, len(self.config.precisions) == 1
        return [
            reason_of_failure(q, bar, noun, precision=self.chosen.precision, chosen_by_name=by_name)
            for q in self.quality.heads
            if not q.passes(bar)
        ]

    @property
    def warnings(self) -> list[str]:
        bar, found = self.config.min_agreement, list(self.notes)
        few = [f"{q.head_name} ({q.pictures})" for q in self.quality.heads if not q.can_tell(bar)]
        if few and not self.quality.noise:
            named = ", ".join(few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if few[_NAMED:] else "")
            found.append(f"too few held-out {self.noun} to prove an agreement of {bar:g}: {named}")
        found += [] if self.quality.noise else self._always_the_same()
        if self.beyond > MOST_BEYOND and not self.quality.noise:
            noun = self.noun
            found.append(
                f"the calibration {noun} look unlike the verification {noun}: {self.beyond:.0%} of the features of these "
                f"are larger than any that those gave; calibrate with more {noun}, like those that the device will see"
            )
        for what, samples in (("calibration", self.calibration), ("verification", self.verification)):
            if samples.broken:
                noun = f"{what} {self.noun}"
                found.append(f"{len(samples.broken)} {noun} left out: {'; '.join(samples.broken)}")
        found += self.verification.drawn(self.noun)
        if self.joint is not None:
            found += self.joint.notes
        elif self.config.joint.wanted(self.metadata.input.noun) and len(self.metadata.heads) > 1:
            found.append(f"no joint list of all labels: {self.chosen.joint_reason}")
        return found

    def _always_the_same(self) -> list[str]:
        """Heads whose originals give one answer to everything: that the file agrees says little then."""
        labels = {head.head_name: head.labels for head in self.metadata.heads}
        same = [
            f"{q.head_name} ({labels[q.head_name][q.always]!r} on {q.pictures})"
            for q in self.quality.heads
            if q.always is not None
        ]
        if not same:
            return []
        named = ", ".join(same[:_NAMED]) + (f" and {len(same) - _NAMED} more" if same[_NAMED:] else "")
        noun = self.noun
        return [
            f"one and the same answer to all held-out {noun}, from the original too: {named}; agreement says nothing: "
            f"are these {noun} of all its labels, and do they enter the model as in its training?"
        ]

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Adds up to the size of the file; names with a space are no heads.

        The end-to-end tables include the signatures and the buffers' headers.
        """
        parts = {BACKBONE: self.linked.backbone_bytes, **self.linked.head_bytes}
        if self.linked.joint_bytes:
            parts["joint head"] = self.linked.joint_bytes
        return {
            **parts,
            "end-to-end tables": len(self.linked.model) - sum(parts.values()),
            "zip members": self.file_bytes - len(self.linked.model),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.config.output),
            "passed": not self.failures,
            "failures": self.failures,
            "warnings": self.warnings,
            "summary": made(self.config, self.tried),
            "saved_model": None if self.config.saved_model is None else str(self.config.saved_model),
            "bytes": {"whole file": self.file_bytes, **self.bytes_by_part},
            "backbone": {
                "digest": self.metadata.backbone_digest,
                "features": list(self.metadata.seam[0].shape),
                "parameters": self.metadata.built["parameters"],
            },
            "heads": {
                share.name: {
                    "bytes": self.linked.head_bytes[share.name],
                    "parameters": share.parameters,
                    "multiply_adds": share.work,
                    "share_of_work": share.work_share,
                }
                for share in self.shares
            },
            "equivalence": {
                "largest_float_difference": self.equivalence.difference,
                "models_run": self.equivalence.models,
                "pictures": self.equivalence.samples,
                "weights_apart": self.equivalence.apart,
            },
            "calibration": {
                "pictures": self.metadata.built[f"calibration_{self.metadata.input.noun}"],
                "broken": list(self.calibration.broken),
                "verification_beyond": round(self.beyond, 4),
            },
            "verification": {
                "pictures": len(self.verification.tensors),
                "found": self.verification.found,
                "broken": list(self.verification.broken),
                "min_agreement": self.config.min_agreement,
                **self.quality.to_json(),
            },
            "joint": {"reason": self.chosen.joint_reason} if self.joint is None else self.joint.to_json(),
            "precision": self.chosen.precision,
            "planned_for": self.times.to_json(),
            "precisions": [built.to_json() for built in self.tried],
            "layers": [layer.to_json() for layer in self.chosen.noise],
            "seconds": {stage: round(s, 2) for stage, s in self.seconds.items()},
            "versions": {k: v for k, v in self.metadata.built.items() if isinstance(v, str)},
        }


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``index.html`` into ``folder``, each whole or not at all."""
    files = {
        "report.json": json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n",
        "index.html": render(_page(report)),
    }
    for name, text in files.items():
        write_text(folder / name, text)


def print_summary(report: Report) -> None:
    """The table on standard output; warnings on standard error."""
    table = Table(
        title=f"{plain(report.config.output)}  {report.file_bytes:,} bytes", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in ("head", "bytes", report.noun, "agreement", "95 % interval", "drift", "max"):
        table.add_column(column, justify="left" if column == "head" else "right")
    ordered = sorted(zip(report.metadata.heads, report.quality.heads, strict=True), key=lambda pair: pair[1].agreement)
    shown = ordered[:_ROWS] if len(ordered) > _ROWS else zip(report.metadata.heads, report.quality.heads, strict=True)
    bar = report.config.min_agreement
    for head, q in shown:
        interval = f"{q.interval[0]:.3f} to {q.interval[1]:.3f}"
        numbers = (
            f"{head.bytes:,}",
            str(q.pictures),
            marked_agreement(q, bar),
            interval,
            f"{q.drift:.4f}",
            f"{q.max_drift:.4f}",
        )
        table.add_row(head.head_name, *numbers)
    if len(ordered) > _ROWS:
        mean = sum(q.agreement for q in report.quality.heads) / len(ordered)
        table.caption = f"the {_ROWS} heads that agree least; mean agreement of all {len(ordered)}: {mean:.3f}"
    Console(width=None if Console().is_terminal else 120).print(table)
    for line in caption(list(report.quality.heads), bar, report.metadata.input.noun):
        print(line)
    total = sum(report.seconds.values())
    print(
        f"{report.chosen.title}; backbone {report.metadata.backbone_digest[:19]}, "
        f"{report.metadata.built['parameters']:,} parameters, "
        f"{report.linked.backbone_bytes:,} bytes, stored once; features {report.quality.features_snr_db:.1f} dB; "
        f"built in {total:.1f} s"
    )
    if len(report.tried) > 1:
        print(f"planned for {_board_text(report.times)}")
        print("\n".join(_precision_line(tried, report.times.name) for tried in report.tried))
    if report.joint is not None:
        print(f"joint list: {joint_line(report.joint)}")
    for warning in report.warnings:
        click.secho(printable(f"warning: {warning}"), fg="yellow", err=True)
    print()
    for line in made_lines(report.config, report.tried):
        print(line)


def _precision_line(tried: BuiltPrecision | SkippedPrecision, board: str) -> str:
    if isinstance(tried, SkippedPrecision):
        return f"{tried.precision}: left out: {tried.reason}"
    return (
        f"{tried.title}: agreement {tried.quality.agreement:.3f}, features {tried.quality.features_snr_db:.1f} dB, "
        f"{len(tried.model):,} bytes, backbone {tried.backbone_ms:.2f} ms on {board} where float takes "
        f"{tried.float_ms:.2f}"
    )


def _page(report: Report) -> Page:
    worst = []
    for head, q in zip(report.metadata.heads, report.quality.heads, strict=True):
        for c in q.worst:
            answers = [
                f"{head.labels[int(scores.argmax())]} {float(scores.max()):.2f}"
                for scores in (c.float_scores, c.file_scores)
            ]
            source = report.verification.sources[c.picture]
            worst.append(
                Worst(
                    head.head_name,
                    source.name,
                    report.verification.sample(c.picture),
                    answers[0],
                    answers[1],
                    c.drift,
                    c.agrees,
                )
            )
    worst.sort(key=lambda w: (w.agrees, -w.drift))
    return Page(
        made=made(report.config, report.tried),
        title=report.config.output.name,
        facts=_facts(report),
        noun=report.noun,
        failures=report.failures,
        warnings=report.warnings,
        bytes_by_part=report.bytes_by_part,
        heads=report.quality.heads,
        costs={share.name: _cost(report, share) for share in report.shares},
        captions=caption(list(report.quality.heads), report.config.min_agreement, report.metadata.input.noun),
        min_agreement=report.config.min_agreement,
        worst=tuple(worst[:18]),
        noise=report.chosen.noise,
        precisions=_precisions(report),
        seconds=report.seconds,
    )


def _cost(report: Report, share: HeadShare) -> tuple[str, str]:
    """Bytes in the file, and share of the work."""
    work = share.work_share
    return f"{report.linked.head_bytes[share.name]:,}", "" if work is None else percent(work)


def _precisions(report: Report) -> list[tuple[str, ...]]:
    """A row for each precision that was tried, as ``report_page.PRECISION_COLUMNS``."""
    rows: list[tuple[str, ...]] = []
    for tried in report.tried:
        if isinstance(tried, SkippedPrecision):
            rows.append((tried.precision, tried.reason))
            continue
        worst = min(tried.quality.heads, key=lambda q: q.agreement)
        rows.append(
            (
                tried.title,
                f"{tried.quality.agreement:.3f}",
                f"{worst.agreement:.3f} ({worst.head_name})",
                f"{tried.quality.features_snr_db:.1f}",
                f"{len(tried.model):,}",
                f"{tried.backbone_ms:.2f}",
                f"{tried.backbone_ms / tried.float_ms:.2f}",
                ".".join(map(str, tried.linked.min_runtime)),
            )
        )
    return rows


def _seam_text(metadata: Metadata) -> str:
    return " and ".join(" x ".join(map(str, tensor.shape)) for tensor in metadata.seam)


def _equivalence_text(found: Equivalence) -> str:
    loose = f"; weights up to {found.apart:.2g} apart taken as equal" if found.apart else ""
    return f"all {found.models} originals run: at most {found.difference:.1g} from the merged model in float{loose}"


def _facts(report: Report) -> list[tuple[str, str]]:
    metadata, noun = report.metadata, report.noun
    return [
        ("verification", "a head failed" if report.failures else "passed"),
        ("precision", report.chosen.title),
        ("file", f"{report.file_bytes:,} bytes, {len(metadata.heads)} heads"),
        (
            "backbone",
            f"{metadata.built['parameters']:,} parameters, {report.linked.backbone_bytes:,} bytes, stored once",
        ),
        ("each head", "; ".join(share_sentences(report.shares))),
        ("digest", metadata.backbone_digest),
        ("features", f"{_seam_text(metadata)}, {report.quality.features_snr_db:.1f} dB signal to noise"),
        ("input", str(metadata.input)),
        ("equivalence", _equivalence_text(report.equivalence)),
        ("runs on", f"TensorFlow Lite {'.'.join(map(str, metadata.min_runtime))} and newer"),
        (
            "calibration",
            "no pictures were given"
            if report.quality.noise
            else f"{len(report.calibration.tensors)} {noun}, {len(report.calibration.broken)} broken",
        ),
        ("held out", f"{len(report.verification.tensors)} {noun} that calibrated nothing"),
        ("planned for", _board_text(report.times)),
        ("joint list", joint_line(report.joint, report.chosen.joint_reason)),
    ]


def _board_text(times: Times) -> str:
    return "; ".join(times.to_json().values())


def joint_line(joint: JointHead | None, reason: str = "") -> str:
    """What became of the joint list, in a line; ``reason``: why there is none."""
    if joint is None:
        return f"none: {reason}"
    count = sum(joint.pictures.values())
    line = f"{len(joint.layout.labels)} labels, learned from {count} pictures; of no head below {joint.threshold}"
    if joint.unknown is None:
        return line
    return f"{line}; AUROC {joint.unknown.auroc:.3f} against {joint.unknown.against}"
