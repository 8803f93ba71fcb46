"""Train hundreds of heads from stored features in parallel: a classifier for each, and one table of accuracies."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.support.arrays import pooled
from builder.support.errors import BuilderError, ConfigError, SamplesError
from builder.support.files import write_text
from builder.support.side_by_side import side_by_side
from builder.training.samples import labelled
from builder.training.stored import check_base, stored_rows
from edge_runtime.errors import reason
from edge_runtime.escape import printable
from edge_runtime.files import open_file
from edge_runtime.quantization import Quantization

COLUMNS = ("head", "source", "label")
MAX_NAME = 200  # bytes of a head's name, which becomes a file name
_FIGURES = ("samples", "labels", "epochs", "pictures", "right", "accuracy", "low", "high", "file", "error")


@dataclass(frozen=True)
class Labels:
    """The part of a table for one head: rows of the stored features, and their labels."""

    head: str
    rows: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class HeadTask:
    """One head to be trained, from features in the seam's integers, (samples, ...)."""

    head: str
    features: np.ndarray
    quantization: Quantization
    labels: tuple[str, ...]
    sources: tuple[str, ...]


def train_heads(
    table: Path,
    features: Path,
    output: Path,
    config: Any,
    *,
    jobs: int = 1,
    address: str | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Train every head of ``table`` and write ``HEAD.keras`` with ``HEAD.txt``, ``heads.csv`` and ``heads.json``.

    A head that cannot be trained has its ``error`` in the table, and the others go on.

    Args:
        table: Parquet or CSV with the columns ``head``, ``source`` (of the stored features) and ``label``.
        features: Stored features from ``edge-runtime features`` or ``builder score --features``.
        output: A folder.
        config: A ``TrainConfig`` with the settings for all heads.
        jobs: Number of processes.
        address: Address of a Ray cluster, whose nodes see ``output`` under the same path.
        advance: Called with the number of heads done, and their total.

    Returns:
        A row for each head, in the order of the table.

    Raises:
        ConfigError: The table or the features are invalid.
        SamplesError: The table names a source that has no features.
    """
    stored, sources, quantization = stored_rows(features)
    wanted = _read_table(table, {source: row for row, source in enumerate(sources)}, features)
    output.mkdir(parents=True, exist_ok=True)

    def tasks() -> Iterator[HeadTask]:
        for of in wanted:
            own = tuple(sources[row] for row in of.rows)
            yield HeadTask(of.head, stored[list(of.rows)], quantization, of.labels, own)

    made = {"config": config, "output": output.absolute(), "features": features}
    rows: list[dict[str, Any]] = []
    for row in side_by_side(Trainer, made, tasks(), jobs=jobs, address=address):
        rows.append(row)
        advance(len(rows), len(wanted))
    _write(rows, output)
    return rows


class Trainer:
    """Trains heads on one base, which is loaded once."""

    def __init__(self, config: Any, output: Path, features: Path) -> None:
        from builder.training.train import base_of  # imports TensorFlow, here: in each process

        self._config, self._output, self._features = config, output, features
        self._base, self._checked = base_of(config), False

    def __call__(self, task: HeadTask) -> dict[str, Any]:
        from builder.training.train import picture_spec, train_on

        path = self._output / f"{task.head}.keras"
        try:
            inputs = pooled(task.quantization.dequantize(task.features)).astype(np.float32)
            named = replace(self._config, output=path)
            samples = labelled(inputs, task.sources, task.head, group_by=named.group_by, said=task.labels)
            if not self._checked:
                check_base(self._base, samples, self._features, picture_spec(self._base))
                self._checked = True
            trained = train_on(named, self._base, samples, samples.inputs[None])
        except BuilderError as error:
            if not self._checked:
                raise  # an error of the features, not of the head
            return {"head": task.head, "samples": len(task.sources), "error": str(error)}
        found = trained.validation.accuracy
        low, high = found.interval
        return {
            "head": task.head, "samples": trained.samples, "labels": len(trained.labels), "epochs": trained.fit.epochs,
            "pictures": found.pictures, "right": found.right, "accuracy": round(found.share, 4), "low": round(low, 4),
            "high": round(high, 4), "file": str(path),
        }  # fmt: skip


def _read_table(path: Path, places: Mapping[str, int], features: Path) -> list[Labels]:
    heads: dict[str, tuple[list[int], list[str]]] = {}
    for head, source, label in _rows(path):
        if not _is_file_name(head) or not label or printable(label) != label:
            raise ConfigError(
                f"{path}: expected the name of a file as head, and a label; found {head!r:.60}, {label!r:.60}"
            )
        if source not in places:
            raise SamplesError(
                f"{path}: {source} of head {head} has no features in {features}; store them, or remove the row"
            )
        rows, labels = heads.setdefault(head, ([], []))
        rows.append(places[source])
        labels.append(label)
    if not heads:
        raise ConfigError(f"{path}: expected rows with {', '.join(COLUMNS)}, found none")
    return [Labels(head, tuple(rows), tuple(labels)) for head, (rows, labels) in heads.items()]


def _is_file_name(head: str) -> bool:
    sane = bool(head) and printable(head) == head and len(head.encode()) <= MAX_NAME
    return sane and Path(head).name == head and not head.startswith(".")


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    if path.suffix.lower() == ".csv":
        try:
            with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                _check_columns(path, list(reader.fieldnames or ()))
                yield from ((row["head"] or "", row["source"] or "", row["label"] or "") for row in reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
        return
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow: pip install 'polyhead[parquet]'") from error
    try:
        with open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as table:
            _check_columns(path, table.schema_arrow.names)
            for batch in table.iter_batches(columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    head, source, label = ("" if row[name] is None else str(row[name]) for name in COLUMNS)
                    yield head, source, label
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path}: expected a Parquet or a CSV file ({reason(error)})") from error


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ConfigError(f"{path}: expected the columns {', '.join(COLUMNS)}; found {', '.join(names[:20]) or 'none'}")


def _write(rows: list[dict[str, Any]], output: Path) -> None:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, ("head", *_FIGURES), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output / "heads.csv", lines.getvalue())
    write_text(output / "heads.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
