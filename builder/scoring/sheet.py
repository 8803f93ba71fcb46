"""Contact sheets: what was found in an archive, as a page with small pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from builder.reporting.html import THUMBNAIL, inline, render
from builder.scoring.compare import HeadChanges
from builder.scoring.search import Hit
from edge_runtime.preprocess import FORMATS

_MOST = 1000  # cards on a page


@dataclass(frozen=True)
class _Card:
    picture: Any
    lines: tuple[str, ...]


def sheet_of_hits(title: str, facts: Sequence[tuple[str, str]], hits: Iterable[Hit]) -> str:
    """A page of what ``search`` found."""
    cards = [_card(hit.source, (hit.source, f"{hit.value:.4f}", *hit.labels[:3])) for hit in hits]
    return render("sheet.html", title=title, facts=facts, sections=[("", cards[:_MOST])])


def sheet_of_changes(title: str, facts: Sequence[tuple[str, str]], found: Mapping[str, HeadChanges]) -> str:
    """A page of what ``compare`` found, head by head, the largest change first."""
    sections = []
    for name, changes in found.items():
        shown = sorted(changes.shown, reverse=True)
        cards = [_card(c.source, (c.source, f"{c.before} -> {c.after}", f"{c.drift:.3f}")) for c in shown]
        low, high = changes.interval
        words = f"{name}: {changes.changed:,} of {changes.samples:,} answers change ({low:.2%} to {high:.2%})"
        sections.append((words, cards[:_MOST]))
    return render("sheet.html", title=title, facts=facts, sections=sections)


def _card(source: str, lines: tuple[str, ...]) -> _Card:
    """Without a picture where the source is no file that is still there: a text, a row of a table."""
    try:
        with Image.open(source, formats=tuple(FORMATS)) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (THUMBNAIL, THUMBNAIL))
    except (OSError, ValueError, Image.DecompressionBombError):
        return _Card("", lines)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return _Card(inline(buffer.getvalue(), "jpeg", source), lines)
