"""The identity of the finished file: name, version, digests of its sources; no build time unless one is given."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from builder.samples.files import Sample
from builder.settings.config import BuildConfig
from builder.support.errors import ConfigError
from edge_runtime.identity import Identity, file_digest

EPOCH = "SOURCE_DATE_EPOCH"


def identity_of(config: BuildConfig, samples: Iterable[Sample]) -> Identity:
    """The same inputs give the same identity. ``samples``: the calibration samples. Raises ``ConfigError``."""
    content = hashlib.sha256("\n".join(sorted(sample.digest for sample in samples)).encode())
    return Identity(
        name=config.name or "",
        version=config.version or "",
        built_at=built_at(os.environ.get(EPOCH)),
        author=config.author or "",
        licence=config.licence or "",
        calibration="" if config.calibration_data is None else f"sha256:{content.hexdigest()}",
        sources={head.name: source_digest(head.model) for head in config.heads},
    )


def built_at(epoch: str | None) -> str:
    """The build time in UTC (ISO 8601) from ``SOURCE_DATE_EPOCH``, which reproducible builds set; empty without it.

    Source: reproducible-builds.org/specs/source-date-epoch. Raises ``ConfigError``.
    """
    if epoch is None:
        return ""
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"{EPOCH}: expected seconds since 1970, found {epoch!r:.60}") from error


def source_digest(path: Path) -> str:
    """``sha256:...`` of a file's bytes, or of the names and digests of the files in a folder."""
    if not path.is_dir():
        return file_digest(str(path))
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = (f"{file_digest(str(p))} {p.relative_to(path).as_posix()}\n" for p in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode('utf-8', 'surrogatepass')).hexdigest()}"
