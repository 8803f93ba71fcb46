"""``edge-runtime``: a thin coat over ``MultiHeadClassifier``."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

import click

from edge_runtime import __version__, versions
from edge_runtime.benchmark import benchmark as run_benchmark
from edge_runtime.bundle import read_metadata
from edge_runtime.camera.command import camera
from edge_runtime.describe import describe, info_text
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError, TextError
from edge_runtime.escape import printable
from edge_runtime.folders import expanded
from edge_runtime.group import Commands
from edge_runtime.identity import model_text
from edge_runtime.interpreter import INTERPRETERS
from edge_runtime.metadata import JOINT
from edge_runtime.options import head_packs_option, isolate_option, trusted_key_option
from edge_runtime.results import ClassificationResult
from edge_runtime.serve.command import serve

_interpreter = click.option(
    "--interpreter",
    type=click.Choice(list(INTERPRETERS)),
    help="Which interpreter runs the file; else the first installed.",
)
_threads = click.option("--threads", type=click.IntRange(1, 64), help="Threads of the interpreter.")
_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
_file_argument = click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))  # may be new
_file = click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))


_SHOWN = 200  # characters of a text


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-runtime")
def main() -> None:
    """Run a polyhead file: one backbone, many heads, no TensorFlow."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture gets an error of our own


main.add_command(camera)
main.add_command(serve)


@main.command()
@_file
@head_packs_option
@_json
@isolate_option
@trusted_key_option
def info(file: str, head_packs: Sequence[str], as_json: bool, isolate: bool, trusted_key: Optional[str]) -> None:
    """Show what is in FILE: heads, labels, sizes, input, what it was built from."""
    if isolate or trusted_key:
        packs = head_packs or None
        MultiHeadClassifier(file, head_packs=packs, isolate=isolate, trusted_key=trusted_key).close()
    metadata = read_metadata(file)
    document = describe(file, metadata, head_packs or None)
    text = printable(json.dumps(document, ensure_ascii=False)) if as_json else info_text(file, metadata.input, document)
    click.echo(text)


@main.command()
@_file
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Instead of FILE itself.")
@click.option("--name", help="What it is, for people: doors.")
@click.option("--version", help="A number or a date.")
@click.option("--built-at", metavar="TIME", help="When, in UTC: 2026-11-27T19:00:00Z.")
@click.option("--author", help="Who made it.")
@click.option("--licence", help="For whom and what.")
def identify(file: str, output: Optional[str], **fields: Optional[str]) -> None:
    """Give FILE a name, a version and what else info shall say; its model stays byte for byte."""
    given = {key: value for key, value in fields.items() if value is not None}
    if not given:
        raise EdgeRuntimeError("nothing to write: give --name, --version, --built-at, --author or --licence")
    versions.identify(file, output or file, given)
    _say_who(output or file)


@main.command()
@click.argument("new", metavar="NEW", type=click.Path(exists=True, dir_okay=False))
@_file_argument
@trusted_key_option
def install(new: str, file: str, trusted_key: Optional[str]) -> None:
    """Put NEW in the place of FILE, whole, and keep what was there for rollback. A camera with --reload takes it over."""
    versions.install(new, file, trusted_key)
    _say_who(file)


@main.command()
@_file
@trusted_key_option
def rollback(file: str, trusted_key: Optional[str]) -> None:
    """Put back what the last install replaced; once more undoes that."""
    versions.rollback(file, trusted_key)
    _say_who(file)


@main.command()
@click.argument("old", metavar="OLD", type=click.Path(exists=True, dir_okay=False))
@click.argument("new", metavar="NEW", type=click.Path(exists=True, dir_okay=False))
@_json
def diff(old: str, new: str, as_json: bool) -> None:
    """Say what differs between two files: version, backbone, heads, labels, agreement, how they were built."""
    document = versions.difference(old, new)
    lines = [json.dumps(document, ensure_ascii=False)] if as_json else versions.difference_text(document)
    click.echo("\n".join(map(printable, lines)))


_ANSWER_OPTIONS = (
    click.option("--head", "heads", metavar="NAME", multiple=True, help="Only this head, by name or index; repeatable."),
    click.option("--top-k", type=click.IntRange(1), help="At most so many categories a head."),
    click.option("--joint", is_flag=True, help="Also one list of the labels of all heads."),
    click.option(
        "--threshold",
        "thresholds",
        metavar="[HEAD=]P",
        multiple=True,
        help="With --joint: from which probability a sample belongs to any head, or to HEAD; may be repeated.",
    ),
    head_packs_option,
    _json,
    _interpreter,
    _threads,
    isolate_option,
    trusted_key_option,
)


def _answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """What ``classify`` and ``classify-text`` have in common."""
    for option in reversed(_ANSWER_OPTIONS):
        command = option(command)
    return command


@main.command()
@_file
@click.argument("pictures", metavar="PICTURE|FOLDER...", nargs=-1, required=True)
@_answer_options
def classify(file: str, pictures: Sequence[str], **options: Any) -> None:
    """Classify each PICTURE with the heads of FILE, and those in each FOLDER and its sub-folders, by name.

    A picture that cannot be read is named and the others go on.
    """
    # A name that is not UTF-8 cannot be printed.
    sources = ((click.format_filename(path), path) for path in list(expanded(pictures)))
    click.get_current_context().exit(_answer(file, MultiHeadClassifier.classify, sources, **options))


