"""A file is opened: read, checked, where asked for tried in a process of its own, then given to an interpreter."""

from __future__ import annotations

import os
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Set

import numpy as np

from edge_runtime.bundle import REBUILD, open_model, packs_beside
from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer import Signature
from edge_runtime.heads import Heads, all_heads, own_heads
from edge_runtime.inputs import InputSpec
from edge_runtime.joint import JointInfo
from edge_runtime.metadata import ALL, BACKBONE, END_TO_END, FEATURES, JOINT, Metadata
from edge_runtime.packs import Path, packed_heads
from edge_runtime.seam import Seam
from edge_runtime.signatures import Signatures


class Opened(NamedTuple):
    """``model`` runs backbone, joint list and the file's own heads. ``interpreter_name``: of the one that runs them."""

    metadata: Metadata
    model: Signatures
    seam: Seam
    heads: Heads
    joint: Optional[JointInfo]
    interpreter_name: str


def open_file(
    path: str,
    *,
    interpreter: Optional[str],
    num_threads: Optional[int],
    head_packs: Optional[Sequence[Path]],
    isolate: bool,
    trusted_key: Optional[str],
) -> Opened:
    """What ``MultiHeadClassifier`` is made of; arguments and errors are its."""
    metadata, views = open_model(path, trusted_key)
    packs = packs_beside(path) if head_packs is None else [os.fspath(pack) for pack in head_packs]
    packed = packed_heads(packs, metadata, path, interpreter=interpreter, trusted_key=trusted_key)
    check_signatures(path, metadata, views.signatures)
    if isolate:
        _try_in_child(path, interpreter, packs)
    names = [head.head_name for head in metadata.heads]
    model = Signatures(
        path, metadata.min_runtime, views.of, interpreter=interpreter, num_threads=num_threads, alike=names
    )
    name, opened = model.open(BACKBONE)
    _check_input(path, metadata.input, opened.get_input_details())
    if not names and not packed and head_packs is None:
        raise BundleError(f"{path}: a backbone without heads; give head packs, or put them into its folder .heads")
    seam = Seam(metadata.seam)
    own = own_heads(metadata, model, views.signatures)
    heads = Heads(own, packed, all_heads(metadata, model, views.signatures), seam)
    joint = None if metadata.joint is None else JointInfo.from_json(metadata.joint, names)
    return Opened(metadata, model, seam, heads, joint, name)


def check_signatures(path: str, metadata: Metadata, signatures: Mapping[str, Signature]) -> None:
    """Every head that the members promise has its signature, and no other is there but ``all``, which older files lack.

    Raises ``BundleError``.
    """
    seam = {tensor.name for tensor in metadata.seam}
    fits = {END_TO_END: lambda signature: True, BACKBONE: lambda signature: _is(signature, {metadata.input.name}, seam)}
    fits.update((info.head_name, lambda signature: _is_head(signature, seam)) for info in metadata.heads)
    if metadata.joint is not None:
        fits[JOINT] = lambda signature: _is_joint(signature, seam)
    expected = list(fits)
    fits.setdefault(ALL, lambda signature: _is_head(signature, seam))
    for name, signature in signatures.items():
        if name in fits and not fits[name](signature):
            raise BundleError(f"{path}: signature {name} takes or gives something else than a polyhead file's; {REBUILD}")
    if not set(expected) <= set(signatures) <= set(fits):
        missing, strange = sorted(set(expected) - set(signatures)), sorted(set(signatures) - set(fits))
        raise BundleError(
            f"{path}: members and signatures disagree (missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(strange) or 'none'}); {REBUILD}"
        )


def _is(signature: Signature, inputs: Set[str], outputs: Set[str]) -> bool:
    return set(signature.inputs) == inputs and set(signature.outputs) == outputs


def _is_head(signature: Signature, seam: Set[str]) -> bool:
    """It reads one tensor of the seam or more, and gives scores."""
    read = set(signature.inputs)
    return bool(read) and read <= seam and signature.outputs == ("scores",)


def _is_joint(signature: Signature, seam: Set[str]) -> bool:
    return FEATURES in signature.inputs and _is(signature, set(signature.inputs) & seam, {"heads", "scores"})


def _try_in_child(path: str, interpreter: Optional[str], packs: Sequence[str]) -> None:
    from edge_runtime.isolate import try_in_child  # imports subprocess, which most have no use for

    try_in_child(path, interpreter, packs)


def _check_input(path: str, spec: InputSpec, inputs: Sequence[Mapping[str, Any]]) -> None:
    found = [(np.dtype(i["dtype"]).name, tuple(int(n) for n in i["shape"])) for i in inputs]
    if found != [(spec.dtype.name, spec.shape)]:
        raise BundleError(
            f"{path}: members promise {spec.name} as {spec.dtype} {spec.shape}, the model takes {found}; {REBUILD}"
        )
