"""Replaces a file by a new version and goes back to the old one; compares two versions."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import zipfile
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Union

from edge_runtime.bundle import append_members, read_metadata, read_model
from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.files import draft_beside
from edge_runtime.identity import Identity, file_digest, model_document, model_text
from edge_runtime.metadata import Metadata

PREVIOUS = ".previous"  # of ``model.tflite`` the file before it is ``model.tflite.previous``


def install(new: str, path: str, trusted_key: Optional[str] = None) -> None:
    """Replace the file at ``path`` by a copy of ``new``; the old file is kept beside it.

    A reader of ``path`` finds either the whole old file or the whole new file. ``trusted_key``: as in ``read_model``.
    Raises ``BundleError`` and ``OSError``.
    """
    with _copy_beside(new, path) as draft:
        with _named(draft, new):
            read_model(draft, trusted_key)
        if os.path.exists(path):
            with _copy_beside(path, path) as kept:
                os.replace(kept, path + PREVIOUS)
        os.replace(draft, path)


def rollback(path: str, trusted_key: Optional[str] = None) -> None:
    """Exchange the file at ``path`` with the one that it replaced. A second call undoes the first.

    ``trusted_key``: as in ``read_model``. Raises ``EdgeRuntimeError`` if nothing was kept, and ``BundleError``.
    """
    previous = path + PREVIOUS
    if not os.path.exists(previous):
        raise EdgeRuntimeError(
            f"{path}: no {os.path.basename(previous)} beside it to go back to; edge-runtime install NEW {path} keeps one"
        )
    with _copy_beside(previous, path) as draft, _copy_beside(path, path) as kept:
        with _named(draft, previous):
            read_model(draft, trusted_key)
        os.replace(draft, path)
        os.replace(kept, previous)


def identify(path: str, output: str, given: Dict[str, Any]) -> None:
    """Write the file at ``path`` to ``output`` with the fields ``given`` of its identity; other fields are kept.

    The model stays the same, byte for byte; the members are written again. Raises ``BundleError``, also for a file with
    members that would be lost, and ``OSError``.
    """
    metadata = read_metadata(path)
    Identity.from_json(given)  # raises for a text that is too long
    changed = replace(metadata, identity=replace(metadata.identity, **given))
    with open(path, "rb") as file:
        data = append_members(file.read(metadata.model_bytes), changed)
    lost = sorted(set(_members(path)) - set(_members(io.BytesIO(data))))
    if lost:
        raise BundleError(
            f"{path}: has the member {lost[0]}, which is valid for the file as it is; run identify before it is added"
        )
    with draft_beside(output) as draft:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, draft)
        os.replace(draft, output)


def _members(file: Union[str, io.BytesIO]) -> List[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def identified(path: str, metadata: Metadata) -> Dict[str, Any]:
    """The identity of the file at ``path``; see ``identity.model_document``."""
    return model_document(path, metadata.identity, file_digest(path))


def difference(old: str, new: str) -> Dict[str, Any]:
    """Return the document that ``edge-runtime diff --json`` prints. Raises ``BundleError``."""
    before, after = read_metadata(old), read_metadata(new)
    documents = before.to_json(), after.to_json()
    heads = [{head["head_name"]: head for head in document["heads"]} for document in documents]
    agreement = [{name: q["agreement"] for name, q in m.quality.get("heads", {}).items()} for m in (before, after)]
    both = [name for name in heads[0] if name in heads[1]]
    parts = ("input", "joint", "identity", "built", "min_runtime", "scores")
    return {
        "old": identified(old, before),
        "new": identified(new, after),
        "same_backbone": before.backbone_digest == after.backbone_digest,
        "added": [name for name in heads[1] if name not in heads[0]],
        "removed": [name for name in heads[0] if name not in heads[1]],
        "changed": {name: found for name in both for found in [_changes(heads[0][name], heads[1][name])] if found},
        "agreement": {
            n: [agreement[0].get(n), agreement[1].get(n)] for n in both if n in agreement[0] or n in agreement[1]
        },
        "bytes": [os.path.getsize(old), os.path.getsize(new)],
        **{part: found for part in parts for found in [_changes(*(d.get(part) or {} for d in documents))] if found},
    }


def difference_text(document: Mapping[str, Any]) -> List[str]:
    """The differences as lines for people."""
    lines = [f"{model_text(document['old'])} -> {model_text(document['new'])}"]
    lines.append(f"backbone  {'the same' if document['same_backbone'] else 'another'}")
    lines.append("bytes     {:,} -> {:,}".format(*document["bytes"]))
    lines += [f"heads     {word}: {', '.join(document[word])}" for word in ("added", "removed") if document[word]]
    for name, changes in document["changed"].items():
        lines += [f"{name}: {key}  {_shown(a)} -> {_shown(b)}" for key, (a, b) in changes.items()]
    for name, (a, b) in document["agreement"].items():
        if a != b:
            lines.append(f"{name}: agreement  {_shown(a)} -> {_shown(b)}")
    for part in ("input", "joint", "identity", "built", "min_runtime", "scores"):
        found = document.get(part, {})
        lines += [f"{part}: {key}  {_shown(a)} -> {_shown(b)}" for key, (a, b) in found.items()]
    return lines


def _changes(old: Any, new: Any) -> Dict[str, List[Any]]:
    """By key both values, where they differ; of values that are no tables under the key ``value``."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return {} if old == new else {"value": [old, new]}
    keys = [*old, *(key for key in new if key not in old)]
    return {key: [old.get(key), new.get(key)] for key in keys if old.get(key) != new.get(key)}


def _shown(value: Any) -> str:
    text = "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def _named(draft: str, path: str) -> Iterator[None]:
    """What is said of the copy is said of ``path``."""
    try:
        yield
    except EdgeRuntimeError as error:
        raise type(error)(str(error).replace(draft, path)) from error


@contextlib.contextmanager
def _copy_beside(source: str, path: str) -> Iterator[str]:
    """A copy of ``source`` in the folder of ``path``, on the disk, with the rights of ``source``; gone at the end."""
    with draft_beside(path) as draft:
        with open(draft, "wb") as target, open(source, "rb") as file:
            shutil.copyfileobj(file, target)
            target.flush()
            os.fsync(target.fileno())
        shutil.copymode(source, draft)
        yield draft
