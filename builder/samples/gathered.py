"""All samples of a build, preprocessed to the device's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from builder.joint import grouped_samples
from builder.samples.calibration import SampleSet, collect
from builder.samples.files import Sample
from builder.samples.noise import noise_sets
from builder.settings.config import BuildConfig
from edge_runtime.inputs import InputSpec
from edge_runtime.text import TextInput

_SHOWN = {"pictures": 4, "texts": 16}  # samples that every original runs on besides its own; some texts may have no words


@dataclass(frozen=True)
class Samples:
    """``spec``: the device's input. ``grouped``: samples for the joint head, each in the folder of its head."""

    spec: InputSpec
    calibration: SampleSet
    verification: SampleSet
    grouped: Sequence[Sample]

    @property
    def shown(self) -> SampleSet:
        """A few samples on which the merged model is compared with every original."""
        return self.calibration.first(_SHOWN[self.spec.noun])

    def with_words(self) -> Samples:
        """Without texts that have no words."""
        if not isinstance(self.spec, TextInput):
            return self
        sets = self.calibration.with_words(), self.verification.with_words()
        return replace(self, spec=replace(self.spec, needs_words=True), calibration=sets[0], verification=sets[1])


def collect_samples(config: BuildConfig, spec: InputSpec) -> Samples:
    """Read all samples of a build. Raises ``SamplesError``."""
    if config.calibration_data is None:
        return Samples(spec, *noise_sets(spec), grouped=())
    names = [head.name for head in config.heads]
    calibration, verification = collect(config.calibration_data, config.verification_data, names, spec)
    held_out = verification.sources
    grouped = grouped_samples(config.calibration_data, names, spec, held_out) if config.joint.wanted(spec.noun) else []
    return Samples(spec, calibration, verification, grouped)
