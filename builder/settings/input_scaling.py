"""How pixels 0..255 become what a network was trained on: an affine function of the channels.

Knowing it as a function, rather than as layers, lets ``x/127.5 - 1`` outside a model equal the ``Rescaling`` inside
another, and lets the file do it without arithmetic: quantization is an affine function too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.settings.kinds import Kind
from builder.support.errors import ConfigError

CHANNELS = 3
GREY = 1
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class PixelTransform:
    """``x[c] = scale[c] * pixel[order[c]] + offset[c]`` for the channels c of the network's input."""

    scale: tuple[float, ...] = (1.0,) * CHANNELS
    offset: tuple[float, ...] = (0.0,) * CHANNELS
    order: tuple[int, ...] = tuple(range(CHANNELS))

    @property
    def channels(self) -> int:
        return len(self.order)

    def of(self, channels: int) -> PixelTransform:
        """The same of pictures with ``channels``, 1 or 3. Raises ``ValueError`` where channels are not all alike."""
        if channels == self.channels:
            return self
        if self.order != tuple(range(self.channels)) or len({*self.scale}) > 1 or len({*self.offset}) > 1:
            raise ValueError(f"{self} has numbers for three channels, and its pictures are greyscale; give one of each")
        return PixelTransform(self.scale[:1] * channels, self.offset[:1] * channels, tuple(range(channels)))

    def then(self, scale: Any, offset: Any) -> PixelTransform:
        """This transform followed by ``scale * x + offset``; scalars or one number a channel."""
        scale, offset = (np.broadcast_to(np.asarray(v, np.float64).ravel(), self.channels) for v in (scale, offset))
        return PixelTransform(
            tuple(float(a * s) for a, s in zip(self.scale, scale, strict=True)),
            tuple(float(b * s + o) for b, s, o in zip(self.offset, scale, offset, strict=True)),
            self.order,
        )

    def followed_by(self, other: PixelTransform) -> PixelTransform:
        """This transform, and ``other`` on what it gives."""
        scale, offset = (tuple(values[c] for c in other.order) for values in (self.scale, self.offset))
        swapped = PixelTransform(scale, offset, tuple(self.order[c] for c in other.order))
        return swapped.then(other.scale, other.offset)

    def before(self, whole: PixelTransform) -> PixelTransform:
        """What follows this transform where the two together are ``whole``."""
        order = tuple(self.order.index(c) for c in whole.order)
        scale = tuple(w / self.scale[c] for w, c in zip(whole.scale, order, strict=True))
        offset = tuple(w - s * self.offset[c] for w, s, c in zip(whole.offset, scale, order, strict=True))
        return PixelTransform(scale, offset, order)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """float32 (..., channels) from pixels 0..255 (..., channels), of colours in the order RGB."""
        x = pixels[..., list(self.order)].astype(np.float32)
        return x * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)

    @property
    def is_uniform(self) -> bool:
        """One scale and one offset for all channels in their own order: what the quantization of a tensor can express."""
        plain = self.order == tuple(range(self.channels)) and self.scale[0] > 0
        return plain and all(len({_rounded(v) for v in values}) == 1 for values in (self.scale, self.offset))

    @property
    def identity(self) -> str:
        """Equal for transforms that are equal as functions of the pixels, to six significant digits of their range."""
        high = [a * 255 + b for a, b in zip(self.scale, self.offset, strict=True)]
        span = max(max(map(abs, high)), max(map(abs, self.offset)), 1e-12)
        ends = [[round(v / span, 6) + 0.0 for v in values] for values in (self.offset, high)]
        return f"{_rounded(span)} {ends} {self.order}"

    def __str__(self) -> str:
        scale, offset = _written(self.scale), _written(self.offset)
        factor = "" if scale == "1" else f" * {scale}"
        shift = "" if offset == "0" else f" - {offset[1:]}" if offset.startswith("-") else f" + {offset}"
        plain = self.order == tuple(range(self.channels))
        swapped = "" if plain else f", channels {''.join('RGB'[i] for i in self.order)}"
        return f"pixel{factor}{shift}{swapped}"


def _written(values: tuple[float, ...]) -> str:
    """One number where all channels have the same, else one for each in brackets."""
    numbers = [f"{v:.6g}" for v in dict.fromkeys(values)]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def _rounded(value: float) -> str:
    return f"{value:.5e}"


# Names and numbers as in Keras's imagenet_utils.preprocess_input, and two that people use.
PREPROCESSING = {
    "raw": PixelTransform(),
    "unit": PixelTransform().then(1 / 255, 0),
    "tf": PixelTransform().then(1 / 127.5, -1),
    "torch": PixelTransform()
    .then(1 / 255, 0)
    .then([1 / s for s in _IMAGENET_STD], [-m / s for m, s in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)]),
    "caffe": PixelTransform(order=(2, 1, 0)).then(1, [-m for m in _CAFFE_MEAN_BGR]),
}


def named_preprocessing(channels: int) -> dict[str, PixelTransform]:
    """Those of ``PREPROCESSING`` that pictures with ``channels`` can have."""
    fits = {name: how for name, how in PREPROCESSING.items() if channels == CHANNELS or how.is_uniform}
    return {name: how.of(channels) for name, how in fits.items()}


def parse_preprocessing(value: Any, where: str) -> PixelTransform:
    """A name of ``PREPROCESSING``, a table ``{scale, offset}`` of numbers or lists of three, or a text SCALE,OFFSET.

    Raises ``ConfigError``.
    """
    try:
        return _preprocessing(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error or f'expected {PREPROCESSING_WORDS}, found {value!r:.80}'}") from None


def _preprocessing(value: Any) -> PixelTransform:
    """Raises ``ValueError``, without a message where ``PREPROCESSING_WORDS`` say it."""
    if isinstance(value, str) and value in PREPROCESSING:
        return PREPROCESSING[value]
    if isinstance(value, str):
        scale, _, offset = value.partition(",")
        value = {"scale": float(scale), "offset": float(offset)} if _is_written(scale, offset) else None
    if isinstance(value, dict) and value and set(value) <= {"scale", "offset"}:
        parts = [value.get("scale", 1.0), value.get("offset", 0.0)]
        if all(_is_number(v) or (isinstance(v, list) and len(v) == CHANNELS and all(map(_is_number, v))) for v in parts):
            if not np.all(np.asarray(parts[0])):
                raise ValueError("a scale of 0 leaves nothing of the picture")
            return PixelTransform().then(*parts)
    raise ValueError


def _is_written(*numbers: str) -> bool:
    try:
        return all(np.isfinite(float(number)) for number in numbers)
    except ValueError:
        return False


PREPROCESSING_WORDS = f"one of {', '.join(PREPROCESSING)} or {{scale, offset}}"
PREPROCESSING_KIND = Kind(
    PREPROCESSING_WORDS,
    lambda value, _: value if value is None or isinstance(value, PixelTransform) else _preprocessing(value),
)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
