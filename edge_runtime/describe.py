"""The description of a file that ``info`` prints."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

from edge_runtime import versions
from edge_runtime.bundle import packs_beside
from edge_runtime.counting import count_of
from edge_runtime.escape import printable
from edge_runtime.identity import model_text
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import FORMAT_VERSION, Metadata
from edge_runtime.packs import read_packs


def describe(file: str, metadata: Metadata, packs: Optional[Sequence[str]] = None) -> Dict[str, Any]:
    """The document of ``info --json``. ``metadata``: of ``file``. ``packs``: as ``MultiHeadClassifier`` takes them."""
    document = metadata.to_json()
    fields = {key: document[key] for key in ("input", "backbone", "heads", "joint", "min_runtime", "quality", "built")}
    fields["built"] = {key: value for key, value in document["built"].items() if key != "operators"}  # long, for growing
    found = read_packs(packs_beside(file) if packs is None else packs, metadata, file)
    fields["head_packs"] = [{"path": path, **pack.to_json()["head"], "quality": pack.quality} for path, pack, _ in found]
    fields["identity"] = {**metadata.identity.to_json(), **versions.identified(file, metadata)}
    return {"format_version": FORMAT_VERSION, **fields, "bytes": os.path.getsize(file)}


def info_text(file: str, spec: InputSpec, document: Dict[str, Any]) -> str:
    """The description as text for people. ``document``: the result of ``describe``."""
    backbone = document["backbone"]
    heads = count_of(len(document["heads"]), "heads")
    lines: List[str] = [
        f"{file}: {document['bytes']:,} bytes, {heads} on one backbone{_and_packs(document)}",
        f"model     {model_text(document['identity'])}{_made(document)}",
        f"input     {spec}",
        f"backbone  {backbone['digest'][:23]}, features {' x '.join(map(str, backbone['features']))}",
        f"runs on   TensorFlow Lite {document['min_runtime']} and newer: tflite-runtime, any ai-edge-litert",
        "heads",
    ]
    qualities = dict(document["quality"].get("heads", {}))
    for pack in document["head_packs"]:
        qualities.update(pack["quality"].get("heads", {}))
    everything = [*document["heads"], *document["head_packs"]]
    width = max((len(head["head_name"]) for head in everything), default=0)
    for head in everything:
        labels = ", ".join(head["labels"][:8]) + (", ..." if len(head["labels"]) > 8 else "")
        quality = qualities.get(head["head_name"])
        on = f"{quality['pictures']}{' of noise' if document['quality'].get('noise') else ''}" if quality else ""
        agreement = f", agreement {agreement_text(quality)} on {on}" if quality else ""
        pack = f" (pack {head['path']})" if "path" in head else ""
        title = ' "{}"'.format(head["title"]) if "title" in head else ""
        facts = f"{head['bytes']:7,} bytes, {head['activation']}{agreement}"
        lines.append(f"  {head['head_name']:{width}}{title}  {facts}: {labels}{pack}")
    joint = document["joint"]
    if joint is not None:
        lines.append(f"joint     {len(joint['labels'])} labels, a picture of no head below {joint['threshold']}")
    return "\n".join(map(printable, lines))


def agreement_text(quality: Mapping[str, Any]) -> str:
    """The agreement of a head with three digits, as its build printed it: the member's four would be rounded twice."""
    share, count = quality["agreement"], quality["pictures"]
    return "{:.3f}".format(round(share * count) / count if 0 <= share <= 1 and count > 0 else share)


def _made(document: Dict[str, Any]) -> str:
    """When, by whom and with what, as far as it is said."""
    identity = document["identity"]
    words = {"built": identity.get("built_at"), "by": identity.get("author"), "licence": identity.get("licence")}
    words["polyhead"] = document["built"].get("polyhead")
    return "".join(f", {word} {value}" for word, value in words.items() if value)


def _and_packs(document: Dict[str, Any]) -> str:
    return f", and {len(document['head_packs'])} in packs" if document["head_packs"] else ""
