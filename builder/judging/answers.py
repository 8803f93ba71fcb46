"""The answers of a finished file to blocks of labelled samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder.judging.labelled import Block, Labelled
from builder.scoring.contents import Contents
from builder.support.arrays import pooled
from builder.support.errors import SamplesError
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import PictureError, TextError
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import stored_tensor
from edge_runtime.seam import by_name
from edge_runtime.text import TextInput

INTERPRETER = "ai_edge_litert"
_ADVICE = "remove it, or use --skip-broken, which counts what it skips"


@dataclass(frozen=True)
class Answers:
    """The file's answers to samples. ``digests``: of content or of stored features, to recognize equal samples.
    ``scores``: of each head (samples, labels). ``joint``, ``classes``: the joint list and P(heads and none), None without
    a joint head. ``features``: real (samples, features), and ``shown``: the originals' input; both None unless requested.
    ``left_out``: the reason for each broken sample.
    """

    samples: tuple[Labelled, ...]
    digests: tuple[bytes, ...]
    scores: tuple[np.ndarray, ...]
    joint: np.ndarray | None
    classes: np.ndarray | None
    features: np.ndarray | None
    shown: tuple[np.ndarray | bytes, ...] | None
    left_out: tuple[str, ...] = ()

    @property
    def head(self) -> np.ndarray:
        return np.array([sample.head for sample in self.samples], int)

    @property
    def label(self) -> np.ndarray:
        return np.array([sample.label for sample in self.samples], int)

    def at(self, kept: Sequence[int]) -> Answers:
        """The answers to the samples at ``kept``."""
        if len(kept) == len(self.samples):
            return self
        rows = list(kept)

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return Answers(
            tuple(self.samples[i] for i in rows),
            tuple(self.digests[i] for i in rows),
            tuple(scores[rows] for scores in self.scores),
            some(self.joint),
            some(self.classes),
            some(self.features),
            None if self.shown is None else tuple(self.shown[i] for i in rows),
            self.left_out,
        )


class Asker:
    """An open file that answers block after block.

    ``column``: of tables. ``for_originals``: whether to keep ``features`` and ``shown``. ``threads``: of the interpreter.
    """

    def __init__(
        self,
        file: str,
        head_packs: Sequence[str] | None = None,
        *,
        column: str | None = None,
        skip_broken: bool = False,
        for_originals: bool = False,
        threads: int | None = None,
    ) -> None:
        self._classifier = MultiHeadClassifier(file, interpreter=INTERPRETER, num_threads=threads, head_packs=head_packs)
        self._spec = self._classifier.metadata.input
        self._contents = Contents(texts=isinstance(self._spec, TextInput), column=column)
        self._skip_broken, self._for_originals = skip_broken, for_originals

    def __call__(self, block: Block) -> Answers:
        """Answer a block. Raises ``SamplesError`` for a broken sample, unless these are skipped."""
        kept, digests, left_out, rows, shown = [], [], [], [], []
        for i, sample in enumerate(block.samples):
            try:
                digest, row, original = self._stored(block, i) if block.features else self._computed(sample)
            except (PictureError, TextError, SamplesError) as error:
                if not self._skip_broken:
                    raise SamplesError(f"{error}; {_ADVICE}") from error
                left_out.append(str(error))
                continue
            kept.append(sample)
            digests.append(digest)
            rows.append(row)
            shown.append(original)
        return self._answers(tuple(kept), tuple(digests), rows, shown, tuple(left_out))

    def _computed(self, sample: Labelled) -> tuple[bytes, dict[str, np.ndarray], np.ndarray | bytes]:
        content = self._contents.read(sample.sample)
        digest = hashlib.sha256(content).digest()
        if isinstance(self._spec, ImageInput):
            tensor = stored_tensor(content, self._spec, name=sample.source)
            return digest, dict(by_name(self._classifier.features_of(tensor))), tensor[0]
        return digest, dict(by_name(self._classifier.features(content))), content

    def _stored(self, block: Block, row: int) -> tuple[bytes, dict[str, np.ndarray], np.ndarray | bytes]:
        assert block.features is not None
        tensors = {name: np.ascontiguousarray(values[row])[None] for name, values in block.features.items()}
        return hashlib.sha256(b"".join(map(np.ndarray.tobytes, tensors.values()))).digest(), tensors, b""

    def _answers(
        self,
        samples: tuple[Labelled, ...],
        digests: tuple[bytes, ...],
        rows: Sequence[dict[str, np.ndarray]],
        shown: Sequence[np.ndarray | bytes],
        left_out: tuple[str, ...],
    ) -> Answers:
        heads = self._classifier.heads
        if not samples:
            return Answers((), (), tuple(np.zeros((0, len(h.labels))) for h in heads), None, None, None, None, left_out)
        joint = [self._classifier.joint_scores(row) for row in rows] if self._classifier.joint is not None else None
        scores = zip(*(self._classifier.scores(row) for row in rows), strict=True)
        seam = self._classifier.metadata.seam[0]
        return Answers(
            samples,
            digests,
            tuple(np.stack(column) for column in scores),
            None if joint is None else np.stack([labels for labels, _ in joint]),
            None if joint is None else np.stack([classes for _, classes in joint]),
            pooled(seam.quantization.dequantize(np.concatenate([row[seam.name] for row in rows])))
            if self._for_originals
            else None,
            tuple(shown) if self._for_originals else None,
            left_out,
        )
