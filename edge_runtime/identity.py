"""The identity of a file: its name and version, when and from what it was built, and its digest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping

from edge_runtime.errors import BundleError
from edge_runtime.files import open_file

MAX_LENGTH = 200  # characters of a field
_CHUNK_BYTES = 1 << 20
_TEXTS = ("name", "version", "built_at", "author", "licence", "calibration")


@dataclass(frozen=True)
class Identity:
    """Read the identity from ``polyhead.json``; a missing field is empty.

    ``version``: any text, a number or a date. ``built_at``: UTC, ISO 8601. ``calibration``: the digest of the calibration
    samples. ``sources``: the digest of each head's source, by its name.
    """

    name: str = ""
    version: str = ""
    built_at: str = ""
    author: str = ""
    licence: str = ""
    calibration: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        """The member's ``identity``: what was given."""
        texts = {key: getattr(self, key) for key in _TEXTS if getattr(self, key)}
        return {**texts, **({"sources": dict(self.sources)} if self.sources else {})}

    @classmethod
    def from_json(cls, document: Any) -> Identity:
        """Older files have none. Raises ``BundleError``."""
        if document is None:
            return cls()
        if not isinstance(document, dict):
            raise BundleError(f"expected 'identity' as dict, found {document!r:.60}")
        sources = document.get("sources", {})
        if not isinstance(sources, dict):
            raise BundleError(f"expected identity's sources as dict, found {sources!r:.60}")
        texts = {key: bounded_text(f"identity's {key}", document.get(key, "")) for key in _TEXTS}
        return cls(sources={name: bounded_text("identity's sources", value) for name, value in sources.items()}, **texts)


def file_digest(path: str) -> str:
    """``sha256:...`` of all bytes of the file at ``path``, as ``sha256sum`` has it."""
    import hashlib  # most open a file and do not ask

    digest = hashlib.sha256()
    with open_file(path) as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def model_document(path: str, identity: Identity, digest: str) -> Dict[str, Any]:
    """The identity in short, for lines, logs and pages. Without a name, the name of the file that ``path`` leads to."""
    name = identity.name or os.path.splitext(os.path.basename(os.path.realpath(path)))[0]
    return {"name": name, "version": identity.version or None, "digest": digest}


def model_text(document: Mapping[str, Any]) -> str:
    """The identity as text for people: ``doors 3 (sha256:1f2e3d4c5b6a)``."""
    return " ".join(filter(None, (document["name"], document["version"], f"({document['digest'][:19]})")))


def bounded_text(what: str, value: Any) -> str:
    """``value``, a text that people wrote. Raises ``BundleError`` for anything else, and for a long one."""
    if not isinstance(value, str) or len(value) > MAX_LENGTH:
        raise BundleError(f"expected {what} as a text of {MAX_LENGTH} characters at most, found {value!r:.60}")
    return value
