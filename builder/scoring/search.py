"""Search stored scores and features for samples to look at or to label next, ranked by one number."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from builder.scoring.stored import Result
from builder.support.errors import ConfigError
from edge_runtime.feature_file import feature_column
from edge_runtime.metadata import SeamTensor

Measure = Callable[[pa.Table], np.ndarray]  # one number for each row; the largest are returned
# What the number of each way to search means, for a person.
MEANINGS = {
    "like": "cosine similarity of the features; 1 is equal",
    "uncertain": "1 minus the difference between the two largest probabilities",
    "far": "1 minus the cosine similarity to the nearest other sample",
    "disagree": "half the sum of the differences of the probabilities; 1 is complete disagreement",
}


@dataclass(frozen=True, order=True)
class Hit:
    """``value``: the measure. ``labels``: the top label and score of each scored head."""

    value: float
    source: str
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "value": round(self.value, 5), "labels": list(self.labels)}


def search(result: Result, measure: Measure, columns: list[str], *, top: int) -> list[Hit]:
    """The ``top`` rows with the largest ``measure``, in falling order; a block at a time.

    Args:
        result: Where to search.
        measure: See ``like``, ``uncertain``, ``far`` and ``disagreeing``.
        columns: The columns that ``measure`` reads.
        top: Largest number of hits.
    """
    labels = [f"{head}_{kind}" for head in result.heads for kind in ("label", "score")]
    found: list[Hit] = []
    for table in result.tables(["source", "error", *labels, *columns]):
        read = table.filter(pa.compute.is_null(table.column("error")))
        if not read.num_rows:
            continue
        values = measure(read)
        least = found[0].value if len(found) == top else -np.inf
        for i in np.flatnonzero(values > least).tolist():
            hit = Hit(float(values[i]), read.column("source")[i].as_py(), tuple(_labels(result, read, i)))
            (heapq.heappush if len(found) < top else heapq.heappushpop)(found, hit)
    return sorted(found, reverse=True)


def like(features: np.ndarray, tensor: SeamTensor) -> Measure:
    """Cosine similarity to ``features``, in the seam's integers, of any shape."""
    wanted = _unit(tensor.quantization.dequantize(features.reshape(1, -1)))[0]
    return lambda table: _unit(_real(table, tensor)) @ wanted


def uncertain(head: str) -> Measure:
    """1 minus the margin between the two likeliest labels; for one label, how close its probability is to 0.5."""

    def measure(table: pa.Table) -> np.ndarray:
        scores = _matrix(table.column(f"{head}_scores"))
        if scores.shape[1] == 1:
            return np.asarray(1 - 2 * np.abs(scores[:, 0] - 0.5))
        best = np.partition(scores, -2, axis=1)
        return np.asarray(1 - (best[:, -1] - best[:, -2]))

    return measure


def far(result: Result, tensor: SeamTensor, *, most: int = 4096, seed: int = 0) -> Measure:
    """Distance to the nearest of at most ``most`` other samples, drawn by ``seed``: 1 minus the cosine.

    Finds outliers. The sample is drawn by reservoir sampling (Vitter 1985), so that memory does not grow.
    """
    rng, kept, seen = np.random.default_rng(seed), list[np.ndarray](), 0
    for table in result.tables([feature_column(tensor.name), "error"]):
        for row in _real(table.filter(pa.compute.is_null(table.column("error"))), tensor):
            seen += 1
            place = len(kept) if len(kept) < most else int(rng.integers(seen))
            if place < most:
                kept[place : place + 1] = [row]
    others = _unit(np.stack(kept)) if kept else np.zeros((1, 1))

    def measure(table: pa.Table) -> np.ndarray:
        nearness = _unit(_real(table, tensor)) @ others.T
        nearness[nearness > 1 - 1e-6] = -1.0  # itself, or the same picture again
        return np.asarray(1 - nearness.max(1))

    return measure


def disagreeing(head: str, other: Result) -> Measure:
    """Total variation distance of two results on ``head``: half the sum of absolute differences of probabilities.

    The measure raises ``ConfigError`` where the results are for different samples.
    """
    tables: Iterator[pa.Table] = other.tables(["source", "error", f"{head}_scores"])

    def measure(table: pa.Table) -> np.ndarray:
        theirs = next(tables, None)
        while theirs is not None and not theirs.filter(pa.compute.is_null(theirs.column("error"))).num_rows:
            theirs = next(tables, None)
        if theirs is not None:
            theirs = theirs.filter(pa.compute.is_null(theirs.column("error")))
        if theirs is None or theirs.column("source") != table.column("source"):
            raise ConfigError(f"{other.folder}: holds other samples; score both from the same archive")
        mine, his = _matrix(table.column(f"{head}_scores")), _matrix(theirs.column(f"{head}_scores"))
        if mine.shape != his.shape:
            raise ConfigError(f"{other.folder}: expected {mine.shape[1]} labels of {head}, found {his.shape[1]}")
        return np.asarray(np.abs(mine - his).sum(1) / 2)

    return measure


def check_column(result: Result, *, features: bool = False, head: str | None = None) -> None:
    """Raises ``ConfigError`` where the result lacks columns that a search needs."""
    if features and not result.request["features"]:
        raise ConfigError(f"{result.folder}: holds no features; score again with --features")
    if head is not None and head not in result.heads:
        raise ConfigError(f"{result.folder}: no head {head!r}; there are: {', '.join(result.heads[:20])}")


def _labels(result: Result, table: pa.Table, row: int) -> Iterator[str]:
    for head in result.heads:
        label, value = (table.column(f"{head}_{kind}")[row].as_py() for kind in ("label", "score"))
        yield f"{label} {value:.2f}"


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length -> (rows, length)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), -1))


def _real(table: pa.Table, tensor: SeamTensor) -> np.ndarray:
    return np.asarray(tensor.quantization.dequantize(_matrix(table.column(feature_column(tensor.name)))))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
