"""Where each head is stored: in the file itself or in a head pack."""

from __future__ import annotations

import os
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edge_runtime.bundle import REBUILD, read_head_pack
from edge_runtime.errors import BundleError
from edge_runtime.metadata import ALL, HeadInfo, HeadPack, Metadata
from edge_runtime.quantization import Quantization
from edge_runtime.signatures import Signatures

Path = Union[str, "os.PathLike[str]"]


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


def all_heads(metadata: Metadata, model: Signatures, signatures: Mapping[str, Any]) -> Optional[AllHeads]:
    """None where the file has no such signature, as those of older builders, in which a head may have its name."""
    if ALL not in signatures or any(head.head_name == ALL for head in metadata.heads):
        return None
    starts = [0]
    for head in metadata.heads:
        starts.append(starts[-1] + len(head.labels))
    return AllHeads(model, tuple(signatures[ALL]["inputs"]), metadata.scores, tuple(starts))


def own_heads(metadata: Metadata, model: Signatures, signatures: Mapping[str, Any]) -> Tuple[HeadSource, ...]:
    """``signatures``: of the file, as its interpreter lists them."""
    return tuple(
        HeadSource(head, model, tuple(signatures[head.head_name]["inputs"]), metadata.scores) for head in metadata.heads
    )


def packed_heads(
    paths: Sequence[Path],
    metadata: Metadata,
    main: str,
    *,
    interpreter: Optional[str],
    trusted_key: Optional[str] = None,
) -> Tuple[HeadSource, ...]:
    """The heads in the packs at ``paths``; see ``read_packs``.

    They are read now, since the files may be replaced; the interpreter of each is opened when its head is first asked.
    """
    found = []
    for path, pack, content in read_packs(paths, metadata, main, trusted_key):
        model = Signatures(path, pack.min_runtime, interpreter=interpreter, num_threads=1, content=content)
        found.append(HeadSource(pack.head, model, tuple(tensor.name for tensor in pack.seam), pack.scores))
    return tuple(found)


def read_packs(
    paths: Sequence[Path], metadata: Metadata, main: str, trusted_key: Optional[str] = None
) -> Tuple[Tuple[str, HeadPack, bytes], ...]:
    """The path, the members and the flatbuffer of each pack, read once.

    Raises ``BundleError`` where a pack is for another backbone than that of ``metadata``, which is of the file ``main``,
    or its head has the name of one that is there.
    """
    found, places = [], {head.head_name: main for head in metadata.heads}
    for given in paths:
        path = os.fspath(given)
        pack, content = read_head_pack(path, trusted_key)
        name = pack.head.head_name
        _check_backbone(path, pack, metadata, main)
        if name in places:
            raise BundleError(f"{path}: head {name} is in {places[name]} already; rename one of them, or leave one out")
        places[name] = path
        found.append((path, pack, content))
    return tuple(found)


def _check_backbone(path: str, pack: HeadPack, metadata: Metadata, main: str) -> None:
    expected, found = metadata.backbone_digest, pack.backbone_digest
    if found != expected:
        raise BundleError(
            f"{path}: head {pack.head.head_name} is for backbone {found[:23]}, {main} has {expected[:23]}; "
            "build the pack for this file"
        )
    strange = [tensor.name for tensor in pack.seam if tensor not in metadata.seam]
    if strange:
        raise BundleError(
            f"{path}: head {pack.head.head_name} reads {strange[0]} in other integers than {main} gives; build the pack "
            f"for this file, or {REBUILD}"
        )
