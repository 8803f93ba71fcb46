"""Write the outputs of a build: the report always, other files only if every head passed verification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from builder.merging.merged import Merged
from builder.reading.checks import labels_file
from builder.reading.classifier import Classifier
from builder.reading.tflite.classifier import TfliteClassifier
from builder.reporting.report import Report
from builder.reporting.report_files import write_report
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError, QualityError
from builder.support.files import write_text, written
from builder.support.places import check_file
from builder.support.progress import Stages
from edge_runtime.metadata import Metadata


def check_places(config: BuildConfig) -> None:
    """Check before the work that all outputs can be written. Raises ``ConfigError``."""
    for path in (config.output, config.keras_output, config.report_folder / "report.json"):
        if path is not None:
            check_file(path)
    if config.saved_model is not None:
        from builder.exporting.saved_model import check_target  # imports TensorFlow

        check_target(config.saved_model, [head.name for head in config.heads])


def check_kinds(config: BuildConfig, classifiers: Sequence[Classifier]) -> None:
    """Raises ``ConfigError`` where a Keras model is wanted from ``.tflite`` sources."""
    wanted = [name for name in ("keras_output", "saved_model") if getattr(config, name) is not None]
    files = [c.name for c in classifiers if isinstance(c, TfliteClassifier)]
    if wanted and files:
        raise ConfigError(f"{wanted[0]}: head {files[0]} comes from a .tflite file, which cannot become a Keras model")


def write_judged(report: Report, draft: Path) -> None:
    """Write the report, and the file into ``draft``. Raises ``QualityError`` where a head failed."""
    write_report(report, report.config.report_folder)
    if report.failures:
        why = f"{'; '.join(report.failures)}. See {report.config.report_folder / 'index.html'}"
        raise QualityError(why, report.to_json())
    draft.write_bytes(report.chosen.model)


def write_others(config: BuildConfig, merged: Merged, metadata: Metadata, stages: Stages) -> None:
    """Write the merged model as ``.keras`` and as a SavedModel, where requested."""
    if config.keras_output is None and config.saved_model is None:
        return
    from builder.exporting.saved_model import export  # imports TensorFlow
    from builder.merging.merge import MergedModel

    assert isinstance(merged, MergedModel)  # check_kinds
    if config.keras_output is not None:
        with written(config.keras_output) as draft:
            merged.keras_model().save(draft)
        of_outputs = {head.head_name: list(head.labels) for head in metadata.heads}
        write_text(labels_file(config.keras_output), json.dumps(of_outputs, indent=2, ensure_ascii=False) + "\n")
    if config.saved_model is not None:
        with stages("serve"):
            labels = {head.head_name: head.labels for head in metadata.heads}
            export(merged, labels, metadata.input, config.saved_model)
