"""The input of a model for pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from edge_runtime.checked import field_of, one_of, positive

RESIZE_METHODS = ("nearest", "bilinear", "bicubic", "lanczos", "area")
RESIZE_FITS = ("stretch", "crop", "pad")
COLORS = {"RGB": 3, "L": 1}  # Pillow's names and how many channels; L is greyscale


@dataclass(frozen=True)
class ImageInput:
    """The picture the backbone takes: uint8 (1, height, width, channels), and how a larger picture becomes one.

    ``fit``: ``stretch`` ignores the aspect ratio, ``crop`` takes the largest centred part that has it, ``pad`` adds
    black. ``color``: of ``COLORS``.
    """

    height: int
    width: int
    method: str = "bilinear"
    antialias: bool = True
    fit: str = "stretch"
    kind: str = "image"
    color: str = "RGB"

    @property
    def name(self) -> str:
        """The name of the input in the signatures."""
        return "image"

    @property
    def noun(self) -> str:
        """The users' word for such samples."""
        return "pictures"

    def __str__(self) -> str:
        antialias = "antialiased" if self.antialias else "not antialiased"
        color = "greyscale" if self.color == "L" else self.color
        return f"{self.width} x {self.height} {color}, {self.fit}, {self.method}, {antialias}"

    @property
    def shape(self) -> Tuple[int, ...]:
        return (1, self.height, self.width, COLORS[self.color])

    @property
    def dtype(self) -> Any:
        return np.dtype(np.uint8)

    def to_json(self) -> Dict[str, Any]:
        """The member's ``input``."""
        return asdict(self)

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> ImageInput:
        """Read what ``to_json`` wrote. Raises ``BundleError`` naming the first field that is missing or wrong."""
        return cls(
            height=positive(item.get("height"), "input height"),
            width=positive(item.get("width"), "input width"),
            method=one_of(item.get("method"), RESIZE_METHODS, "input method"),
            antialias=field_of(item, "antialias", bool),
            fit=one_of(item.get("fit"), RESIZE_FITS, "input fit"),
            kind=one_of(item.get("kind"), ("image",), "input kind"),
            color=one_of(item.get("color"), tuple(COLORS), "input color"),
        )
