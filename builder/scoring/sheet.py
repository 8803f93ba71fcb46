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


def sheet_of_hits(title: str, facts: Sequence[tuple[str, str]], hits: Sequence[Hit], *, heads: Sequence[str] = ()) -> str:
    """A page of hits from ``search``; ``heads``: the names of the scored heads, in the order of their labels."""
    folder = _folder([hit.source for hit in hits])
    shown = _cards(
        (hit.source, (hit.source[len(folder) :], f"{hit.value:.4f}", *_answers(hit.labels, heads))) for hit in hits
    )
    return render("sheet.html", title=title, facts=[*facts, *_folder_fact(folder)], sections=[("", shown)])


def _answers(labels: Sequence[str], heads: Sequence[str]) -> list[str]:
    named = len(heads) == len(labels) > 1
    return [f"{name}: {label}" for name, label in zip(heads, labels, strict=True)][:3] if named else list(labels[:3])


def _folder(sources: Sequence[str]) -> str:
    """The folder, with a slash, in which all sources are: captions are shorter without it. Sources may be addresses."""
    above = zip(*(source.split("/")[:-1] for source in sources), strict=False)
    return "".join(f"{names[0]}/" for names in itertools.takewhile(lambda names: len(set(names)) == 1, above))


def _folder_fact(folder: str) -> list[tuple[str, str]]:
    return [("folder", folder)] if folder.strip("/") else []


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
