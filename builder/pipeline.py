"""The way through, from Keras files to one ``.tflite``: read this first."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from builder.backbone import SharedBackbone, early_difference, find_backbone
from builder.calibration import PictureSet, collect
from builder.config import BuildConfig
from builder.convert import convert
from builder.equalize import equalized
from builder.errors import ConfigError, QualityError
from builder.joint import grouped_pictures
from builder.ladder import Material, climb, last_built
from builder.link import LinkedModel
from builder.loading import Classifier, load_classifiers
from builder.merge import MergedModel, merge
from builder.progress import Stages
from builder.proof import LOOSE_TOLERANCE, TOLERANCE, prove, to_prove
from builder.quantize import pin
from builder.ranges import measure_ranges
from builder.report import Report, write_report
from builder.tolerance import align
from builder.verify import Quality
from edge_runtime import __version__
from edge_runtime.metadata import HeadInfo, ImageInput, Metadata

_PROOF_PICTURES = 4
_EQUALIZING_PICTURES = 64


@dataclass(frozen=True)
class BuildResult:
    """What a build made. ``report``: what ``report.json`` holds, and the folder it was written to."""

    output: Path
    metadata: Metadata
    quality: Quality
    report: Report


def build(config: BuildConfig, *, progress: TextIO | None = None) -> BuildResult:
    """Run every stage. ``progress``: a terminal that shows it.

    The output is replaced only after the finished bytes were verified and passed the gate.
    Raises ``BuilderError``; then an existing output is as it was.
    """
    _check_writable(config)
    stages = Stages(progress)
    with stages("load", len(config.heads)) as advance:
        classifiers = load_classifiers(config.heads, advance, allow_code=config.allow_code)
    with stages("find", len(classifiers)) as advance:
        classifiers, apart = align(classifiers, config.tolerance, advance)
        shared = find_backbone(classifiers)
    with stages("pictures"):
        spec = _input_spec(config, classifiers)
        calibration, verification = collect(config, spec)
        grouped = grouped_pictures(config, verification.sources)
    with stages("merge"):
        merged = merge(classifiers, shared)
    proven = to_prove(classifiers)
    with stages("prove", len(proven)) as advance:
        limit = LOOSE_TOLERANCE if apart else TOLERANCE
        proof = prove(proven, merged, calibration.pixels[:_PROOF_PICTURES], advance, tolerance=limit)
    with stages("convert"):
        float_model = convert(merged)
    images = merged.device_input(calibration.pixels)
    if config.equalize:
        with stages("equalize", _EQUALIZING_PICTURES) as advance:
            float_model = equalized(float_model, images[:_EQUALIZING_PICTURES], advance)
    with stages("calibrate", len(calibration.pixels) * (1 + len(merged.heads))) as advance:
        ranges = measure_ranges(float_model, images, merged.heads, advance, estimate=config.ranges)
    infos = tuple(HeadInfo(c.name, c.labels, merged.activations[c.name]) for c in classifiers)
    material = Material(
        config=config,
        merged=merged,
        float_model=float_model,
        ranges=pin(float_model, ranges, merged.pixels),
        calibration=calibration,
        verification=verification,
        grouped=grouped,
        spec=spec,
        heads=infos,
        describe=lambda linked: _metadata(config, merged, shared, linked, spec, infos, calibration),
    )
    with _temporary_beside(config.output) as draft:
        tried = climb(material, draft, stages)
        rung = last_built(tried)
        report = Report(
            config=config,
            tried=tried,
            rung=rung,
            calibration=calibration,
            verification=verification,
            proof=proof,
            apart=apart,
            notes=_notes(classifiers, shared),
            seconds=stages.seconds,
        )
        write_report(report, config.report_folder)
        if report.failures:
            raise QualityError(f"{'; '.join(report.failures)}. See {config.report_folder / 'index.html'}")
        draft.write_bytes(rung.model)
        draft.replace(config.output)
    if config.keras_output is not None:
        with _temporary_beside(config.keras_output) as draft:
            merged.keras_model().save(draft)
            draft.replace(config.keras_output)
    return BuildResult(config.output, rung.metadata, rung.quality, report)


def _input_spec(config: BuildConfig, classifiers: tuple[Classifier, ...]) -> ImageInput:
    height, width = classifiers[0].size
    resize = config.resize
    known = {c.fit: c.name for c in classifiers if c.fit is not None}
    if resize.fit is None and len(known) > 1:
        (one, name), (other, other_name) = list(known.items())[:2]
        raise ConfigError(f"{name} was trained on pictures made to fit by {one}, {other_name} by {other}; set resize.fit")
    fit = resize.fit or next(iter(known), "stretch")
    return ImageInput(height, width, method=resize.method, antialias=resize.antialias, fit=fit)


def _notes(classifiers: tuple[Classifier, ...], shared: SharedBackbone) -> tuple[str, ...]:
    """What a user would not expect."""
    notes = tuple(f"{classifier.name}: {note}" for classifier in classifiers for note in classifier.notes)
    found = early_difference(classifiers, shared)
    if found is None:
        return notes
    index, own, difference = found
    return (
        *notes,
        f"{classifiers[index].name} has {own:,} parameters of its own beside {shared.parameters:,} shared ones: the "
        f"models part at {difference}",
    )


def _metadata(
    config: BuildConfig,
    merged: MergedModel,
    shared: SharedBackbone,
    linked: LinkedModel,
    spec: ImageInput,
    infos: tuple[HeadInfo, ...],
    calibration: PictureSet,
) -> Metadata:
    heads = tuple(replace(info, bytes=linked.head_bytes[info.head_name]) for info in infos)
    built = {
        "rounding": config.rounding,
        "ranges": config.ranges,
        "equalize": config.equalize,
        "parameters": shared.parameters,
        "calibration_pictures": len(calibration.pixels),
        "polyhead": __version__,
        **{name: version(name) for name in ("tensorflow", "keras", "litert-quantizer")},
    }
    return Metadata(
        spec, merged.digest, linked.seam, heads, len(linked.model), linked.scores, linked.min_runtime, built=built
    )


def _check_writable(config: BuildConfig) -> None:
    """An hour's work must not end at a folder that cannot be written."""
    for path in (config.output, config.keras_output, config.report_folder / "report.json"):
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise ConfigError(
                f"{path}: its folder cannot be written ({error.strerror}); choose another output"
            ) from error
    if config.output.is_dir():
        raise ConfigError(f"{config.output}: expected a file to write, found a folder")


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """A name on the same disk with the same suffix; whatever happens, nothing is left there."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
