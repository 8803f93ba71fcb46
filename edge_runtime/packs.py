"""Head packs: heads in separate files, beside the file with their backbone."""

from __future__ import annotations

import os
from typing import Callable, Optional, Sequence, Tuple, Union

from edge_runtime.bundle import REBUILD, read_head_pack
from edge_runtime.errors import BundleError
from edge_runtime.heads import HeadSource
from edge_runtime.metadata import HeadPack, Metadata
from edge_runtime.signatures import Signatures

Path = Union[str, "os.PathLike[str]"]


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
        model = Signatures(path, pack.min_runtime, _whole(content), interpreter=interpreter, num_threads=1)
        found.append(HeadSource(pack.head, model, tuple(tensor.name for tensor in pack.seam), pack.scores))
    return tuple(found)


def _whole(content: bytes) -> Callable[[Sequence[str]], bytes]:
    return lambda names: content  # it has one signature


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
