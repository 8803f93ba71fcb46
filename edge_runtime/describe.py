"""What ``info`` says of a file."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional, Sequence

from edge_runtime import versions
from edge_runtime.bundle import packs_beside
from edge_runtime.heads import read_packs
from edge_runtime.metadata import FORMAT_VERSION, Metadata


def describe(file: str, metadata: Metadata, packs: Optional[Sequence[str]] = None) -> Dict[str, Any]:
    """The document of ``info --json``. ``metadata``: of ``file``. ``packs``: as ``MultiHeadClassifier`` takes them."""
    document = metadata.to_json()
    fields = {key: document[key] for key in ("input", "backbone", "heads", "joint", "min_runtime", "quality", "built")}
    found = read_packs(packs_beside(file) if packs is None else packs, metadata, file)
    fields["head_packs"] = [{"path": path, **pack.to_json()["head"], "quality": pack.quality} for path, pack, _ in found]
    fields["identity"] = {**metadata.identity.to_json(), **versions.identified(file, metadata)}
    return {"format_version": FORMAT_VERSION, **fields, "bytes": os.path.getsize(file)}
