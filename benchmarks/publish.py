"""Write the results of ``benchmarks.bench`` into the README and the docs: tables, plots and all figures.

python -m benchmarks.publish build/bench/bench.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import summary
from benchmarks.files_picture import picture, table
from benchmarks.present import comparison, plot, targets

ROOT = Path(__file__).resolve().parent.parent
FIGURES = Path("docs/benchmarks.json")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def main(results: Path) -> None:
    """Put the figures of RESULTS, the bench.json of ``benchmarks.bench``, into README.md and docs/."""
    document = json.loads(results.read_text("utf-8"))
    for path, text in published(document).items():
        (ROOT / path).write_text(text, encoding="utf-8")
    plot(document, ROOT / "docs" / "images" / "bench.png")


def published(document: Mapping[str, Any]) -> dict[Path, str]:
    """The new text of each file that shows figures of ``document``, by its path in the project."""
    document = {**document, "targets": [asdict(target) for target in summary.targets(document)]}
    readme, page = Path("README.md"), Path("docs/benchmarks.md")
    return {
        FIGURES: json.dumps(document, indent=1) + "\n",
        Path("docs/images/files.svg"): picture(document),
        readme: with_table((ROOT / readme).read_text("utf-8"), table(document)),
        page: with_table(
            with_table((ROOT / page).read_text("utf-8"), comparison(document)),
            targets(document),
        ),
    }


def with_table(text: str, new: str) -> str:
    """``text`` with one table replaced by ``new``: the table whose first two column titles are the same."""
    head = "|".join(new.split("|")[:3])
    old = re.compile(rf"^{re.escape(head)}\|.*?\n\n", re.DOTALL | re.MULTILINE)
    if old.search(text) is None:
        raise ValueError(f"no table that begins with {head!r}")
    return old.sub(lambda _: f"{new}\n\n", text, count=1)


if __name__ == "__main__":
    main()
