"""The heads of an open file and of its packs: found by name or index, run one by one or all at once."""

from __future__ import annotations

from typing import Callable, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edge_runtime.bundle import REBUILD
from edge_runtime.errors import BundleError, UnknownHeadError
from edge_runtime.flatbuffer import Signature
from edge_runtime.metadata import ALL, HeadInfo, Metadata
from edge_runtime.quantization import Quantization
from edge_runtime.seam import Features, Seam
from edge_runtime.signatures import Signatures

Head = Union[str, int]


class HeadSource(NamedTuple):
    """``reads``: names of the tensors of the seam that the head takes. ``quantization``: of its scores."""

    info: HeadInfo
    model: Signatures
    reads: Tuple[str, ...]
    quantization: Quantization

    def scores(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities, float32 (labels,), from the tensors that the head reads."""
        name = self.info.head_name
        results = self.model.run(name, features)
        if "scores" not in results:  # of a pack: its interpreter was not asked until now
            raise BundleError(f"{self.model.path}: signature {name} gives {', '.join(results)}, not scores; {REBUILD}")
        raw = results["scores"]
        self.model.check_result(name, raw, (1, len(self.info.labels)), self.quantization.dtype)
        return self.quantization.dequantize(raw[0])


class AllHeads(NamedTuple):
    """The file's own heads in one run, by signature ``all``. ``starts``: where the labels of each begin, and the end."""

    model: Signatures
    reads: Tuple[str, ...]
    quantization: Quantization
    starts: Tuple[int, ...]

    def scores(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities of every head in their order, float32 (labels,), bit for bit what each gives by itself."""
        raw = self.model.run(ALL, features)["scores"]
        self.model.check_result(ALL, raw, (1, self.starts[-1]), self.quantization.dtype)
        return self.quantization.dequantize(raw[0])

    def worth(self, heads: int) -> bool:
        """Is one run for all cheaper than ``heads`` runs? Most of a short run is the way to it and back."""
        return heads > 1 and heads * _WORTH >= len(self.starts) - 1


_WORTH = 8  # of 200 heads one run takes what 8 take by themselves, of 4 labels each


def all_heads(metadata: Metadata, model: Signatures, signatures: Mapping[str, Signature]) -> Optional[AllHeads]:
    """None where the file has no such signature, as those of older builders, in which a head may have its name."""
    if ALL not in signatures or any(head.head_name == ALL for head in metadata.heads):
        return None
    starts = [0]
    for head in metadata.heads:
        starts.append(starts[-1] + len(head.labels))
    return AllHeads(model, tuple(signatures[ALL].inputs), metadata.scores, tuple(starts))


def own_heads(metadata: Metadata, model: Signatures, signatures: Mapping[str, Signature]) -> Tuple[HeadSource, ...]:
    return tuple(
        HeadSource(head, model, tuple(signatures[head.head_name].inputs), metadata.scores) for head in metadata.heads
    )


class Heads:
    """The file's own heads, then those of its packs, in the order of their indices.

    Attributes:
        infos: What each is.
        index: Of each by its name.
        models: The files in which they are.
    """

    def __init__(
        self, own: Sequence[HeadSource], packed: Sequence[HeadSource], everything: Optional[AllHeads], seam: Seam
    ) -> None:
        self._sources, self._all, self._seam = (*own, *packed), everything, seam
        self._own = frozenset(range(len(own)))
        self.infos = tuple(source.info for source in self._sources)
        self.models = {source.model for source in self._sources}
        self.index = {info.head_name: i for i, info in enumerate(self.infos)}

    def select(self, heads: Optional[Iterable[Head]]) -> List[int]:
        """Their indices, in the order of ``heads``; None takes all. Raises ``UnknownHeadError``."""
        if heads is None:
            return list(range(len(self._sources)))
        if isinstance(heads, (str, int)):
            heads = [heads]
        return [self.find(head) for head in heads]

    def find(self, head: Head) -> int:
        """The index of a head by its name or index. Raises ``UnknownHeadError``."""
        if isinstance(head, str) and head in self.index:
            return self.index[head]
        if isinstance(head, int) and 0 <= head < len(self.index):
            return head
        names = list(self.index)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise UnknownHeadError(f"no head {head!r}; this file has {len(names)}: {shown}")

    def one(self, features: Features, index: int) -> np.ndarray:
        """The scores of the head at ``index``, float32 (labels,)."""
        source = self._sources[index]
        return source.scores(self._seam.tensors(features, source.reads))

    def several(self, features: Features, chosen: Sequence[int]) -> Callable[[int], np.ndarray]:
        """Run the heads at these indices, the file's own all at once where that is cheaper.

        Returns what gives the scores of the first, the second and so on.
        """
        everything, asked = self._all, set(chosen)
        beyond = asked - self._own
        if everything is None or not everything.worth(len(asked) - len(beyond)):
            return [self.one(features, index) for index in chosen].__getitem__
        found, starts = everything.scores(self._seam.tensors(features, everything.reads)), everything.starts
        packed = {index: self.one(features, index) for index in beyond}

        def scores(place: int) -> np.ndarray:
            index = chosen[place]
            return packed[index] if index in packed else found[starts[index] : starts[index + 1]]

        return scores
