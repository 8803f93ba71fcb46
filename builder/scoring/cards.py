"""Cards, small pictures with captions, for samples of an archive on a page."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from builder.reporting.html import THUMBNAIL, inline
from builder.scoring.contents import Contents
from builder.scoring.samples import Planned
from builder.support.errors import SamplesError
from edge_runtime.preprocess import FORMATS


@dataclass(frozen=True)
class Card:
    """``picture``: an HTML element, or "" without one."""

    picture: Any
    lines: tuple[str, ...]


def cards(samples: Iterable[tuple[Planned, tuple[str, ...]]], contents: Contents) -> list[Card]:
    """Cards for samples, without a picture for texts and for samples that no longer exist."""
    return [_card(sample, lines, contents) for sample, lines in samples]


def _card(sample: Planned, lines: tuple[str, ...], contents: Contents) -> Card:
    if sample.text is not None:
        return Card("", (sample.text.decode("utf-8", "replace"), *lines))
    try:
        with Image.open(io.BytesIO(contents.read(sample)), formats=tuple(FORMATS)) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (THUMBNAIL, THUMBNAIL))
    except (SamplesError, OSError, ValueError, Image.DecompressionBombError):
        return Card("", lines)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return Card(inline(buffer.getvalue(), "jpeg", sample.source), lines)
