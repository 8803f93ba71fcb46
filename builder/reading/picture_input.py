"""The picture input of a classifier: its size, colour or greyscale, and its input scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.content import digest
from builder.reading.originals.original import Shown
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import GREY, PixelTransform
from builder.support.errors import ModelFileError
from builder.support.lazy import Lazy
from edge_runtime.image_input import ImageInput

keras: Any = Lazy("keras")


def declared_pixels(
    said: PixelTransform | None, known: PixelTransform | None, channels: int, path: Path
) -> PixelTransform:
    """The input scaling outside the model at ``path``: as the user says, else as known of its tool, else none.

    Raises ``ModelFileError`` for numbers by colour where pictures are greyscale.
    """
    try:
        return (said or known or PixelTransform()).of(channels)
    except ValueError as error:
        raise ModelFileError(f"{path}: preprocessing: {error}") from error


@dataclass(frozen=True)
class PictureSourceInput:
    """``pixels``: from 0..255 to the graph's input; ``declared``: the part of it that happens outside the model.

    ``size``: height, width. ``resize``: how pictures were resized to it, as far as known. ``settled``: the input
    scaling is complete.
    """

    size: tuple[int, int]
    pixels: PixelTransform
    declared: PixelTransform
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    settled: bool = False
    name = "image"
    dtype = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the graph's input, without the batch axis."""
        return (*self.size, self.pixels.channels)

    @property
    def is_grey(self) -> bool:
        return self.pixels.channels == GREY

    @property
    def identity(self) -> str:
        """Equal where the graph's input is the same function of the pixels."""
        return digest("pixels", self.size, self.pixels.identity)

    @property
    def outside(self) -> str:
        """Equal where originals of one structure take the same input."""
        return self.declared.identity

    @property
    def input_range(self) -> tuple[float, float] | None:
        """The range of the file's input tensor: of scaled pixels where the scaling is uniform, else of raw ones.

        None where the input is not real-valued.
        """
        if not self.pixels.is_uniform:
            return 0.0, 255.0
        return self.pixels.offset[0], 255 * self.pixels.scale[0] + self.pixels.offset[0]

    @property
    def unsaid(self) -> bool:
        """Whether neither a layer nor the user defines the input scaling."""
        return not self.settled and self.pixels.keeps_values

    def entered(self, transform: PixelTransform) -> PictureSourceInput:
        """An ``unsaid`` input with ``transform`` as the input scaling outside the model."""
        return replace(self, pixels=transform.followed_by(self.pixels), declared=transform, settled=True)

    def graph_input(self, tensors: np.ndarray) -> np.ndarray:
        """The graph's input for the device's tensors (n, ...)."""
        return self.pixels.apply(tensors)

    def device_input(self, tensors: np.ndarray) -> np.ndarray:
        """The float file's input, float32: scaled already where one scale and one offset suffice, else raw."""
        return self.pixels.apply(tensors) if self.pixels.is_uniform else tensors.astype(np.float32)

    def shown(self, samples: Sequence[Any]) -> Shown:
        """The samples for the original: pixels 0..255, and the input scaling outside the model."""
        return Shown(np.asarray(samples), self.declared)

    def layer_in_file(self) -> Any | None:
        """The layer for input scaling that the device's backbone needs; None where quantization does its work."""
        return None if self.pixels.is_uniform else pixel_layer(self.pixels)

    def keras_input(self) -> tuple[Any, Any]:
        """For a Keras model that takes raw pixels: its input, and the same as the graph takes it."""
        image = keras.Input(self.shape, name=self.name)
        return image, pixel_layer(self.pixels)(image)

    def spec(self, resize: ResizeConfig) -> ImageInput:
        """The device's input. ``resize``: with every key set."""
        assert resize.method is not None and resize.antialias is not None and resize.fit is not None
        color = "L" if self.is_grey else "RGB"
        return ImageInput(*self.size, method=resize.method, antialias=resize.antialias, fit=resize.fit, color=color)

    def difference(self, other: PictureSourceInput, ours: str) -> tuple[str, str] | None:
        """How ``other`` differs from this input, that of the model ``ours``: (what, advice)."""
        if self.is_grey != other.is_grey:
            theirs, own = (f"{'greyscale' if one.is_grey else 'colour'} pictures" for one in (other, self))
            return f"it takes {theirs}, {ours} takes {own}", "A backbone takes one of them; build a file for each"
        if self.size != other.size:
            theirs, own = (f"{width} x {height}" for height, width in (other.size, self.size))
            what = f"input is {theirs}, that of {ours} is {own}"
            return what, "A backbone runs at one picture size; train both at the same size"
        if self.pixels.identity != other.pixels.identity:
            return (
                f"its input scaling is {other.pixels}, that of {ours} is {self.pixels}",
                "The preprocessing belongs to the base; give both the one they were trained with (preprocessing = ...)",
            )
        return None

    def __str__(self) -> str:
        return f"{self.size[1]} x {self.size[0]}{' greyscale' * self.is_grey} as {self.pixels}"


def pixel_layer(transform: PixelTransform) -> Any:
    """A plain Keras layer for ``transform``: a Rescaling, or a 1x1 convolution where channels differ or are swapped."""
    if transform.is_uniform:
        return keras.layers.Rescaling(transform.scale[0], transform.offset[0], name="pixels")
    count = transform.channels
    layer = keras.layers.Conv2D(count, 1, name="pixels", trainable=False)
    layer.build((None, None, None, count))
    kernel = np.zeros((1, 1, count, count), np.float32)
    kernel[0, 0, list(transform.order), range(count)] = transform.scale
    layer.set_weights([kernel, np.asarray(transform.offset, np.float32)])
    return layer
