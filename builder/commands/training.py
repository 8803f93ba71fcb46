"""``builder train-head`` and ``train-heads``; see ``training``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from builder.commands.progress import Progress
from builder.settings.input_scaling import PREPROCESSING, parse_preprocessing
from builder.support.errors import ConfigError
from builder.support.quiet import own_temporary_files, quiet, terminal
from edge_runtime.counting import count_of
from edge_runtime.escape import printable

_OF_EVERY_HEAD = (
    click.option(
        "--backbone",
        default="efficientnet_lite0",
        show_default=True,
        help="The base: efficientnet_lite0 or a model file.",
    ),
    click.option(
        "--preprocessing", metavar="HOW", help=f"Input scaling of the model file: {', '.join(PREPROCESSING)}, ..."
    ),
    click.option(
        "--size",
        type=click.IntRange(32, 1024),
        default=224,
        show_default=True,
        help="Picture size of efficientnet_lite0, in pixels.",
    ),
    click.option(
        "--hidden", type=click.IntRange(0, 4096), default=0, help="Units of a hidden layer between features and labels."
    ),
    click.option(
        "--epochs", type=click.IntRange(1, 10_000), default=60, show_default=True, help="Largest number of epochs."
    ),
    click.option(
        "--group-by",
        metavar="REGEX",
        help="Pictures with equal text in the group of REGEX stay on one side of the validation split.",
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Random seed; equal seeds and inputs give equal weights."
    ),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
)


def _of_every_head(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that ``train-head`` and ``train-heads`` share."""
    for option in reversed(_OF_EVERY_HEAD):
        command = option(command)
    return command


@click.command("train-head")
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
@click.option(
    "--held-out",
    type=click.Path(path_type=Path, exists=True),
    help="Samples for evaluation only, in the same form as SAMPLES.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Folder of the report. Default: OUTPUT_report.")
@click.option(
    "--views",
    type=click.IntRange(1, 50),
    default=3,
    show_default=True,
    help="Views of each picture: the original and its augmented copies.",
)
@click.option("--no-flip", "flip", is_flag=True, flag_value=False, default=True, help="Never mirror pictures.")
@_of_every_head
def train_head(samples: Path, output: Path, preprocessing: str | None, as_json: bool, **chosen: Any) -> None:
    """Train a classifier on a frozen base.

    SAMPLES is a folder with a folder of pictures for each label, a CSV file with the columns text and label, or stored
    features: an .npz file of `edge-runtime features` or a folder of `builder score --features`, made with a file of the
    same base. The label of a stored sample is the name of the folder that its picture was in.
    """
    if output.suffix != ".keras":
        raise ConfigError(f"--output {output}: expected a file name that ends in .keras")
    how = parse_preprocessing(preprocessing, "--preprocessing") if preprocessing else None
    with quiet():
        from builder.training.report import to_json
        from builder.training.train import train_head
        from builder.training.trained import TrainConfig

    with terminal() as shown, quiet(), own_temporary_files():
        trained = train_head(TrainConfig(samples, output, preprocessing=how, **chosen), progress=shown)
    if as_json:
        click.echo(printable(json.dumps(to_json(trained), ensure_ascii=False)))
        return
    seconds = trained.seconds
    sizes = f"{len(trained.labels)} labels, {count_of(trained.samples, 'samples')}"
    click.echo(f"{printable(str(output))}: {sizes}, {trained.features}")
    for name, judged in (("validation", trained.validation), ("held out", trained.held_out)):
        if judged is not None:
            accuracy = judged.accuracy
            low, high = accuracy.interval
            share = f"{accuracy.right} of {accuracy.pictures} right ({accuracy.share:.3f}; {low:.3f} to {high:.3f})"
            click.echo(f"  {name}: {share}")
    click.echo(f"  features {seconds['features']:.1f} s, training {seconds['train']:.1f} s")
    click.echo(printable(f"  report in {trained.config.report_folder / 'index.html'}"))


@click.command("train-heads")
@click.argument("table", type=click.Path(path_type=Path, exists=True))
@click.option("--features", type=click.Path(path_type=Path, exists=True), required=True, help="Stored features.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the .keras files to write.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of processes.")
@click.option("--address", help="Address of the Ray cluster on which the processes run.")
@_of_every_head
def train_heads(
    table: Path,
    features: Path,
    output: Path,
    preprocessing: str | None,
    jobs: int,
    address: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a classifier for each head of TABLE.

    All use one frozen base and stored features. TABLE is a .parquet or .csv file with the columns head, source and label:
    the label of each picture of the features. Writes HEAD.keras and HEAD.txt for each head, and heads.csv with the
    accuracy of all of them. If a head cannot be trained, heads.csv has the error, and the exit code is 2.
    """
    how = parse_preprocessing(preprocessing, "--preprocessing") if preprocessing else None
    with terminal(or_pipe=True) as stream, quiet():
        from builder.training.many import train_heads
        from builder.training.trained import TrainConfig

        shown = Progress(stream)
        config = TrainConfig(features, output, preprocessing=how, **chosen)
        rows = train_heads(
            table, features, output, config, jobs=jobs, address=address,
            advance=lambda done, total: shown(done, total, done),
        )  # fmt: skip
        shown.end()
    if as_json:
        click.echo(printable(json.dumps(rows, ensure_ascii=False)))
    failed = [row for row in rows if "error" in row]
    for row in rows if not as_json else ():
        share = row.get("error") or f"{row['right']} of {row['pictures']} right ({row['low']:.3f} to {row['high']:.3f})"
        click.echo(printable(f"{row['head']}: {share}"))
    if not as_json:
        click.echo(
            printable(f"{output / 'heads.csv'}: {count_of(len(rows) - len(failed), 'heads')} trained, {len(failed)} not")
        )
    click.get_current_context().exit(2 if failed else 0)
