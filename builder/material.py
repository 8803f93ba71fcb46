"""Everything that all precisions are built from and verified against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from builder.boards.times import Times
from builder.joint import FittedOnce
from builder.judging.truth import Truth
from builder.judging.verify import Expected
from builder.merging.backbone import SharedBackbone
from builder.merging.merged import Merged
from builder.quantizing.calibrate import Calibrated
from builder.reading.classifier import Classifier
from builder.reading.tflite.classifier import TfliteClassifier
from builder.reading.tflite.sketches import SeamOperators
from builder.reporting.identity import identity_of
from builder.samples.gathered import Samples
from builder.settings.config import OWN, BuildConfig
from builder.tflite.link import LinkedModel
from edge_runtime import __version__
from edge_runtime.identity import Identity
from edge_runtime.metadata import FEATURES, HeadInfo, Metadata


@dataclass(frozen=True)
class Material:
    """``truth``: answers of the originals. ``times``: latencies of the board that the file is for. ``operators``: see
    ``seam_operators``.
    """

    config: BuildConfig
    classifiers: tuple[Classifier, ...]
    shared: SharedBackbone
    merged: Merged
    calibrated: Calibrated
    samples: Samples
    truth: Truth
    times: Times
    operators: SeamOperators | None

    @property
    def heads(self) -> tuple[HeadInfo, ...]:
        titles = {head.name: head.title or "" for head in self.config.heads}
        return tuple(HeadInfo(c.name, c.labels, c.activation, title=titles.get(c.name, "")) for c in self.classifiers)

    def inputs(self, most: int) -> np.ndarray:
        """Calibration samples (samples, ...) as the float model's ``image`` or ``tokens`` takes them."""
        return self.merged.source_input.device_input(self.samples.calibration.tensors[:most])

    @cached_property
    def identity(self) -> Identity:
        """The identity of the file; the same inputs give the same one."""
        return identity_of(self.config, self.samples.calibration.sources)

    @cached_property
    def expected(self) -> Expected:
        """What a finished file is verified against; computed once for all precisions."""
        held_out = self.samples.verification
        own = {c.name: [held_out.sources[i] for i in held_out.of_head(c.name)] for c in self.classifiers}
        scores = {name: self.truth.scores(name, sources) for name, sources in own.items()}
        bars = {head.name: head.min_agreement for head in self.config.heads if head.min_agreement is not None}
        return Expected(self.merged.features(held_out.tensors)[FEATURES], scores, bars)

    @cached_property
    def joint(self) -> FittedOnce:
        """The joint head for the parts of any precision."""
        own = self.samples
        return FittedOnce(self.config.joint, own.spec, self.heads, own.grouped, own.verification)

    def metadata(self, linked: LinkedModel, precision: str, float_heads: Sequence[str] = ()) -> Metadata:
        """Metadata of the linked file, without its quality, which is measured later."""
        spec, shared = self.samples.spec, self.shared
        heads = tuple(replace(info, bytes=linked.head_bytes[info.head_name]) for info in self.heads)
        built: dict[str, Any] = {
            "precision": precision,
            **({"float_heads": list(float_heads)} if float_heads else {}),
            **_method(self.config),
            "parameters": shared.parameters,
            f"calibration_{spec.noun}": 0 if self.samples.calibration.noise else len(self.samples.calibration.tensors),
            "polyhead": __version__,
            "sources": {c.name: c.kind for c in self.classifiers},
            **({"operators": self.operators.to_json()} if self.operators else {}),
            **_versions(self.classifiers),
        }
        seam = tuple(replace(tensor, digest=shared.digests[tensor.name]) for tensor in linked.seam)
        return Metadata(
            spec, self.merged.digest, seam, heads, len(linked.model), linked.scores, linked.min_runtime, built=built,
            identity=self.identity,
        )  # fmt: skip


def _versions(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """Versions of the libraries used; TensorFlow may be missing where all sources are ``.tflite``."""
    files_alone = all(isinstance(c, TfliteClassifier) for c in classifiers)
    names = ("litert-quantizer",) if files_alone else ("tensorflow", "keras", "litert-quantizer")
    return {name: version(name) for name in names}


def _method(config: BuildConfig) -> dict[str, Any]:
    if config.algorithm != OWN:
        return {"algorithm": config.algorithm, "rounding": "nearest"}
    return {key: getattr(config, key) for key in ("rounding", "refit", "ranges", "equalize")}
