"""Report all mistakes in the files that a configuration names at once, before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from builder.reading.checks import read_labels
from builder.reading.loading import preprocessing_unsaid
from builder.reading.outputs import wrong_count
from builder.reading.peek import has_labels_beside, peek
from builder.samples.files import TEXT_SUFFIXES
from builder.settings.config import BuildConfig
from builder.settings.growing import GrowConfig
from builder.settings.heads import HeadConfig
from builder.support.errors import BuilderError, ConfigError, ModelFileError, SamplesError
from builder.support.naming import head_setting, model_setting, setting
from edge_runtime.preprocess import PICTURE_SUFFIXES

_SAMPLES = (*PICTURE_SUFFIXES, *TEXT_SUFFIXES)


def check_early(config: BuildConfig | GrowConfig) -> None:
    """Check for missing files, wrong numbers of labels, and unknown input scaling.

    Slower checks are left to the stages that read. Raises ``ModelFileError``, ``SamplesError`` or, also for several kinds
    of mistakes, ``ConfigError``, with a line for each mistake.
    """
    found = list(_mistakes(config))
    kinds = {type(error) for error in found}
    if found:
        lines = dict.fromkeys(map(str, found))
        raise (kinds.pop() if len(kinds) == 1 else ConfigError)("\n".join(lines))


def _mistakes(config: BuildConfig | GrowConfig) -> Iterator[BuilderError]:
    building = isinstance(config, BuildConfig)
    for head in config.heads if isinstance(config, BuildConfig) else filter(None, (config.head,)):
        yield from _of_head(head, building=building)
    for key in ("calibration_data", "verification_data"):
        yield from _of_folder(key, getattr(config, key))
    vocabulary = config.text.vocabulary if isinstance(config, BuildConfig) and config.text is not None else None
    if vocabulary is not None and not vocabulary.is_file():
        yield ConfigError(f"{setting('text.vocabulary')}: {vocabulary}: no such file")


def _of_head(head: HeadConfig, *, building: bool) -> Iterator[BuilderError]:
    """``building``: there is no finished file that defines the input scaling."""
    if not head.model.exists():
        yield ModelFileError(f"{model_setting(head.name, str(head.model))}: no such model file")
    found = peek(head.model)
    if found is not None and building and head.preprocessing is None and found.is_silent:
        yield preprocessing_unsaid(head, found.application)
    try:
        labels = _labels(head)
    except BuilderError as error:
        yield error
        return
    wrong = wrong_count(found.outputs, len(labels)) if found is not None and found.outputs and labels else ""
    if wrong:
        yield ConfigError(f"{head_setting(head.name, 'labels')}: {head.model.name}: {wrong}")


def _labels(head: HeadConfig) -> tuple[str, ...]:
    """The configured labels; empty where they come with the model. Raises ``ConfigError``."""
    comes_with_it = head.model.is_dir() or head.model.suffix in (".zip", ".tflite") or has_labels_beside(head.model)
    if head.labels is None and (comes_with_it or not head.model.exists()):
        return ()
    if isinstance(head.labels, Path) and not head.labels.exists():
        raise ConfigError(f"{head_setting(head.name, 'labels')}: {head.labels}: no such file; expected one label a line")
    return read_labels(head)


def _of_folder(key: str, folder: Path | None) -> Iterator[BuilderError]:
    if folder is None:
        return
    if not folder.is_dir():
        what = "found a file" if folder.exists() else "no such folder"
        yield SamplesError(f"{setting(key)}: {folder}: {what}; expected a folder of pictures or texts")
    elif not any(path.suffix.lower() in _SAMPLES for path in folder.rglob("*")):
        yield SamplesError(
            f"{setting(key)}: {folder}: expected pictures ({', '.join(PICTURE_SUFFIXES)}) or texts (.txt), found none"
        )
