"""``builder score``, ``compare`` and ``search``: finished files on an archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from builder.commands.progress import Progress
from builder.support.errors import ConfigError
from builder.support.files import write_text
from builder.support.quiet import quiet, terminal
from edge_runtime.counting import count_of
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.escape import printable
from edge_runtime.seam import by_name


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="A folder, a glob, a .parquet or .csv file, or an s3:// or gs:// address.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of Parquet files to write.")
@click.option("--column", help="Column of a table: texts, or pictures as bytes or paths.")
@click.option("--head", "heads", multiple=True, metavar="NAME", help="Only this head; repeat for more. [default: all]")
@click.option("--joint", is_flag=True, help="Add the joint list.")
@click.option("--features", is_flag=True, help="Add the backbone's features of each sample.")
@click.option("--resume", is_flag=True, help="Continue where an earlier run stopped.")
@click.option("--jobs", type=click.IntRange(1), help="Workers. [default: one for each processor]")
@click.option("--address", help="A Ray cluster; without it Ray is started on this machine.")
def score(
    file: Path,
    data: str,
    output: Path,
    column: str | None,
    heads: tuple[str, ...],
    joint: bool,
    features: bool,
    resume: bool,
    jobs: int | None,
    address: str | None,
) -> None:
    """Run the finished FILE on every sample of an archive.

    Writes the answers, which are those of the device, as Parquet. A sample that cannot be read gets an error instead.
    Needs the extra `cluster`.
    """
    _check_installed("score")
    from builder.scoring.rows import wanted_of

    wanted = wanted_of(file, heads, joint=joint, features=features)
    done = _run(file, data, output, wanted, column=column, resume=resume, jobs=jobs, address=address)
    before = f", {done.before:,} of them by an earlier run" if done.before else ""
    broken = f"; {done.failed:,} could not be read, see the column error" if done.failed else ""
    click.echo(f"{done.output}: {count_of(done.samples, 'rows')}{before}{broken}; {done.seconds:.1f} s")


@click.command()
@click.argument("old", type=click.Path(path_type=Path, exists=True))
@click.argument("new", type=click.Path(path_type=Path, exists=True))
@click.option("--data", help="The archive, where OLD and NEW are finished files; as in `score`.")
@click.option("--column", help="Column of a table.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--resume", is_flag=True, help="Continue where an earlier run stopped.")
@click.option("--jobs", type=click.IntRange(1), help="Workers. [default: one for each processor]")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def compare(
    old: Path, new: Path, data: str | None, column: str | None, output: Path, as_json: bool, **running: Any
) -> None:
    """Show which answers change from OLD to NEW on an archive.

    OLD and NEW are two finished files, or two results of `score`. Writes compare.json, and compare.html with the samples
    whose answer changes.
    """
    _check_installed("compare")
    from builder.scoring.compare import compare as run
    from builder.scoring.sheet import sheet_of_changes
    from builder.scoring.stored import open_result

    folders = [_scored(path, data, column, output / name, running) for path, name in ((old, "old"), (new, "new"))]
    found = run(*map(open_result, folders))
    document = json.dumps({name: changes.to_json() for name, changes in found.items()}, ensure_ascii=False)
    write_text(output / "compare.json", document + "\n")
    facts = [("old", str(old)), ("new", str(new)), ("in brackets", "the 95 % interval of the share")]
    page = sheet_of_changes(f"{new.name} instead of {old.name}", facts, found)
    write_text(output / "compare.html", page)
    if as_json:
        click.echo(printable(document))
        return
    for name, changes in found.items():
        low, high = changes.interval
        words = f"{changes.changed:,} of {changes.samples:,} answers change ({low:.2%} to {high:.2%})"
        click.echo(f"{name}: {words}; mean drift {changes.mean_drift:.4f}")
    click.echo(printable(f"page: {output / 'compare.html'}"))


@click.command()
@click.argument("scores", type=click.Path(path_type=Path, exists=True))
@click.option("--like", type=click.Path(path_type=Path, exists=True), help="Find samples like this picture.")
@click.option("--file", type=click.Path(path_type=Path, exists=True), help="The finished file that was scored with.")
@click.option("--uncertain", metavar="HEAD", help="Find the samples on which HEAD is least certain.")
@click.option("--far", is_flag=True, help="Find the samples that are least like all others.")
@click.option("--disagree", type=(str, click.Path(path_type=Path, exists=True)), metavar="HEAD SCORES",
              help="Find the samples on which HEAD of another result differs most.")  # fmt: skip
@click.option("--top", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Largest number of samples.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The contact sheet, .html, to write.")
@click.option("--json", "as_json", is_flag=True, help="Print a line for each sample.")
def search(scores: Path, output: Path, top: int, as_json: bool, **ways: Any) -> None:
    """Find samples to look at or to label next.

    SCORES is a result of `score`. Give one of --like, --uncertain, --far and --disagree.
    """
    _check_installed("search")
    from builder.scoring.search import MEANINGS
    from builder.scoring.search import search as run
    from builder.scoring.sheet import sheet_of_hits
    from builder.scoring.stored import open_result

    result = open_result(scores)
    words, measure, columns = _measure(result, **ways)
    hits = run(result, measure, columns, top=top)
    meaning = next(MEANINGS[way] for way in MEANINGS if ways[way])
    facts = [("scores", str(scores)), ("found", count_of(len(hits), "samples")), ("number", meaning)]
    page = sheet_of_hits(words, facts, hits, heads=result.heads)
    write_text(output, page)
    for hit in hits if as_json else ():
        click.echo(printable(json.dumps(hit.to_json(), ensure_ascii=False)))
    if not as_json:
        click.echo(printable(f"{output}: {count_of(len(hits), 'samples')}, {words}"))


def _measure(
    result: Any, like: Path | None, file: Path | None, uncertain: str | None, far: bool, disagree: tuple[str, Path] | None
) -> tuple[str, Any, list[str]]:
    from builder.scoring import search
    from builder.scoring.stored import open_result
    from edge_runtime.feature_file import feature_column

    if sum([like is not None, uncertain is not None, far, disagree is not None]) != 1:
        raise ConfigError("search: expected one of --like, --uncertain, --far and --disagree")
    head = uncertain or (disagree and disagree[0]) or None
    search.check_column(result, features=like is not None or far, head=head)
    if uncertain is not None:
        return f"{uncertain} is least certain", search.uncertain(uncertain), [f"{uncertain}_scores"]
    if disagree is not None:
        other = open_result(disagree[1])
        search.check_column(other, head=disagree[0])
        return (
            f"{disagree[0]} disagrees with {disagree[1]}",
            search.disagreeing(disagree[0], other),
            [f"{disagree[0]}_scores"],
        )
    if file is None:
        raise ConfigError("search: --like and --far need --file, the finished file that `score` ran")
    with MultiHeadClassifier(file, head_packs=()) as classifier:
        if classifier.file_digest != result.request["file"]:
            raise ConfigError(
                f"{file}: `score` made {result.folder} with another file; expected the digest "
                f"{result.request['file'][:19]}, found {classifier.file_digest[:19]}"
            )
        tensor = classifier.metadata.seam[0]
        column = [feature_column(tensor.name)]
        if like is None:
            return "least like all others", search.far(result, tensor), column
        found = by_name(classifier.features(like))[tensor.name]
    return f"like {like}", search.like(found, tensor), column


def _scored(path: Path, data: str | None, column: str | None, output: Path, running: dict[str, Any]) -> Path:
    """The folder of a result of `score`: ``path`` itself, or ``output`` after running the finished file on ``data``."""
    if path.is_dir():
        return path
    if data is None:
        raise ConfigError(f"{path}: a finished file needs --data, the archive to compare on")
    from builder.scoring.rows import wanted_of

    with MultiHeadClassifier(path) as classifier:
        joint = classifier.joint is not None
    _run(path, data, output, wanted_of(path, (), joint=joint, features=False), column=column, **running)
    return output


def _run(*what: Any, **how: Any) -> Any:
    """Run ``scoring.run.score`` with its progress on standard error, and without what Ray writes there."""
    with terminal(or_pipe=True) as stream, quiet():
        from builder.scoring.run import score as run

        shown = Progress(stream)
        done = run(*what, **how, advance=shown)
        shown.end()
    return done


def _check_installed(command: str) -> None:
    try:
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{command} needs Ray and pyarrow; {error.name} is not installed: pip install 'polyhead[cluster]'"
        ) from error
