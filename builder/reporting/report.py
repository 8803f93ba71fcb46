"""The results of a build: figures, failures and warnings, and the document of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.boards.times import Times
from builder.joint import JointHead
from builder.judging.verify import MOST_DRIFT, Quality
from builder.merging.equivalence import Equivalence
from builder.merging.share import HeadShare
from builder.precisions import BuiltPrecision, SkippedPrecision, last_built
from builder.quantizing.coverage import MOST_BEYOND
from builder.reporting.made import made
from builder.reporting.verdicts import reason_of_failure
from builder.samples.calibration import SampleSet
from builder.samples.gathered import Samples
from builder.settings.config import BuildConfig
from builder.tflite.link import LinkedModel
from edge_runtime.counting import count_of
from edge_runtime.metadata import BACKBONE, Metadata

_NAMED = 12  # heads in a warning


@dataclass(frozen=True)
class Report:
    """The results of all stages of a build.

    Attributes:
        config: The settings of the build.
        times: Latencies of the board that the precision was chosen for.
        tried: Precisions in the order in which they were tried.
        samples: Calibration and verification samples.
        equivalence: The comparison of the merged float model with the originals.
        beyond: See ``coverage.beyond_calibration``.
        notes: What the user should know, a sentence each.
        shares: What each head costs.
        seconds: Wall time of each stage.
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
        """The size of the finished file."""
        return len(self.chosen.model)

    @property
    def noun(self) -> str:
        """``pictures``, ``texts`` or ``noise pictures``: the samples that the file was compared on."""
        return f"noise {self.metadata.input.noun}" if self.quality.noise else self.metadata.input.noun

    @property
    def planned_for(self) -> str:
        """The board whose latencies decided the precision."""
        return "; ".join(self.times.to_json().values())

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
        found += [] if self.quality.noise else [*self._always_the_same(), *self._drifting()]
        if self.beyond > MOST_BEYOND and not self.quality.noise:
            noun = self.noun
            found.append(
                f"the calibration {noun} look unlike the verification {noun}: {self.beyond:.0%} of the features of the "
                f"latter are larger than any of the former; calibrate with more {noun} like those the device will see"
            )
        for what, samples in (("calibration", self.calibration), ("verification", self.verification)):
            if samples.broken:
                noun = f"{what} {self.noun}"
                found.append(f"{count_of(len(samples.broken), noun)} left out: {'; '.join(samples.broken)}")
        found += self.verification.drawn(self.noun)
        if self.joint is not None:
            found += self.joint.notes
        elif self.config.joint.wanted(self.metadata.input.noun) and len(self.metadata.heads) > 1:
            found.append(f"no joint list of all labels: {self.chosen.joint_reason}")
        return found

    def _always_the_same(self) -> list[str]:
        """A warning for heads whose originals give one answer to every sample: agreement then proves little."""
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
            f"the original gives one and the same answer to all held-out {noun}: {named}; agreement then proves little; "
            f"check that there are {noun} of all labels and that preprocessing is as in training"
        ]

    def _drifting(self) -> list[str]:
        """A warning for heads that pass on their own samples by their answers alone, since their probabilities change."""
        heads = [q for q in self.quality.heads if q.own_pictures and q.drift > MOST_DRIFT]
        if not heads:
            return []
        named = ", ".join(f"{q.head_name} (by {q.drift:.3f} on average)" for q in heads[:_NAMED])
        named += f" and {len(heads) - _NAMED} more" if heads[_NAMED:] else ""
        return [
            f"probabilities differ from the original's, though the answers agree: {named}; if scores or thresholds "
            f"matter, calibrate with more {self.noun}, or choose a more accurate precision"
        ]

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of each part of the file; they add up to its size. Names with a space are not heads.

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
