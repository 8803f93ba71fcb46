"""Pictures of seeded noise for a build without pictures: the same ones each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from builder.samples.calibration import SampleSet
from builder.samples.files import Picture
from builder.support.errors import SamplesError
from edge_runtime.image_input import ImageInput
from edge_runtime.inputs import InputSpec
from edge_runtime.preprocess import picture_of

NOISE_PICTURES = 32
_COARSEST = 2  # cells on a side; real pictures have structure of every size


def noise_sets(spec: InputSpec) -> tuple[SampleSet, SampleSet]:
    """Noise in place of calibration pictures, and noise to compare on. Raises ``SamplesError`` for texts."""
    if not isinstance(spec, ImageInput):
        raise SamplesError(
            "calibration_data: expected a folder of texts, found nothing; text models need calibration texts"
        )
    drawn = np.random.default_rng(0)
    return _set(spec, drawn), _set(spec, drawn)


def _set(spec: ImageInput, drawn: np.random.Generator) -> SampleSet:
    tensors = np.stack([_picture(spec, drawn, number) for number in range(NOISE_PICTURES)])
    sources = tuple(
        Picture(Path("noise", str(i)), None, hashlib.sha256(tensor.tobytes()).hexdigest())
        for i, tensor in enumerate(tensors)
    )
    return SampleSet(sources, tensors, found=len(sources), noise=True)


def _picture(spec: ImageInput, drawn: np.random.Generator, number: int) -> np.ndarray:
    """Cells of uniform noise, from two cells a side to one cell a pixel, by ``number`` in turn."""
    sizes = [_COARSEST]
    while sizes[-1] * 2 < min(spec.height, spec.width):
        sizes.append(sizes[-1] * 2)
    size = [*sizes, None][number % (len(sizes) + 1)]
    shape = (spec.height, spec.width) if size is None else (size, size)
    cells = picture_of(drawn.integers(0, 256, (*shape, spec.shape[-1]), np.uint8))
    return np.asarray(cells.resize((spec.width, spec.height), Image.Resampling.BILINEAR)).reshape(spec.shape[1:])
