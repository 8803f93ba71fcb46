"""Contact sheets: pages with small pictures of samples found in an archive."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from builder.reporting.html import render
from builder.scoring.cards import Card, cards
from builder.scoring.compare import HeadChanges
from builder.scoring.contents import Contents
from builder.scoring.samples import Planned
from builder.scoring.search import Hit

_MOST = 1000  # cards on a page


def sheet_of_hits(title: str, facts: Sequence[tuple[str, str]], hits: Iterable[Hit]) -> str:
    """A page of hits from ``search``."""
    shown = _cards((hit.source, (hit.source, f"{hit.value:.4f}", *hit.labels[:3])) for hit in hits)
    return render("sheet.html", title=title, facts=facts, sections=[("", shown)])


def sheet_of_changes(title: str, facts: Sequence[tuple[str, str]], found: Mapping[str, HeadChanges]) -> str:
    """A page of changes from ``compare``, by head, the largest change first."""
    sections = []
    for name, changes in found.items():
        shown = sorted(changes.shown, reverse=True)
        found_cards = _cards((c.source, (c.source, f"{c.before} -> {c.after}", f"{c.drift:.3f}")) for c in shown)
        low, high = changes.interval
        words = f"{name}: {changes.changed:,} of {changes.samples:,} answers change ({low:.2%} to {high:.2%})"
        sections.append((words, found_cards))
    return render("sheet.html", title=title, facts=facts, sections=sections)


def _cards(rows: Iterable[tuple[str, tuple[str, ...]]]) -> list[Card]:
    """Cards of sources; a text or a row of a table has no picture."""
    return cards(((Planned(source), lines) for source, lines in itertools.islice(rows, _MOST)), Contents(texts=False))
