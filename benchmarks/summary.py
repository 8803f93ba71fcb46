"""Summarize measurements: medians, spreads, ratios, and the targets that are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BYTES_A_HEAD = 3 * 1024  # of a head at most, besides its weights
ALL_OF_THREE, ALL_OF_MANY, ONE_OF_MANY, OPENING = 1.05, 1.06, 1.01, 1.2
Rounds = Sequence[tuple[int, float]]  # (number of the round, milliseconds)


@dataclass(frozen=True)
class Target:
    """``met`` is None where this run did not measure it."""

    target: str
    reached: str
    met: bool | None


def at_most(what: str, value: float, limit: float) -> Target:
    return Target(f"{what}: at most {limit:g}", f"{value:.4g}", value <= limit)


def at_least(what: str, value: float, limit: float) -> Target:
    return Target(f"{what}: at least {limit:g}", f"{value:.4g}", value >= limit)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile, and number of values."""
    low, median, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
    return {"median": median, "p5": low, "p95": high, "count": len(values)}


def ratios(task: Rounds, bare: Rounds) -> list[float]:
    """A task's time in each round divided by the bare backbone's in that round, so that other load cancels out."""
    base = dict(bare)
    return [ms / base[number] for number, ms in task]


def separate_seconds(each: list[float], heads: int) -> dict[str, float]:
    """Build time of ``heads`` files: the files that were converted, and the median for each of the others."""
    measured = each[:heads]
    rest = heads - len(measured)
    return {"seconds": sum(measured) + rest * float(np.median(each)), "extrapolated_from": len(each) if rest else 0}


def summarise_steady(times: Mapping[str, Rounds]) -> dict[str, Any]:
    """``{task: {"ms": spread, "ratio": spread}}`` from the output of ``measure.steady``."""
    bare = times["bare"]
    return {
        task: {"ms": spread([ms for _, ms in rounds]), "ratio": spread(ratios(rounds, bare))}
        for task, rounds in times.items()
    }


def summarise_first(runs: Sequence[Mapping[str, float]], bare_ms: float) -> dict[str, Any]:
    """The spread of each measure of ``measure.first_answer``; times also relative to the bare backbone's invoke."""
    found: dict[str, Any] = {key: spread([run[key] for run in runs]) for key in runs[0]}
    for key in ("open", "first_answer"):
        found[f"{key}_ratio"] = found[f"{key}_ms"]["median"] / bare_ms
    return found


def targets(results: Mapping[str, Any]) -> list[Target]:
    """The targets that the project set itself, for the variant ``ours`` with one thread."""
    rows = {row["heads"]: row for row in results["rows"] if row["variant"] == "ours"}
    return [
        _bytes_target(rows), _steady_target(rows, 3, "all", ALL_OF_THREE), _steady_target(rows, 200, "all", ALL_OF_MANY),
        _steady_target(rows, 200, "one", ONE_OF_MANY), _opening_target(rows),
    ]  # fmt: skip


def _bytes_target(rows: Mapping[int, Any]) -> Target:
    """The file of one head includes its own head, so there is an allowance for two of the three heads only."""
    name = "file of 3 heads: at most the file of 1 + the other heads' int8 weights + 3 KB each"
    if not {1, 3} <= rows.keys():
        return Target(name, "not measured", None)
    one, three = rows[1]["bytes"], rows[3]["bytes"]
    most = one + 2 * (rows[3]["build"]["head_weight_bytes"] + BYTES_A_HEAD)
    return Target(name, f"{three:,} of {most:,} bytes", three <= most)


def _steady_target(rows: Mapping[int, Any], heads: int, which: str, most: float) -> Target:
    name = f"a prepared picture, {which} of {heads} heads: at most {most} of the bare backbone"
    if heads not in rows:
        return Target(name, "not measured", None)
    ratio = rows[heads]["steady"]["1"][which]["ratio"]
    reached = f"{ratio['median']:.3f} ({ratio['p5']:.3f} to {ratio['p95']:.3f})"
    return Target(name, reached, ratio["median"] <= most)


def _opening_target(rows: Mapping[int, Any]) -> Target:
    name = f"open 200 heads and answer with one: at most {OPENING} of the same with a file of 1"
    if not {1, 200} <= rows.keys():
        return Target(name, "not measured", None)
    many, one = (rows[heads]["first"]["one"]["first_answer_ms"]["median"] for heads in (200, 1))
    return Target(name, f"{many / one:.2f} ({many:.1f} ms to {one:.1f} ms)", many / one <= OPENING)
