"""Run a finished file on one block of samples -> one Arrow table: the device's own answers, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from builder.scoring.contents import Contents
from builder.scoring.samples import Planned
from builder.support.errors import SamplesError
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, UnknownHeadError
from edge_runtime.feature_file import TENSOR, backbone_entry, feature_column, feature_columns
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import stored_tensor
from edge_runtime.results import Category
from edge_runtime.seam import by_name
from edge_runtime.text import TextInput

INTERPRETER = "ai_edge_litert"


@dataclass(frozen=True)
class Wanted:
    """What a row holds besides ``source`` and ``error``.

    Attributes:
        heads: Names of heads, in this order.
        joint: Whether to include the joint list.
        features: Whether to include the features, in the seam's integers.
    """

    heads: tuple[str, ...]
    joint: bool = False
    features: bool = False


def wanted_of(file: Path, heads: Sequence[str], *, joint: bool, features: bool) -> Wanted:
    """The columns wanted from ``file``, its head packs included; empty ``heads`` means all.

    Raises ``UnknownHeadError`` for an unknown head, or for the joint list of a file without one.
    """
    with MultiHeadClassifier(file, interpreter=INTERPRETER) as classifier:
        names = classifier.head_names
        unknown = next((name for name in heads if name not in names), None)
        if unknown is not None:
            raise UnknownHeadError(f"no head {unknown!r}; this file has {len(names)}: {', '.join(names[:20])}")
        if joint and classifier.joint is None:
            raise UnknownHeadError(f"{file} has no joint head; the report of its build says why")
    return Wanted(tuple(heads) or names, joint, features)


def schema_of(metadata: Any, wanted: Wanted) -> pa.Schema:
    """Columns of the result.

    ``source`` and ``error`` (null where all went well); for each head ``HEAD_label``, ``HEAD_score`` and ``HEAD_scores``
    (float32, in the order of its labels); ``joint_label`` (null where the sample belongs to no head), ``joint_score``;
    ``features`` flat, in C order, or one column ``features_TENSOR`` for each tensor of the seam; its shape, scale and
    zero point are in the field's metadata, under ``polyhead``.
    """
    columns = [pa.field("source", pa.string()), pa.field("error", pa.string())]
    for name in wanted.heads:
        columns += [
            pa.field(f"{name}_label", pa.string()),
            pa.field(f"{name}_score", pa.float32()),
            pa.field(f"{name}_scores", pa.list_(pa.float32())),
        ]
    if wanted.joint:
        columns += [pa.field("joint_label", pa.string()), pa.field("joint_score", pa.float32())]
    if wanted.features:
        columns += feature_columns(metadata.seam)
    return pa.schema(columns, metadata=backbone_entry(metadata.backbone_digest))


class _Row(NamedTuple):
    """``features``: by column name."""

    error: str | None = None
    scores: tuple[np.ndarray, ...] = ()
    joint: Category | None = None
    features: Mapping[str, np.ndarray] = MappingProxyType({})


class Scorer:
    """An open file that scores block after block on one thread."""

    def __init__(self, file: str, wanted: Wanted, column: str | None = None) -> None:
        self._classifier = MultiHeadClassifier(file, interpreter=INTERPRETER, num_threads=1)
        self._wanted = wanted
        self._labels = {head.head_name: head.labels for head in self._classifier.heads}
        self._contents = Contents(texts=isinstance(self._classifier.metadata.input, TextInput), column=column)
        self.schema = schema_of(self._classifier.metadata, wanted)

    def table(self, samples: Sequence[Planned]) -> pa.Table:
        """The rows of ``samples``, in order; an unreadable sample has only its ``error``."""
        rows = [self._row(sample) for sample in samples]
        columns = [[sample.source for sample in samples], [row.error for row in rows]]
        found: list[Any] = [pa.array(column, pa.string()) for column in columns]
        found += _score_columns([row.scores for row in rows], [self._labels[name] for name in self._wanted.heads])
        if self._wanted.joint:
            found.append(pa.array([row.joint and row.joint.category_name for row in rows], pa.string()))
            found.append(pa.array([row.joint and row.joint.score for row in rows], pa.float32()))
        for field in self.schema if self._wanted.features else ():
            if TENSOR.encode() in (field.metadata or {}):
                found.append(_lists([row.features.get(field.name) for row in rows], field.type.value_type))
        return pa.Table.from_arrays(found, schema=self.schema)

    def _row(self, sample: Planned) -> _Row:
        try:
            features = self._classifier.features_of(self._tensor(sample))
        except (EdgeRuntimeError, SamplesError) as error:
            return _Row(error=" ".join(str(error).split()))
        joint = self._classifier.classify_joint(features, top_k=1).best if self._wanted.joint else None
        kept = by_name(features) if self._wanted.features else {}
        return _Row(
            scores=self._classifier.scores(features, self._wanted.heads),
            joint=joint,
            features={feature_column(name): np.ravel(tensor) for name, tensor in kept.items()},
        )

    def _tensor(self, sample: Planned) -> np.ndarray:
        return tensor_of(self._classifier, self._contents.read(sample), sample.source)


def tensor_of(classifier: MultiHeadClassifier, content: bytes, source: str) -> np.ndarray:
    """The backbone's input for a sample. Raises ``PictureError`` that begins with ``source``, ``TextError``."""
    spec = classifier.metadata.input
    return stored_tensor(content, spec, name=source) if isinstance(spec, ImageInput) else classifier.prepare(content)


def _score_columns(rows: Sequence[tuple[np.ndarray, ...]], labels: Sequence[Sequence[str]]) -> Iterator[Any]:
    """For each head, with its ``labels``: the best label, its score and all scores; null in rows without scores."""
    there = np.array([bool(row) for row in rows])
    scores = np.zeros((len(rows), sum(map(len, labels))), np.float32)
    if there.any():
        scores[there] = np.stack([np.concatenate(row) for row in rows if row])
    first = 0
    for of_head in labels:
        of_rows = scores[:, first : first + len(of_head)]
        first += len(of_head)
        best, ends = of_rows.argmax(1), np.append(0, np.cumsum(there * len(of_head)))
        yield pa.array(of_head, pa.string()).take(pa.array(best, mask=~there))
        yield pa.array(of_rows[np.arange(len(best)), best], mask=~there)
        offsets = pa.array(ends, pa.int32(), mask=np.append(~there, False))
        yield pa.ListArray.from_arrays(offsets, pa.array(of_rows[there].ravel()))


def _lists(rows: Sequence[np.ndarray | None], kind: Any) -> Any:
    """An Arrow column of lists, null for missing rows."""
    sizes = np.cumsum([0, *(0 if row is None else len(row) for row in rows)])
    missing = np.array([*(row is None for row in rows), False])
    there = [row for row in rows if row is not None]
    flat = pa.array(np.concatenate(there) if there else [], kind)
    return pa.ListArray.from_arrays(pa.array(sizes, pa.int32(), mask=missing), flat)
