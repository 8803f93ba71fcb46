"""Notes on what a user may not expect of a build, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from builder.merging.backbone import SharedBackbone, early_difference
from builder.merging.share import HeadShare, share_sentences
from builder.reading.classifier import Classifier
from builder.reading.resizing import resize_notes
from builder.reading.text_input import text_notes
from builder.samples.gathered import Samples
from builder.settings.config import SAMPLE_FREE, BuildConfig

_WITHOUT_PICTURES = (
    "no calibration_data: only precisions that need none were tried ({kinds}), there is no joint list, and no head was "
    "verified on pictures: the file was compared with its originals on {count} pictures of noise. To get pictures, use "
    "Teachable Machine's project.tm (`builder init` unpacks it), `edge-runtime camera FILE --record 200 DIR`, or the "
    "folder that the models were trained on; then set calibration_data"
)


def notes_of(
    config: BuildConfig,
    classifiers: Sequence[Classifier],
    shared: SharedBackbone,
    shares: Sequence[HeadShare],
    samples: Samples,
    others: Sequence[str],
) -> tuple[str, ...]:
    """All notes of a build. ``others``: notes from elsewhere."""
    found = [*(f"{classifier.name}: {note}" for classifier in classifiers for note in classifier.notes), *others]
    found += resize_notes(config.resize, {c.name: c.source_input for c in classifiers})
    if config.calibration_data is None:
        found.insert(0, _WITHOUT_PICTURES.format(count=len(samples.verification.tensors), kinds=", ".join(SAMPLE_FREE)))
    early = early_difference(classifiers, shared)
    if early is not None:
        found += share_sentences([share for share in shares if share.is_early])
        found.append(f"the first layer that differs is {early[2]}")
    return (*found, *text_notes(samples.spec, config.text, samples.calibration.samples))
