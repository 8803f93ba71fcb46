"""The settings of a training, and its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from builder.judging.metrics import Accuracy, counted
from builder.settings.input_scaling import PixelTransform
from builder.training.base import LITE0
from builder.training.fit import Fit


@dataclass(frozen=True)
class TrainConfig:
    """``samples``: a folder with a folder of pictures for each label, a CSV file of texts, or stored features.

    ``backbone``: ``efficientnet_lite0`` or a model file. ``preprocessing``: its input scaling, if it does not define it.
    ``views``: of each picture, the first unchanged, the others augmented. ``hidden``: units of a layer between features
    and labels, 0 for none. ``flip``: whether a picture may be mirrored. ``group_by``: see ``samples.read_class_folders``.
    """

    samples: Path
    output: Path
    backbone: str = LITE0
    preprocessing: PixelTransform | None = None
    held_out: Path | None = None
    report: Path | None = None
    size: int = 224
    views: int = 3
    flip: bool = True
    hidden: int = 0
    dropout: float = 0.2
    penalty: float = 0.01  # L2 on the weights
    learning_rate: float = 1e-3
    epochs: int = 60
    group_by: str | None = None
    seed: int = 0

    @property
    def report_folder(self) -> Path:
        return self.report or self.output.parent / f"{self.output.stem}_report"


@dataclass(frozen=True)
class Judged:
    """``confusion``: int (labels, labels); rows are true labels."""

    accuracy: Accuracy
    confusion: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> Judged:
        """From ``scores`` (n, labels) and ``truth`` (n,), indices of labels."""
        counts = counted(scores, truth)
        return cls(counts.accuracy, counts.table.counts)

    def to_json(self) -> dict[str, object]:
        return {**self.accuracy.to_json(), "confusion": self.confusion.tolist()}


@dataclass(frozen=True)
class Trained:
    """The result of a training. ``validation``: by the head that was not trained on validation samples."""

    config: TrainConfig
    labels: tuple[str, ...]
    samples: int
    features: str
    fit: Fit
    validation: Judged
    held_out: Judged | None
    seconds: dict[str, float] = field(default_factory=dict)
