"""From what was measured to what is told: medians, spreads, ratios and marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BYTES_A_HEAD = 3 * 1024  # what a head may cost besides its weights
ALL_OF_THREE, ALL_OF_MANY, ONE_OF_MANY, OPENING = 1.05, 1.06, 1.01, 1.2
Rounds = Sequence[tuple[int, float]]  # (number of the round, milliseconds)


@dataclass(frozen=True)
class Mark:
    """``met`` is None where this run did not measure it."""

    mark: str
    reached: str
    met: bool | None


def at_most(what: str, value: float, limit: float) -> Mark:
    return Mark(f"{what}: at most {limit:g}", f"{value:.4g}", value <= limit)


def at_least(what: str, value: float, limit: float) -> Mark:
    return Mark(f"{what}: at least {limit:g}", f"{value:.4g}", value >= limit)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile, and how many there were."""
    low, median, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
    return {"median": median, "p5": low, "p95": high, "count": len(values)}


def ratios(task: Rounds, bare: Rounds) -> list[float]:
    """Each of a task's times over the bare backbone's in the same round, so that what slows both cancels."""
    base = dict(bare)
    return [ms / base[number] for number, ms in task]


def separate_seconds(each: list[float], heads: int) -> dict[str, float]:
    """Build time of ``heads`` files from the seconds of those that were converted; later ones cost the median."""
    measured = each[:heads]
    rest = heads - len(measured)
    return {"seconds": sum(measured) + rest * float(np.median(each)), "extrapolated_from": len(each) if rest else 0}


def summarise_steady(times: Mapping[str, Rounds]) -> dict[str, Any]:
    """``{task: {"ms": spread, "ratio": spread}}`` of what ``measure.steady`` printed."""
    bare = times["bare"]
    return {
        task: {"ms": spread([ms for _, ms in rounds]), "ratio": spread(ratios(rounds, bare))}
        for task, rounds in times.items()
    }


def summarise_first(runs: Sequence[Mapping[str, float]], bare_ms: float) -> dict[str, Any]:
    """A spread of each measure of ``measure.first_answer``, times also in units of the bare backbone's invoke."""
    found: dict[str, Any] = {key: spread([run[key] for run in runs]) for key in runs[0]}
    for key in ("open", "first_answer"):
        found[f"{key}_ratio"] = found[f"{key}_ms"]["median"] / bare_ms
    return found


def marks(results: Mapping[str, Any]) -> list[Mark]:
    """The marks that the project set itself, for the variant ``ours`` with one thread."""
    rows = {row["heads"]: row for row in results["rows"] if row["variant"] == "ours"}
    return [
        _bytes_mark(rows), _steady_mark(rows, 3, "all", ALL_OF_THREE), _steady_mark(rows, 200, "all", ALL_OF_MANY),
        _steady_mark(rows, 200, "one", ONE_OF_MANY), _opening_mark(rows),
    ]  # fmt: skip


def _bytes_mark(rows: Mapping[int, Any]) -> Mark:
    """The one-head file pays for its own head, so only two of the three heads have an allowance."""
    name = "file of 3 heads: at most the file of 1 + the other heads' int8 weights + 3 KB each"
    if not {1, 3} <= rows.keys():
        return Mark(name, "not measured", None)
    one, three = rows[1]["bytes"], rows[3]["bytes"]
    most = one + 2 * (rows[3]["build"]["head_weight_bytes"] + BYTES_A_HEAD)
    return Mark(name, f"{three:,} of {most:,} bytes", three <= most)


def _steady_mark(rows: Mapping[int, Any], heads: int, which: str, most: float) -> Mark:
    name = f"a prepared picture, {which} of {heads} heads: at most {most} of the bare backbone"
    if heads not in rows:
        return Mark(name, "not measured", None)
    ratio = rows[heads]["steady"]["1"][which]["ratio"]
    reached = f"{ratio['median']:.3f} ({ratio['p5']:.3f} to {ratio['p95']:.3f})"
    return Mark(name, reached, ratio["median"] <= most)


def _opening_mark(rows: Mapping[int, Any]) -> Mark:
    name = f"open 200 heads and answer with one: at most {OPENING} of the same with a file of 1"
    if not {1, 200} <= rows.keys():
        return Mark(name, "not measured", None)
    many, one = (rows[heads]["first"]["one"]["first_answer_ms"]["median"] for heads in (200, 1))
    return Mark(name, f"{many / one:.2f} ({many:.1f} ms to {one:.1f} ms)", many / one <= OPENING)
