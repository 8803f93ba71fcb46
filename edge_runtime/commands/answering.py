"""``classify`` and ``classify-text``."""

from __future__ import annotations

import json
import sys
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

import click

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError, TextError
from edge_runtime.escape import printable
from edge_runtime.folders import expanded
from edge_runtime.metadata import JOINT
from edge_runtime.options import (
    file_argument,
    head_packs_option,
    interpreter_option,
    isolate_option,
    json_option,
    threads_option,
    trusted_key_option,
)
from edge_runtime.results import ClassificationResult

_SHOWN = 200  # characters of a text

_ANSWER_OPTIONS = (
    click.option(
        "--head", "heads", metavar="NAME", multiple=True, help="Run only this head, by name or index; repeat for more."
    ),
    click.option("--top-k", type=click.IntRange(1), help="Largest number of categories for each head."),
    click.option("--joint", is_flag=True, help="Add one list of the labels of all heads."),
    click.option(
        "--threshold",
        "thresholds",
        metavar="[HEAD=]P",
        multiple=True,
        help="With --joint: lowest probability at which a sample belongs to any head, or to HEAD; repeat for more.",
    ),
    head_packs_option,
    json_option,
    interpreter_option,
    threads_option,
    isolate_option,
    trusted_key_option,
)


def _answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that ``classify`` and ``classify-text`` have in common."""
    for option in reversed(_ANSWER_OPTIONS):
        command = option(command)
    return command


@click.command()
@file_argument
@click.argument("pictures", metavar="PICTURE|FOLDER...", nargs=-1, required=True)
@_answer_options
def classify(file: str, pictures: Sequence[str], **options: Any) -> None:
    """Classify pictures with the heads of FILE.

    A FOLDER stands for the pictures in it and in its sub-folders, by name. A picture that cannot be read is reported,
    and the others are classified.
    """
    # A name that is not UTF-8 cannot be printed.
    sources = ((click.format_filename(path), path) for path in list(expanded(pictures)))
    click.get_current_context().exit(_answer(file, MultiHeadClassifier.classify, sources, **options))


@click.command("classify-text")
@file_argument
@click.argument("texts", metavar="TEXT...", nargs=-1)
@_answer_options
def classify_text(file: str, texts: Sequence[str], **options: Any) -> None:
    """Classify texts with the heads of FILE.

    Without a TEXT, it classifies each line of standard input."""
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
    """Bytes that are not UTF-8 become replacement characters."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def _result_text(source: str, result: ClassificationResult) -> str:
    lines = [source if len(source) <= _SHOWN else source[:_SHOWN] + " ..."]
    for head in result.classifications:
        best = ", ".join(f"{c.category_name} {c.score:.2f}" for c in head.categories[:5])
        lines.append(f"  {head.head_name}: {best}")
    if result.joint is not None:
        listed = ", ".join(f"{c.category_name} {c.score:.2f}" for c in result.joint.categories[:5])
        lines.append(f"  {JOINT}: {listed}" if result.joint.known else f"  {JOINT}: no head's picture ({listed})")
    return "\n".join(map(printable, lines))
