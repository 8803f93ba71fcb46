"""The result of an evaluation: as JSON, as a page, and as a table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from builder.judging.metrics import Accuracy, LabelRates
from builder.judging.wrong import Wrong
from builder.support.files import write_text
from builder.support.plain import plain
from edge_runtime.counting import count_of
from edge_runtime.escape import printable

MOST_NAMED = 100  # samples that were left out
# What a person reads for each key of ``unknown``, and its format.
_WORDS = {
    "threshold": ("P(head) from which a sample belongs to a head", "{:.3f}"),
    "known_pictures_refused": ("samples of the heads that are rejected as none", "{:.1%}"),
    "none_pictures": ("samples of no head", "{:,.0f}"),
    "none_pictures_refused": ("samples of no head that are rejected as none", "{:.1%}"),
    "auroc": ("AUROC", "{:.3f}"),
    "fpr_at_95_tpr": ("samples of no head accepted, if 95 % of the others are", "{:.1%}"),
}


@dataclass(frozen=True)
class Evaluation:
    """The result of a file on labelled samples.

    Attributes:
        file: The finished file.
        samples: Number of samples that were evaluated.
        heads: Accuracy of each head: ``int8``, and ``float`` if the originals were given.
        lists: Accuracy of each way to one list of all labels, by name; a list of one label is left out.
        labels: Precision and recall of each label, by head, and of the joint list as the device answers, ``none`` last.
        unknown: How well the threshold of the file works.
        wrong: The most confident wrong answers, by head and of the joint list.
        equal: Number of samples left out as duplicates; ``contradicting`` of them have another label than the first.
        left_out: Reasons for the first unreadable samples that were skipped.
        broken: Number of unreadable samples.
        page: The result as HTML.
    """

    file: Path
    samples: int
    heads: Mapping[str, Mapping[str, Accuracy]]
    lists: Mapping[str, Accuracy]
    labels: Mapping[str, Sequence[LabelRates]]
    unknown: Mapping[str, float]
    wrong: Mapping[str, Sequence[Wrong]]
    page: str
    equal: int = 0
    contradicting: int = 0
    broken: int = 0
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of ``evaluate --json``."""
        return {
            "file": str(self.file),
            "samples": self.samples,
            "heads": {n: {kind: a.to_json() for kind, a in kinds.items()} for n, kinds in self.heads.items()},
            "joint": {name: a.to_json() for name, a in self.lists.items()},
            "labels": {name: [rate.to_json() for rate in rates] for name, rates in self.labels.items()},
            "unknown": {name: round(v, 4) for name, v in self.unknown.items()},
            "wrong": {name: [wrong.to_json() for wrong in found] for name, found in self.wrong.items()},
            "equal": self.equal,
            "contradicting": self.contradicting,
            "broken": self.broken,
            "left_out": list(self.left_out),
        }

    @property
    def notes(self) -> list[str]:
        """Sentences on samples that were left out."""
        found = []
        if self.equal:
            others = f"; {self.contradicting} of them with another label than the first" if self.contradicting else ""
            found.append(f"left out: {count_of(self.equal, 'duplicates')} by content{others}")
        if self.broken:
            found.append(f"left out: {self.broken:,} that could not be read")
        return found


def unknown_facts(unknown: Mapping[str, float]) -> list[tuple[str, str]]:
    """The figures of ``Evaluation.unknown`` in words, for the terminal and for the page."""
    return [(words, form.format(unknown[name])) for name, (words, form) in _WORDS.items() if name in unknown]


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json`` and ``evaluation.html``, each atomically."""
    document = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False) + "\n"
    for name, text in {"evaluation.json": document, "evaluation.html": evaluation.page}.items():
        write_text(folder / name, text)


def print_evaluation(evaluation: Evaluation, page: Path) -> None:
    """Print the table on standard output; only its head wraps at 80 columns."""
    table = Table(title=plain(evaluation.file), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "samples", "accuracy", "95 % interval", "calibration error", "by chance"):
        wraps = column in ("calibration error", "by chance")
        width = max(map(len, column.split())) if wraps else None  # of the longest word, which is not cut
        table.add_column(column, justify="right" if column else "left", no_wrap=not wraps, min_width=width)
    rows = {f"{name}, {kind}": a for name, kinds in evaluation.heads.items() for kind, a in kinds.items()}
    for name, a in {**rows, **evaluation.lists}.items():
        interval = f"{a.interval[0]:.3f} to {a.interval[1]:.3f}"
        figures = (f"{a.share:.3f}", interval, f"{a.calibration_error:.3f}", f"{a.calibration_floor:.3f}")
        table.add_row(name, str(a.pictures), *figures)
    Console(width=None if Console().is_terminal else 120).print(table)
    for words, figure in unknown_facts(evaluation.unknown):
        print(f"{words}: {figure}")
    for note in evaluation.notes:
        print(note)
    for why in evaluation.left_out:
        print(printable(f"  {why}"))
    print(f"page: {printable(str(page))}")
