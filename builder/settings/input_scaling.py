"""Input scaling: the affine function of the channels that turns pixels 0..255 into a network's input values.

It is kept as a function and not as layers. So ``x/127.5 - 1`` outside one model equals a ``Rescaling`` layer inside
another, and the file needs no arithmetic for it: quantization is an affine function too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.settings.kinds import Kind
from builder.support.errors import ConfigError

CHANNELS = 3
GREY = 1
_IMAGENET_MEAN, _IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class PixelTransform:
    """``x[c] = scale[c] * pixel[order[c]] + offset[c]`` for each channel c of the network's input.

    Attributes:
        scale: A factor for each channel.
        offset: A summand for each channel.
        order: The channel of the picture (RGB) that each channel of the input reads.
    """

    scale: tuple[float, ...] = (1.0,) * CHANNELS
    offset: tuple[float, ...] = (0.0,) * CHANNELS
    order: tuple[int, ...] = tuple(range(CHANNELS))

    @property
    def channels(self) -> int:
        return len(self.order)

    def of(self, channels: int) -> PixelTransform:
        """The same transform for pictures with ``channels`` channels, 1 or 3.

        Raises:
            ValueError: The channels have different numbers or another order, so there is no such transform.
        """
        if channels == self.channels:
            return self
        if self.order != tuple(range(self.channels)) or len({*self.scale}) > 1 or len({*self.offset}) > 1:
            raise ValueError(f"{self} has numbers for three channels, found greyscale pictures; give one number of each")
        return PixelTransform(self.scale[:1] * channels, self.offset[:1] * channels, tuple(range(channels)))

    def then(self, scale: Any, offset: Any) -> PixelTransform:
        """This transform followed by ``scale * x + offset``; each a scalar or one number for each channel."""
        scale, offset = (np.broadcast_to(np.asarray(v, np.float64).ravel(), self.channels) for v in (scale, offset))
        return PixelTransform(
            tuple(float(a * s) for a, s in zip(self.scale, scale, strict=True)),
            tuple(float(b * s + o) for b, s, o in zip(self.offset, scale, offset, strict=True)),
            self.order,
        )

    def followed_by(self, other: PixelTransform) -> PixelTransform:
        """This transform followed by ``other``."""
        scale, offset = (tuple(values[c] for c in other.order) for values in (self.scale, self.offset))
        swapped = PixelTransform(scale, offset, tuple(self.order[c] for c in other.order))
        return swapped.then(other.scale, other.offset)

    def before(self, whole: PixelTransform) -> PixelTransform:
        """The transform that, after this one, gives ``whole``."""
        order = tuple(self.order.index(c) for c in whole.order)
        scale = tuple(w / self.scale[c] for w, c in zip(whole.scale, order, strict=True))
        offset = tuple(w - s * self.offset[c] for w, s, c in zip(whole.offset, scale, order, strict=True))
        return PixelTransform(scale, offset, order)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels.

        Args:
            pixels: (..., channels) of values 0..255; three channels are in the order RGB.

        Returns:
            float32 (..., channels), the input of the network.
        """
        x = pixels[..., list(self.order)].astype(np.float32)
        return x * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)

    @property
    def is_uniform(self) -> bool:
        """Whether quantization can express it: one positive scale and one offset for all channels, in their own order."""
        plain = self.order == tuple(range(self.channels)) and self.scale[0] > 0
        return plain and all(len({_rounded(v) for v in values}) == 1 for values in (self.scale, self.offset))

    def is_near(self, other: PixelTransform) -> bool:
        """Whether no pixel differs by more than a hundredth of the range, such as where grey is 0.9999 of it."""
        if self.order != other.order:
            return False
        ends = np.array(
            [[h.offset, [255 * a + b for a, b in zip(h.scale, h.offset, strict=True)]] for h in (self, other)]
        )
        return bool(np.abs(ends[0] - ends[1]).max() <= 0.01 * 255 * max(map(abs, other.scale)))

    @property
    def keeps_values(self) -> bool:
        """Whether the channels are the picture's as they are, perhaps in another order."""
        return self.is_near(PixelTransform((1.0,) * self.channels, (0.0,) * self.channels, self.order))

    @property
    def identity(self) -> str:
        """A text that is equal for transforms that are equal as functions, to six significant digits of their range."""
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
    """One number where all channels have the same, otherwise one for each in brackets."""
    numbers = [f"{v:.6g}" for v in dict.fromkeys(values)]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def _rounded(value: float) -> str:
    return f"{value:.5e}"


# tf, torch and caffe: names and numbers of Keras's imagenet_utils.preprocess_input; raw and unit are common as well.
PREPROCESSING = {
    "raw": PixelTransform(),
    "unit": PixelTransform().then(1 / 255, 0),
    "tf": PixelTransform().then(1 / 127.5, -1),
    "torch": PixelTransform().then(1 / 255, 0).then(1, -_IMAGENET_MEAN).then(1 / _IMAGENET_STD, 0),
    "caffe": PixelTransform(order=(2, 1, 0)).then(1, [-m for m in _CAFFE_MEAN_BGR]),
}


def named_preprocessing(channels: int) -> dict[str, PixelTransform]:
    """The entries of ``PREPROCESSING`` that apply to pictures with ``channels`` channels, 1 or 3."""
    fits = {name: how for name, how in PREPROCESSING.items() if channels == CHANNELS or how.is_uniform}
    return {name: how.of(channels) for name, how in fits.items()}


def parse_preprocessing(value: Any, where: str) -> PixelTransform:
    """Read an input scaling.

    Args:
        value: A name in ``PREPROCESSING``, a table ``{scale, offset}`` of numbers or lists of three numbers, or a text
            ``SCALE,OFFSET``.
        where: The key or option, for the message.

    Raises:
        ConfigError: It is none of these.
    """
    try:
        return _preprocessing(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error or f'expected {PREPROCESSING_WORDS}, found {value!r:.80}'}") from None


def _preprocessing(value: Any) -> PixelTransform:
    """Raises ``ValueError``, without a message where ``PREPROCESSING_WORDS`` is message enough."""
    if isinstance(value, str) and value in PREPROCESSING:
        return PREPROCESSING[value]
    if isinstance(value, str):
        scale, _, offset = value.partition(",")
        value = {"scale": float(scale), "offset": float(offset)} if _is_written(scale, offset) else None
    if isinstance(value, dict) and value and set(value) <= {"scale", "offset"}:
        parts = [value.get("scale", 1.0), value.get("offset", 0.0)]
        if all(_is_number(v) or (isinstance(v, list) and len(v) == CHANNELS and all(map(_is_number, v))) for v in parts):
            if not np.all(np.asarray(parts[0])):
                raise ValueError("expected a scale other than 0, which maps every pixel to one value")
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