@main.command()
@_file
@click.argument("pictures", metavar="PICTURE|FOLDER...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE.npz", required=True, type=click.Path(dir_okay=False))
@_interpreter
@_threads
@isolate_option
@trusted_key_option
def features(
    file: str,
    pictures: Sequence[str],
    output: str,
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> None:
    """Write what the backbone of FILE makes of each picture, as arrays in one file: to train heads on, or to search.

    A picture that cannot be read is named, left out, and counted; the exit code is 2 then.
    """
    from edge_runtime.feature_file import check_output, write_features

    check_output(output)
    paths, broken = list(expanded(pictures)), 0

    def leave_out(error: PictureError) -> None:
        nonlocal broken
        broken += 1
        click.echo(printable(f"error: {error}"), err=True)

    with MultiHeadClassifier(
        file, interpreter=interpreter, num_threads=threads, head_packs=(), isolate=isolate, trusted_key=trusted_key
    ) as classifier:
        count = write_features(classifier, paths, output, leave_out)
    click.echo(printable(f"{output}: features of {count} pictures" + (f", {broken} left out" if broken else "")))
    click.get_current_context().exit(2 if broken else 0)


@main.command("classify-text")
@_file
@click.argument("texts", metavar="TEXT...", nargs=-1)
@_answer_options
def classify_text(file: str, texts: Sequence[str], **options: Any) -> None:
    """Classify each TEXT with the heads of FILE; without any, each line of the standard input."""
    lines: Iterable[Union[str, bytes]] = texts or (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    sources = ((_printable(text), text) for text in lines)
    click.get_current_context().exit(_answer(file, MultiHeadClassifier.classify_text, sources, **options))


def _answer(
    file: str,
    method: Callable[..., ClassificationResult],
    sources: Iterable[Tuple[str, Union[str, bytes]]],
    *,
    heads: Sequence[str],
    top_k: Optional[int],
    joint: bool,
    thresholds: Sequence[str],
    head_packs: Sequence[str],
    as_json: bool,
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> int:
    """Print what ``method`` says of each source (its name, the sample); returns the exit code."""
    broken, bars = 0, _thresholds(thresholds)
    if bars and not joint:
        raise EdgeRuntimeError("--threshold belongs to the joint list; add --joint")
    opened = MultiHeadClassifier(
        file,
        interpreter=interpreter,
        num_threads=threads,
        head_packs=head_packs or None,
        isolate=isolate,
        trusted_key=trusted_key,
    )
    with opened as classifier:
        chosen = [_name_or_index(head, classifier.head_names) for head in heads] or None
        for source, sample in sources:
            try:
                result = method(classifier, sample, heads=chosen, top_k=top_k, joint=joint, threshold=bars)
            except (PictureError, TextError) as error:
                click.echo(printable(f"error: {error}"), err=True)
                broken += 1
                continue
            if as_json:
                click.echo(printable(json.dumps({"source": source, **result.to_dict()}, ensure_ascii=False)))
            else:
                click.echo(_result_text(source, result))
    return 2 if broken else 0


@main.command()
@_file
@click.option("--runs", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--profile", is_flag=True, help="Each step of a camera's frame.")
@click.option("--operators", is_flag=True, help="Each kind of operator; FILE is what builder probe wrote.")
@_json
@_interpreter
@_threads
@isolate_option
@trusted_key_option
def benchmark(
    file: str,
    runs: int,
    profile: bool,
    operators: bool,
    as_json: bool,
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> None:
    """Measure how long each part of a picture takes on this device."""
    options = {"interpreter": interpreter, "num_threads": threads, "isolate": isolate, "trusted_key": trusted_key}
    if operators:
        from edge_runtime import probe

        if isolate or trusted_key:
            raise EdgeRuntimeError("--operators runs a probe, which nobody signs; leave --isolate and --trusted-key out")
        found = probe.operator_times(file, runs=runs, interpreter=interpreter, num_threads=threads)
        lines = [json.dumps(found)] if as_json else probe.times_lines(file, found)
        click.echo("\n".join(map(printable, lines)))
        return
    if profile:
        from edge_runtime import profiling

        steps = profiling.profile(file, runs=runs, **options)
        click.echo(json.dumps(steps) if as_json else profiling.text(file, steps))
        return
    document = run_benchmark(file, runs=runs, **options)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(f"{printable(file)}: {document['heads']} heads, {document['interpreter']}, {runs} runs")
    click.echo(f"open to first answer  {document['open_to_first_answer_ms']:9.2f} ms")
    for name, ms in document["latency_ms"].items():
        click.echo(f"{name.replace('_', ' '):20s}  {ms['median']:9.3f} ms  ({ms['p5']:.3f} to {ms['p95']:.3f})")


def _thresholds(values: Sequence[str]) -> Optional[Dict[str, float]]:
    """``HEAD=P``, or ``P`` for the joint list."""
    found: Dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            found[name or JOINT] = float(number)
        except ValueError as error:
            raise EdgeRuntimeError(f"--threshold {value}: expected [HEAD=]P with P from 0 to 1") from error
    return found or None


def _name_or_index(text: str, names: Sequence[str]) -> Union[str, int]:
    return int(text) if text.isdecimal() and text not in names else text


def _printable(text: Union[str, bytes]) -> str:
    """What is no UTF-8 shows as a replacement character."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def _say_who(file: str) -> None:
    click.echo(printable(f"{file}: {model_text(versions.identified(file, read_metadata(file)))}"))


def _result_text(source: str, result: ClassificationResult) -> str:
    lines = [source if len(source) <= _SHOWN else source[:_SHOWN] + " ..."]
    for head in result.classifications:
        best = ", ".join(f"{c.category_name} {c.score:.2f}" for c in head.categories[:5])
        lines.append(f"  {head.head_name}: {best}")
    if result.joint is not None:
        listed = ", ".join(f"{c.category_name} {c.score:.2f}" for c in result.joint.categories[:5])
        lines.append(f"  {JOINT}: {listed}" if result.joint.known else f"  {JOINT}: no head's picture ({listed})")
    return "\n".join(map(printable, lines))
