"""Show the results of ``benchmarks.bench`` as Markdown tables and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.variants import VARIANTS

# Okabe and Ito's colours, which differ for every kind of colour vision; markers differ in greyscale.
_BUILD = "Build (hollow: extrapolated)"
_LEGEND = {
    "ours": "polyhead, one file",
    "separate": "TensorFlow converter, N files",
    "signatures": "TensorFlow converter, one file with N signatures",
}
_LOOKS = {"ours": ("#0072B2", "o"), "separate": ("#D55E00", "s"), "signatures": ("#009E73", "^")}
_COLUMNS = (
    "heads", "variant", "file", "memory", "open", "first answer, one head", "first answer, all heads",
    "picture, one head", "picture, all heads", "build",
)  # fmt: skip
Row = Mapping[str, Any]


def markdown(results: Mapping[str, Any]) -> str:
    """The machine, the comparison and the targets."""
    return "\n\n".join([_machine_line(results), comparison(results), "\n".join(_notes(results)), targets(results)]) + "\n"


def comparison(results: Mapping[str, Any]) -> str:
    """A row for each number of heads and variant."""
    lines = [_line(_COLUMNS), _line(["---:", "---"] + ["---:"] * (len(_COLUMNS) - 2))]
    return "\n".join([*lines, *(_line(_cells(row)) for row in results["rows"])])


def targets(results: Mapping[str, Any]) -> str:
    """A row for each target."""
    met = {True: "yes", False: "**no**", None: "-"}
    lines = [_line(("target", "reached", "met?")), _line(("---", "---", "---"))]
    return "\n".join([*lines, *(_line((m["target"], m["reached"], met[m["met"]])) for m in results["targets"])])


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Six panels over the number of heads, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panels: tuple[tuple[str, str, Callable[[Row], float]], ...] = (
        ("Files", "MB", lambda row: row["bytes"] / 1e6),
        ("Resident memory, all heads answered", "MB", lambda row: _memory_mb(row)),
        (_BUILD, "s", lambda row: row["build"]["seconds"]),
        ("Open and answer with one head", "ms", lambda row: row["first"]["one"]["first_answer_ms"]["median"]),
        ("Open and answer with all heads", "ms", lambda row: row["first"]["all"]["first_answer_ms"]["median"]),
        ("Prepared picture, all heads", "× bare backbone", lambda row: row["steady"]["1"]["all"]["ratio"]["median"]),
    )
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for axis, (title, unit, value) in zip(axes.flat, panels, strict=True):
        for variant, (colour, marker) in _LOOKS.items():
            rows = [row for row in results["rows"] if row["variant"] == variant and "bytes" in row]
            points = [row["heads"] for row in rows], [value(row) for row in rows]
            axis.plot(*points, color=colour, marker=marker, label=_LEGEND[variant], linewidth=2, markersize=7)
            if title == _BUILD:
                guessed = [i for i, row in enumerate(rows) if row["build"].get("extrapolated_from")]
                hollow = [[values[i] for i in guessed] for values in points]
                axis.plot(*hollow, linestyle="", marker=marker, markersize=7, color=colour, markerfacecolor="white")
        axis.set(title=title, xlabel="heads", ylabel=unit, xscale="log", yscale="log")
        axis.set_xticks(results["settings"]["heads"], labels=map(str, results["settings"]["heads"]))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        _leave_room(axis)
    _tell_unfinished(axes.flat[2], results["rows"])
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _tell_unfinished(axis: Any, rows: Sequence[Row]) -> None:
    told = [f"({row['heads']} signatures: {row['build']['unfinished'][:60]})" for row in rows if "bytes" not in row]
    axis.set_xlabel("\n".join(["heads", *told]))


def _leave_room(axis: Any) -> None:
    """Widen an axis to more than a power of ten, so that small changes do not look large."""
    low, high = axis.get_ylim()
    middle = (low * high) ** 0.5
    axis.set_ylim(min(low, middle / 10**0.6), max(high, middle * 10**0.6))


def _cells(row: Row) -> list[str]:
    name = VARIANTS[row["variant"]]
    if "bytes" not in row:
        return [str(row["heads"]), name, *["-"] * (len(_COLUMNS) - 3), row["build"]["unfinished"]]
    first, steady = row["first"], row["steady"]["1"]
    about = "about " if row["build"].get("extrapolated_from") else ""
    return [
        str(row["heads"]),
        name,
        f"{row['bytes'] / 1e6:.2f} MB",
        f"{_memory_mb(row):.0f} MB",
        f"{first['all']['open_ms']['median']:.1f} ms",
        f"{first['one']['first_answer_ms']['median']:.1f} ms",
        f"{first['all']['first_answer_ms']['median']:.1f} ms",
        f"{steady['one']['ratio']['median']:.3f}",
        f"{steady['all']['ratio']['median']:.3f}",
        f"{about}{row['build']['seconds']:.0f} s",
    ]


def _notes(results: Mapping[str, Any]) -> list[str]:
    bare = [spread["1"]["median"] for spread in results["bare"].values()]
    extrapolated = max((row["build"].get("extrapolated_from", 0) for row in results["rows"]), default=0)
    notes = [
        "The N files and the one file with N end-to-end signatures are int8 files of TensorFlow's own converter.",
        f"The picture is already prepared; its time is a ratio to the bare backbone's invoke in the same round (median "
        f"{min(bare):.2f} to {max(bare):.2f} ms, 1 thread). Memory is the growth of the resident set of a new process "
        "until all heads have answered. Figures are medians; spreads, and 2 threads, are in bench.json.",
    ]
    if extrapolated:
        notes.append(
            f"Of the N files {extrapolated} are converted; the others are copies of them under other names. So the build "
            "time of N files is extrapolated."
        )
    return notes


def _machine_line(results: Mapping[str, Any]) -> str:
    found = results["machine"]
    settings = results["settings"]
    return (
        f"{settings['backbone']}, heads of 5 labels; {found['processor']}, {found['cores']} cores, {found['system']}; "
        f"Python {found['python']}, TensorFlow {found['tensorflow']}, ai-edge-litert {found['ai-edge-litert']}; "
        f"{settings['rounds']} interleaved rounds, {settings['openings']} openings."
    )


def _memory_mb(row: Row) -> float:
    megabytes: float = row["first"]["all"]["resident_kib"]["median"] * 1024 / 1e6
    return megabytes


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
