"""One block of samples through a finished file -> one Arrow table: the device's own answers, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builder.scoring.contents import Contents
from builder.scoring.samples import Planned
from builder.support.errors import SamplesError
from edge_runtime.engine import MultiHeadClassifier, by_name
from edge_runtime.errors import EdgeRuntimeError, UnknownHeadError
from edge_runtime.feature_file import backbone_entry, feature_column, feature_columns
from edge_runtime.metadata import ImageInput
from edge_runtime.preprocess import stored_tensor
from edge_runtime.text import TextInput

INTERPRETER = "ai_edge_litert"


@dataclass(frozen=True)
class Wanted:
    """What a row holds beside ``source`` and ``error``.

    Attributes:
        heads: Names of heads, in this order.
        joint: Whether the joint list too.
        features: Whether what the backbone makes of the sample, in the seam's integers.
    """

    heads: tuple[str, ...]
    joint: bool = False
    features: bool = False


def wanted_of(file: Path, heads: Sequence[str], *, joint: bool, features: bool) -> Wanted:
    """What is asked of ``file``, its head packs included; no ``heads`` are all of them.

    Raises ``UnknownHeadError`` for a head that is not there, or for the joint list of a file without one.
    """
    with MultiHeadClassifier(file, interpreter=INTERPRETER) as classifier:
        names = classifier.head_names
        unknown = next((name for name in heads if name not in names), None)
        if unknown is not None:
            raise UnknownHeadError(f"no head {unknown!r}; this file has {len(names)}: {', '.join(names[:20])}")
        if joint and classifier.joint is None:
            raise UnknownHeadError(f"{file} has no joint head; its builder's report says why")
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


class Scorer:
    """An open file that scores block after block on one thread."""

    def __init__(self, file: str, wanted: Wanted, column: str | None = None) -> None:
        self._classifier = MultiHeadClassifier(file, interpreter=INTERPRETER, num_threads=1)
        self._wanted = wanted
        self._labels = {head.head_name: head.labels for head in self._classifier.heads}
        self._contents = Contents(texts=isinstance(self._classifier.metadata.input, TextInput), column=column)
        self.schema = schema_of(self._classifier.metadata, wanted)

    def table(self, samples: Sequence[Planned]) -> pa.Table:
        """The rows of ``samples``, in their order; what cannot be read has its ``error`` and nothing else."""
        return pa.Table.from_pylist([self._row(sample) for sample in samples], self.schema)

    def _row(self, sample: Planned) -> dict[str, Any]:
        try:
            features = self._classifier.features_of(self._tensor(sample))
        except (EdgeRuntimeError, SamplesError) as error:
            return {"source": sample.source, "error": " ".join(str(error).split())}
        row: dict[str, Any] = {"source": sample.source}
        for name in self._wanted.heads:
            scores = self._classifier.head_scores(features, name)
            best = int(scores.argmax())
            row.update(
                {f"{name}_label": self._labels[name][best], f"{name}_score": scores[best], f"{name}_scores": scores}
            )
        if self._wanted.joint:
            best_of_all = self._classifier.classify_joint(features, top_k=1).best
            if best_of_all is not None:
                row.update(joint_label=best_of_all.category_name, joint_score=best_of_all.score)
        if self._wanted.features:
            row.update((feature_column(name), np.ravel(tensor)) for name, tensor in by_name(features).items())
        return row

    def _tensor(self, sample: Planned) -> np.ndarray:
        return tensor_of(self._classifier, self._contents.read(sample), sample.source)


def tensor_of(classifier: MultiHeadClassifier, content: bytes, source: str) -> np.ndarray:
    """The backbone's input, as of the file itself. Raises ``PictureError`` that begins with ``source``, ``TextError``."""
    spec = classifier.metadata.input
    return stored_tensor(content, spec, name=source) if isinstance(spec, ImageInput) else classifier.prepare(content)
