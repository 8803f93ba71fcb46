"""Compare two results for one archive: which answers change with the new file, and on which samples."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from builder.scoring.stored import Result
from builder.support.errors import ConfigError
from builder.support.interval import wilson_interval

MOST_SHOWN = 200  # changed answers of each head, those with the largest change of the score first


@dataclass(frozen=True, order=True)
class Change:
    """One changed answer. ``drift``: the largest change of any label's probability."""

    drift: float
    source: str
    before: str
    after: str

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "before": self.before, "after": self.after, "drift": round(self.drift, 4)}


@dataclass
class HeadChanges:
    """The changes of one head (``joint``: of the joint list), counted block by block.

    Attributes:
        samples: Number of samples that both files answered.
        changed: Number of samples whose top label differs.
        mean_drift: Mean over samples of the largest change of any label's probability.
    """

    samples: int = 0
    changed: int = 0
    total_drift: float = 0.0
    shown: list[Change] = field(default_factory=list)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share that changes."""
        return wilson_interval(self.changed, self.samples) if self.samples else (0.0, 1.0)

    @property
    def mean_drift(self) -> float:
        return self.total_drift / self.samples if self.samples else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "changed": self.changed,
            "interval": [round(value, 5) for value in self.interval],
            "mean_drift": round(self.mean_drift, 5),
            "changes": [change.to_json() for change in sorted(self.shown, reverse=True)],
        }

    def add(self, rows: Iterable[tuple[str, str | None, str | None, float]]) -> None:
        """Count rows of source, label before and after, drift."""
        for source, before, after, drift in rows:
            self.samples += 1
            self.total_drift += drift
            if before == after:
                continue
            self.changed += 1
            change = Change(drift, source, before or "none", after or "none")
            (heapq.heappush if len(self.shown) < MOST_SHOWN else heapq.heappushpop)(self.shown, change)


def compare(old: Result, new: Result) -> dict[str, HeadChanges]:
    """The changes of each common head, and of ``joint`` if both have it; a block at a time.

    Raises:
        ConfigError: The results are for different samples, or have no head in common.
    """
    for key in ("data", "column", "block"):
        if old.request[key] != new.request[key]:
            raise ConfigError(
                f"{new.folder}: expected {key} {old.request[key]!r} as in {old.folder}, found {new.request[key]!r}"
            )
    heads = [name for name in old.heads if name in new.heads]
    if not heads:
        raise ConfigError(f"{old.folder} and {new.folder} have no head in common; score both with the same --head")
    joint = old.request["joint"] and new.request["joint"]
    found = {name: HeadChanges() for name in (*heads, *(("joint",) if joint else ()))}
    columns = ["source", "error", *(f"{name}_{kind}" for name in heads for kind in ("label", "scores"))]
    columns += ["joint_label"] if joint else []
    for before, after in itertools.zip_longest(old.tables(columns), new.tables(columns)):
        if before is None or after is None or before.column("source") != after.column("source"):
            raise ConfigError(f"{new.folder}: holds other samples than {old.folder}; score both from the same archive")
        _add(found, before.to_pylist(), after.to_pylist())
    return found


def _add(found: dict[str, HeadChanges], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b["error"] is None and a["error"] is None]
    for name, changes in found.items():
        changes.add((b["source"], b[f"{name}_label"], a[f"{name}_label"], _drift(name, b, a)) for b, a in pairs)


def _drift(name: str, before: dict[str, Any], after: dict[str, Any]) -> float:
    if name == "joint":
        return float(before["joint_label"] != after["joint_label"])
    old, new = np.array(before[f"{name}_scores"]), np.array(after[f"{name}_scores"])
    if old.shape != new.shape:  # a head with other labels: every answer changes
        return 1.0
    return float(np.abs(old - new).max())
