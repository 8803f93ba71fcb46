"""All stages of a build, from model files to one ``.tflite``: read this first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from builder.boards.times import Times, times_for
from builder.judging.truth import Truth
from builder.judging.verify import Quality
from builder.material import Material
from builder.merging.backbone import find_backbone
from builder.merging.equivalence import check_equivalence
from builder.merging.merged import merge
from builder.merging.mixed_sources import of_one_kind
from builder.merging.seam_operators import seam_operators
from builder.merging.share import head_shares
from builder.merging.tolerance import align
from builder.precisions import try_precisions
from builder.quantizing.calibrate import calibrate
from builder.reading.early import check_early
from builder.reading.loading import load_classifiers, reading_options, start_original
from builder.reading.resizing import input_spec
from builder.reporting.notes import notes_of
from builder.reporting.report import Report
from builder.samples.gathered import collect_samples
from builder.settings.config import BuildConfig
from builder.support.files import Output, locked
from builder.support.progress import Stages
from builder.writing import check_kinds, check_places, write_judged, write_others
from edge_runtime.metadata import Metadata


@dataclass(frozen=True)
class BuildResult:
    """The result of a build.

    Attributes:
        output: The ``.tflite`` file.
        metadata: What its ``polyhead.json`` says.
        quality: How each head compares with its original on held-out samples.
        report: The content of ``report.json``, and the folder that it was written to.
    """

    output: Path
    metadata: Metadata
    quality: Quality
    report: Report


def build(config: BuildConfig, *, progress: TextIO | None = None, verbose: bool = False) -> BuildResult:
    """Build one file from classifiers that share a backbone.

    The output is replaced only after every head of the finished file has passed verification; after any error an
    existing output is unchanged.

    Args:
        config: What to build, from ``BuildConfig.from_toml`` or made in Python.
        progress: A terminal shows the stages as a bar, anything else a line for each; None shows nothing.
        verbose: Print a line for each stage with the time that it took.

    Returns:
        Where the file is, what is in it, and how its heads compare with their originals.

    Raises:
        ConfigError: The configuration contradicts itself.
        ModelFileError: A model file cannot be read, or is not a classifier.
        SamplesError: Pictures or texts are missing, or too many of them are broken.
        NoSharedBackboneError: The models share no backbone; the message names the first layer that differs.
        QualityError: A head failed verification.
        TargetError: The file needs a newer interpreter than its target has.
    """
    check_early(config)
    check_places(config)
    start_original(config.heads[0].model)
    config, times = config.as_possible(), times_for(config)
    with locked(config.output, wait=0) as output:
        return _build(config, output, times, Stages(progress, verbose=verbose))


def _build(config: BuildConfig, output: Output, times: Times, stages: Stages) -> BuildResult:
    """Run all stages. ``advance`` moves the progress bar of a stage."""
    with stages("read", len(config.heads)) as advance:
        classifiers = load_classifiers(config.heads, advance, **reading_options(config))
        check_kinds(config, classifiers)
    with stages("samples"):
        samples = collect_samples(config, input_spec(config, {c.name: c.source_input for c in classifiers}))
    with Truth(classifiers, samples.shown, samples.verification) as truth:  # the originals run in the background
        with stages("find", len(classifiers)) as advance:
            classifiers = of_one_kind(truth.settle_unclear(classifiers))
            classifiers, apart = align(classifiers, config.tolerance, advance)
            shared = find_backbone(classifiers)
        with stages("merge"):
            merged = merge(classifiers, shared)
            samples = samples.with_words() if merged.needs_words() else samples
        with stages("convert"):
            float_model = merged.float_model()
            operators = seam_operators(float_model, classifiers[0], shared.seams[0])
        calibrated = calibrate(config, merged, float_model, samples, stages)
        with stages("originals", len(classifiers)) as advance:
            classifiers = truth.settle(classifiers, advance)
            shown = truth.shown(samples.calibration)
            equivalence = check_equivalence(classifiers, merged, shown.tensors, truth.of_all(shown), apart=apart)
    material = Material(config, classifiers, shared, merged, calibrated, samples, truth, times, operators)
    with output.draft() as draft:
        tried = try_precisions(material, draft, stages)
        stages.precision = ""
        shares = head_shares(classifiers, shared)
        notes = notes_of(config, classifiers, shared, shares, samples, truth.notes)
        report = Report(config, times, tried, samples, equivalence, calibrated.beyond, notes, shares, stages.seconds)
        write_judged(report, draft)
    write_others(config, merged, report.metadata, stages)
    return BuildResult(config.output, report.metadata, report.quality, report)
