"""``builder train-head``; see ``training``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from builder.settings.input_scaling import PREPROCESSING, parse_preprocessing
from builder.support.errors import ConfigError
from builder.support.quiet import quiet, terminal
from edge_runtime.escape import printable


@click.command("train-head")
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@click.option("--backbone", default="efficientnet_lite0", show_default=True, help="efficientnet_lite0, or a model file.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
@click.option("--preprocessing", metavar="HOW", help=f"How pixels enter the model file: {', '.join(PREPROCESSING)}, ...")
@click.option("--held-out", type=click.Path(path_type=Path, exists=True), help="Samples to judge by, like SAMPLES.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder of the report; else OUTPUT_report.")
@click.option(
    "--size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Pixels, of efficientnet_lite0."
)
@click.option(
    "--views", type=click.IntRange(1, 50), default=3, show_default=True, help="Of each picture, all but one changed."
)
@click.option("--no-flip", "flip", is_flag=True, flag_value=False, default=True, help="Pictures are never mirrored.")
@click.option("--hidden", type=click.IntRange(0, 4096), default=0, help="Units of a layer between features and labels.")
@click.option("--epochs", type=click.IntRange(1, 10_000), default=60, show_default=True, help="At most so many.")
@click.option("--group-by", metavar="REGEX", help="Pictures whose names agree in its group validate together, or not.")
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds and inputs give equal weights.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def train_head(samples: Path, output: Path, preprocessing: str | None, as_json: bool, **chosen: Any) -> None:
    """Train a classifier on a frozen base, from SAMPLES: a folder with a folder of pictures for each label, a CSV file
    with the columns text and label, or stored features.

    Stored features are an .npz file of `edge-runtime features`, or a folder of `builder score --features`, made with a
    file of the same base. A label is the name of the folder that a picture lay in.
    """
    if output.suffix != ".keras":
        raise ConfigError(f"--output {output}: expected a name that ends in .keras")
    how = parse_preprocessing(preprocessing, "--preprocessing") if preprocessing else None
    with quiet():
        from builder.training.report import to_json
        from builder.training.train import train_head
        from builder.training.trained import TrainConfig

    with terminal() as shown, quiet():
        trained = train_head(TrainConfig(samples, output, preprocessing=how, **chosen), progress=shown)
    if as_json:
        click.echo(printable(json.dumps(to_json(trained), ensure_ascii=False)))
        return
    seconds = trained.seconds
    click.echo(f"{printable(str(output))}: {len(trained.labels)} labels, {trained.samples} samples, {trained.features}")
    for name, judged in (("validation", trained.validation), ("held out", trained.held_out)):
        if judged is not None:
            accuracy = judged.accuracy
            low, high = accuracy.interval
            share = f"{accuracy.right} of {accuracy.pictures} right ({accuracy.share:.3f}; {low:.3f} to {high:.3f})"
            click.echo(f"  {name}: {share}")
    click.echo(f"  features {seconds['features']:.1f} s, training {seconds['train']:.1f} s")
    click.echo(printable(f"  report in {trained.config.report_folder / 'index.html'}"))
