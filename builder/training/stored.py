"""Stored features -> labelled samples, so that a head is trained without running the base again.

They come from ``edge-runtime features`` or ``builder score --features``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from builder.scoring.features import open_features
from builder.support.arrays import pooled
from builder.support.errors import ConfigError, SamplesError
from builder.training.samples import Samples, labelled
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import image_tensor
from edge_runtime.quantization import Quantization

if TYPE_CHECKING:
    from builder.training.base import Base  # imports TensorFlow

_COMPARED = 4  # pictures on which the base is run, to check that the features are its own
_AGREEMENT = 0.9  # correlation of a picture's features: of one base in float and int8 0.99, of two bases about 0
_ADVICE = "give as --backbone the base of the file that computed them"


def read_features(path: Path, *, group_by: str | None = None) -> Samples:
    """Samples whose ``inputs`` are features, float32 (n, features); a feature map is averaged over its positions.

    A label is the name of the folder of a picture. Rows with an error are left out. ``group_by``: see
    ``samples.read_class_folders``. Raises ``ConfigError`` and ``SamplesError``.
    """
    values, sources, quantization = stored_rows(path)
    features = quantization.dequantize(values)
    if not np.isfinite(features).all():
        raise ConfigError(f"{path}: some features are NaN or infinite; compute them again")
    return labelled(pooled(features).astype(np.float32), sources, path, group_by=group_by)


def stored_rows(path: Path) -> tuple[np.ndarray, list[str], Quantization]:
    """Features in the seam's integers (pictures, ...), their sources, and their quantization.

    Raises ``ConfigError`` and ``SamplesError``.
    """
    stored = open_features(path)
    if len(stored.seam) != 1:
        names = ", ".join(tensor.name for tensor in stored.seam)
        raise SamplesError(
            f"{path}: expected the features of one tensor, found {len(stored.seam)} ({names}): its heads read more than "
            "features"
        )
    (tensor,), sources, found = stored.seam, list[str](), list[np.ndarray]()
    for block in stored.blocks():
        sources += block.sources
        found.append(block.tensors[tensor.name])
    if not found:
        raise SamplesError(f"{path}: expected features of pictures, found none")
    return np.concatenate(found), sources, tensor.quantization


def check_base(base: Base, samples: Samples, where: Path, spec: ImageInput) -> None:
    """Check that ``base`` made the features, by running it on a few of the pictures that still exist.

    ``spec``: the input of the base. Raises ``ConfigError`` where features have another length or come from another base.
    """
    length, found = base.model.output_shape[-1], samples.inputs.shape[1]
    if found != length:
        raise ConfigError(
            f"{where}: expected {length} features of a picture, as the base gives, found {found}; {_ADVICE}"
        )
    there = [i for i, source in enumerate(samples.sources) if Path(source).is_file()][:_COMPARED]
    if not there:
        return
    pictures = np.concatenate([image_tensor(samples.sources[i], spec) for i in there]).astype(np.float32)
    own = np.asarray(base.model(pictures, training=False))
    own, stored = (values - values.mean(1, keepdims=True) for values in (own, samples.inputs[there]))
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(stored, axis=1)
    alike = float(np.median((own * stored).sum(1) / np.maximum(norms, 1e-12)))
    if alike < _AGREEMENT:
        raise ConfigError(
            f"{where}: expected features of this base, found those of another (correlation {alike:.2f}); {_ADVICE}"
        )
