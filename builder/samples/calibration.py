"""Choose the samples for calibration and for verification, preprocessed by the device's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.samples.files import Picture, Sample, draw_evenly, find_samples
from builder.support.errors import SamplesError
from builder.support.threads import beside
from edge_runtime.errors import PictureError
from edge_runtime.inputs import InputSpec, tensor_maker

MAX_CALIBRATION = {"pictures": 200, "texts": 1000}  # a text costs less time, and covers less
MAX_VERIFICATION = {"pictures": 2000, "texts": 10_000}  # enough to measure an agreement to half a percent
MAX_VERIFICATION_OF_A_HEAD = 50  # where this gives more for all heads together
MIN_SAMPLES = 2
MAX_BROKEN_SHARE = 0.1  # with more broken pictures, the folder is probably the wrong one
_HELD_OUT_SHARE = 5  # a fifth
_CANDIDATES = 5  # times as many samples as calibrate are searched for extremes


@dataclass(frozen=True)
class SampleSet:
    """Samples as the device sees them.

    Attributes:
        sources: The samples, in the order of ``tensors``.
        tensors: Pictures uint8 (samples, height, width, channels), texts int32 (samples, length).
        broken: Samples that could not be read, each with the reason.
        found: Number of samples in the folder, before some were drawn.
        noise: The samples are noise, made for lack of pictures.
    """

    sources: tuple[Sample, ...]
    tensors: np.ndarray
    broken: tuple[str, ...] = ()
    found: int = 0
    noise: bool = False

    @property
    def samples(self) -> Sequence[Any]:
        """Pixels 0..255, or texts as bytes."""
        return [self.sample(i) for i in range(len(self.sources))]

    def sample(self, index: int) -> Any:
        source = self.sources[index]
        return self.tensors[index] if isinstance(source, Picture) else source.content

    def with_words(self) -> SampleSet:
        """Without texts that have no tokens; these are listed among the broken ones."""
        kept = [i for i, tokens in enumerate(self.tensors) if tokens.any()]
        left = [source.name for i, source in enumerate(self.sources) if i not in set(kept)]
        broken = (*self.broken, *(f"{name}: no words" for name in left))
        return SampleSet(tuple(self.sources[i] for i in kept), self.tensors[kept], broken, self.found)

    def drawn(self, noun: str) -> tuple[str, ...]:
        """A sentence where only some of the samples were drawn; empty where all were."""
        if self.found <= len(self.sources) + len(self.broken):
            return ()
        return (
            f"{len(self.sources):,} of {self.found:,} verification {noun} were run, drawn evenly from their folders by "
            "content hash, so always the same ones",
        )

    def first(self, count: int) -> SampleSet:
        return SampleSet(self.sources[:count], self.tensors[:count])

    def at(self, indices: Sequence[int]) -> SampleSet:
        """Some of them, in the order of ``indices``."""
        chosen = tuple(self.sources[i] for i in indices)
        return SampleSet(chosen, self.tensors[list(indices)], self.broken, noise=self.noise)

    def has_own(self, head: str) -> bool:
        """Whether some samples are known to belong to this head."""
        return any(source.head == head for source in self.sources)

    def of_head(self, head: str) -> np.ndarray:
        """Indices of the samples in this head's folder, or of all samples where it has none."""
        own = [i for i, source in enumerate(self.sources) if source.head == head]
        return np.asarray(own or range(len(self.sources)), np.int64)


def collect(
    calibration_data: Path, verification_data: Path | None, heads: Sequence[str], spec: InputSpec
) -> tuple[SampleSet, SampleSet]:
    """Calibration and verification samples; of many, a part is drawn. No content is in both, under whatever name.

    ``heads``: the head names; samples in a folder of that name belong to the head. Raises ``SamplesError`` for a folder
    that is missing or empty, or has too many broken pictures.
    """
    everything = find_samples(calibration_data, heads, spec)
    if verification_data is None:
        verification = [p for p in everything if int(p.digest[:8], 16) % _HELD_OUT_SHARE == 0]
    else:
        verification = find_samples(verification_data, heads, spec)
    held_out = {p.digest for p in verification}
    # A text in the folders of several heads calibrates the backbone once.
    calibration = list({p.digest: p for p in everything if p.digest not in held_out}.values())
    if not verification:
        raise SamplesError(f"{calibration_data}: too few samples to hold out a fifth for verification; add some")
    most = MAX_CALIBRATION[spec.noun]
    enough = max(MAX_VERIFICATION[spec.noun], MAX_VERIFICATION_OF_A_HEAD * len(heads))
    drawn = verification if len(verification) <= enough else draw_evenly(verification, enough)
    seen = read_samples(draw_evenly(calibration, _CANDIDATES * most), spec, calibration_data)
    judged = read_samples(drawn, spec, verification_data or calibration_data)
    return seen.at(chosen(seen.tensors, most)), replace(judged, found=len(verification))


def chosen(tensors: np.ndarray, most: int) -> list[int]:
    """Indices of ``most`` calibration samples: the first ones, but the extremes of all samples replace the last of them.

    ``tensors``: in the order in which they were drawn. Of pictures, uint8 (samples, height, width, 3), the extremes are
    the darkest and the brightest, and those with the least and the most contrast, colour and detail; of texts, int32
    (samples, length), the shortest and the longest.
    """
    if len(tensors) <= most:
        return list(range(len(tensors)))
    traits = np.array(list(beside(_traits, tensors)))
    extremes = list(dict.fromkeys([*traits.argmin(0).tolist(), *traits.argmax(0).tolist()]))[:most]
    others = [i for i in range(len(tensors)) if i not in extremes]
    return sorted([*extremes, *others[: most - len(extremes)]])


def _traits(tensor: np.ndarray) -> list[float]:
    if tensor.ndim == 1:
        return [float(np.count_nonzero(tensor))]
    # In integers, which take half the time: sums over the channels, and of their squares.
    channels, wide = tensor.shape[-1], tensor.astype(np.int32)
    grey = wide.sum(-1)
    spread = np.sqrt(channels * np.square(wide).sum(-1) - np.square(grey))
    values = [grey.mean(), grey.std(), spread.mean(), np.abs(np.diff(grey, axis=1)).mean()]
    return [float(value) / channels for value in values]


def read_samples(samples: Sequence[Sample], spec: InputSpec, folder: Path) -> SampleSet:
    """Read ``samples`` as the device would. A few broken pictures are skipped and listed; many are an error."""
    make, sources, tensors, broken = tensor_maker(spec), list[Sample](), list[np.ndarray](), list[str]()

    def read(sample: Sample) -> np.ndarray | PictureError:
        try:
            return make(sample.content)
        except PictureError as error:
            return error

    for sample, found in zip(samples, beside(read, samples), strict=True):
        if isinstance(found, PictureError):
            broken.append(str(found))
        else:
            tensors.append(found)
            sources.append(sample)
    if len(sources) < MIN_SAMPLES or len(broken) > MAX_BROKEN_SHARE * len(samples):
        named = f": {'; '.join(broken[:5])}" if broken else ""
        raise SamplesError(
            f"{folder}: expected at least {MIN_SAMPLES} readable samples and at most {MAX_BROKEN_SHARE:.0%} broken ones, "
            f"found {len(sources)} readable and {len(broken)} broken{named}"
        )
    return SampleSet(tuple(sources), np.concatenate(tensors), tuple(broken))
