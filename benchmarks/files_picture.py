"""Draw the README's picture and table from the results of ``benchmarks.bench``: N files beside one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = 20
_WIDTH, _BAR, _LEFT, _LONGEST = 720, 26, 130, 220
_STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1d2733}.t{font-weight:600}.n{fill:#d55e00}.o{fill:#0072b2}"
    "@media(prefers-color-scheme:dark){text{fill:#dfe5ea}.n{fill:#ff9a5c}.o{fill:#56b4e9}}"
)


def table(document: Mapping[str, Any]) -> str:
    """A row for each number of heads: file size, memory and time of one picture, for one file and for N files."""
    rows = {(row["variant"], row["heads"]): row for row in document["rows"] if "bytes" in row}
    titles = ("heads", *(f"{what}, {files}" for what in ("size", "memory", "time") for files in ("one file", "N files")))
    lines = [titles, ("---:",) * len(titles)]
    for heads in sorted({heads for _, heads in rows}):
        pairs = zip(_cells(rows["ours", heads]), _cells(rows["separate", heads]), strict=True)
        lines.append((str(heads), *(cell for pair in pairs for cell in pair)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory = row["first"]["all"]["resident_kib"]["median"] * 1024 / 1e6
    ratio = row["steady"]["1"]["all"]["ratio"]["median"]
    return f"{row['bytes'] / 1e6:.2f} MB", f"{memory:.0f} MB", f"{ratio:.2f}"


def picture(document: Mapping[str, Any]) -> str:
    """Two panels of two bars each. ``document``: ``bench.json``."""
    rows = {(row["variant"], row["heads"]): row for row in document["rows"]}
    files, one = rows["separate", HEADS], rows["ours", HEADS]
    panels = [
        ("File", [row["bytes"] / 1e6 for row in (files, one)], "MB"),
        ("A picture, all heads", [row["steady"]["1"]["all"]["ms"]["median"] for row in (files, one)], "ms"),
    ]
    body = "".join(_panel(8 + i * 76, *panel) for i, panel in enumerate(panels))
    alt = "; ".join(f"{title}: {a:.1f} {unit} in {HEADS} files, {b:.1f} {unit} in one" for title, (a, b), unit in panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 156" role="img" aria-label="{alt}">'
    return f"{head}<style>{_STYLE}</style>{body}</svg>\n"


def _panel(top: float, title: str, values: list[float], unit: str) -> str:
    """A title on the left, a bar for N files, a bar for one."""
    found = f'<text class="t" x="0" y="{top + _BAR + 8}">{title}</text>'
    for i, (value, kind, name) in enumerate(zip(values, "no", (f"{HEADS} files", "polyhead: one file"), strict=True)):
        y, width = top + i * (_BAR + 6), max(3.0, _LONGEST * value / max(values))
        found += f'<rect class="{kind}" x="{_LEFT + 30}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3"/>'
        label = f"{value:.1f} {unit}  {name}"
        found += f'<text x="{_LEFT + 38 + width:.1f}" y="{y + 18}">{label}</text>'
    return found
