"""The way through, from Keras files to one ``.tflite``: read this first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from builder.joint import grouped_samples
from builder.judging.verify import Quality
from builder.merging.backbone import SharedBackbone, early_difference, find_backbone
from builder.merging.equivalence import LOOSE_TOLERANCE, TOLERANCE, prove, to_prove
from builder.merging.merged import Merged, merge
from builder.merging.tolerance import align
from builder.precisions import Material, last_built, try_precisions
from builder.quantizing.coverage import SAMPLES, beyond_calibration
from builder.quantizing.equalize import equalized
from builder.quantizing.quantize import pin
from builder.quantizing.ranges import HEAD_SAMPLES, measure_ranges
from builder.reading.classifier import Classifier, load_classifiers
from builder.reading.picture_input import PictureSourceInput
from builder.reading.text_input import text_notes
from builder.reading.tflite.classifier import FOLDING, TfliteClassifier
from builder.reporting.identity import identity_of
from builder.reporting.progress import Stages
from builder.reporting.report import Report, write_report
from builder.samples.calibration import SampleSet, collect
from builder.settings.config import OWN, BuildConfig
from builder.support.errors import ConfigError, QualityError
from builder.support.files import Output, locked, written
from builder.support.places import check_file
from builder.tflite.link import LinkedModel
from edge_runtime import __version__
from edge_runtime.identity import Identity
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import HeadInfo, Metadata
from edge_runtime.text import TextInput

_PROOF_SAMPLES = 4
_EQUALIZING_SAMPLES = 64


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
    _check_places(config)
    with locked(config.output, wait=0) as output:
        return _build(config, output, progress)


def _build(config: BuildConfig, output: Output, progress: TextIO | None) -> BuildResult:
    stages = Stages(progress)
    with stages("load", len(config.heads)) as advance:
        classifiers = load_classifiers(
            config.heads, advance, allow_code=config.allow_code, limits=config.limits, text=config.text
        )
    _check_kinds(config, classifiers)
    with stages("find", len(classifiers)) as advance:
        classifiers, apart = align(classifiers, config.tolerance, advance)
        shared = find_backbone(classifiers)
    with stages("samples"):
        spec = _input_spec(config, classifiers)
        names = [head.name for head in config.heads]
        calibration, verification = collect(config.calibration_data, config.verification_data, names, spec)
        held_out = verification.sources
        grouped = grouped_samples(config.calibration_data, names, spec, held_out) if config.joint.enabled else []
    with stages("merge"):
        merged = merge(classifiers, shared)
        if isinstance(spec, TextInput) and merged.needs_words():
            spec = replace(spec, needs_words=True)
            calibration, verification = calibration.with_words(), verification.with_words()
    proven = to_prove(classifiers)
    with stages("prove", len(proven)) as advance:
        limit = LOOSE_TOLERANCE if apart > FOLDING else TOLERANCE
        few = calibration.first(_PROOF_SAMPLES)
        proof = prove(proven, merged, few.tensors, advance, samples=few.samples, tolerance=limit)
    with stages("convert"):
        float_model = merged.float_model()
    inputs, count = merged.source_input.device_input(calibration.tensors), len(calibration.tensors)
    own = config.algorithm == OWN
    if config.equalize and own:
        with stages("equalize", _EQUALIZING_SAMPLES) as advance:
            float_model = equalized(float_model, inputs[:_EQUALIZING_SAMPLES], advance)
    with stages("calibrate", count + min(count, HEAD_SAMPLES) * len(merged.heads)) as advance:
        ranges = measure_ranges(float_model, inputs, merged.heads, advance, estimate=config.ranges if own else "minmax")
    seen = merged.source_input.device_input(verification.tensors[:SAMPLES])
    with stages("compare", min(count, SAMPLES) + len(seen)) as advance:
        beyond = beyond_calibration(float_model, inputs, seen, advance)
    identity = identity_of(config, calibration.sources)
    infos = tuple(HeadInfo(c.name, c.labels, merged.activations[c.name]) for c in classifiers)
    material = Material(
        config=config,
        merged=merged,
        float_model=float_model,
        ranges=pin(float_model, ranges, merged.source_input.input_range),
        calibration=calibration,
        verification=verification,
        grouped=grouped,
        spec=spec,
        heads=infos,
        describe=lambda linked: _metadata(
            config, merged, shared, linked, spec, infos, calibration, identity, classifiers
        ),
    )
    with output.draft() as draft:
        tried = try_precisions(material, draft, stages)
        chosen = last_built(tried)
        report = Report(
            config=config,
            tried=tried,
            chosen=chosen,
            calibration=calibration,
            verification=verification,
            proof=proof,
            apart=apart,
            beyond=beyond,
            notes=(*_notes(classifiers, shared), *text_notes(spec, config.text, calibration.samples)),
            seconds=stages.seconds,
        )
        write_report(report, config.report_folder)
        if report.failures:
            raise QualityError(f"{'; '.join(report.failures)}. See {config.report_folder / 'index.html'}")
        draft.write_bytes(chosen.model)
    if config.keras_output is not None or config.saved_model is not None:
        _write_keras(config, merged, spec, {c.name: c.labels for c in classifiers}, stages)
    return BuildResult(config.output, chosen.metadata, chosen.quality, report)


def _write_keras(
    config: BuildConfig, merged: Merged, spec: InputSpec, labels: Mapping[str, Sequence[str]], stages: Stages
) -> None:
    from builder.exporting.saved_model import export
    from builder.merging.merge import MergedModel

    assert isinstance(merged, MergedModel)  # _check_kinds
    if config.keras_output is not None:
        with written(config.keras_output) as draft:
            merged.keras_model().save(draft)
    if config.saved_model is not None:
        with stages("serve"):
            export(merged, labels, spec, config.saved_model)


def _check_kinds(config: BuildConfig, classifiers: Sequence[Classifier]) -> None:
    """What was read from a ``.tflite`` is no Keras model. Raises ``ConfigError``."""
    wanted = [name for name in ("keras_output", "saved_model") if getattr(config, name) is not None]
    files = [c.name for c in classifiers if isinstance(c, TfliteClassifier)]
    if wanted and files:
        raise ConfigError(f"{wanted[0]}: head {files[0]} comes from a .tflite file, of which no Keras model can be made")


def _input_spec(config: BuildConfig, classifiers: tuple[Classifier, ...]) -> InputSpec:
    """What the device takes; of the ways to make pictures fit, the one that any model file knows."""
    known = {
        c.source_input.fit: c
        for c in classifiers
        if isinstance(c.source_input, PictureSourceInput) and c.source_input.fit is not None
    }
    if config.resize.fit is None and len(known) > 1:
        (one, first), (other, second) = list(known.items())[:2]
        raise ConfigError(
            f"{first.name} was trained on pictures made to fit by {one}, {second.name} by {other}; set resize.fit"
        )
    return next(iter(known.values()), classifiers[0]).source_input.spec(config)


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
    merged: Merged,
    shared: SharedBackbone,
    linked: LinkedModel,
    spec: InputSpec,
    infos: tuple[HeadInfo, ...],
    calibration: SampleSet,
    identity: Identity,
    classifiers: Sequence[Classifier],
) -> Metadata:
    heads = tuple(replace(info, bytes=linked.head_bytes[info.head_name]) for info in infos)
    built = {
        **_method(config),
        "parameters": shared.parameters,
        f"calibration_{spec.noun}": len(calibration.tensors),
        "polyhead": __version__,
        "sources": {c.name: c.kind for c in classifiers},
        **_versions(classifiers),
    }
    seam = tuple(replace(tensor, digest=shared.digests[tensor.name]) for tensor in linked.seam)
    return Metadata(
        spec,
        merged.digest,
        seam,
        heads,
        len(linked.model),
        linked.scores,
        linked.min_runtime,
        built=built,
        identity=identity,
    )


def _versions(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """Of the libraries that had a part in it; where all sources are ``.tflite`` there may be no TensorFlow."""
    files_alone = all(isinstance(c, TfliteClassifier) for c in classifiers)
    names = ("litert-quantizer",) if files_alone else ("tensorflow", "keras", "litert-quantizer")
    return {name: version(name) for name in names}


def _method(config: BuildConfig) -> dict[str, Any]:
    if config.algorithm != OWN:
        return {"algorithm": config.algorithm, "rounding": "nearest"}
    return {key: getattr(config, key) for key in ("rounding", "refit", "ranges", "equalize")}


def _check_places(config: BuildConfig) -> None:
    """An hour's work must not end at a folder that cannot be written."""
    for path in (config.output, config.keras_output, config.report_folder / "report.json"):
        if path is not None:
            check_file(path)
    if config.saved_model is not None:
        from builder.exporting.saved_model import check_target

        check_target(config.saved_model, [head.name for head in config.heads])
