"""Model files of every usual kind, read without building the model and without running what they bring."""

from __future__ import annotations

from builder.formats.archive import read_archive
from builder.formats.stored import Origin, StoredModel

__all__ = ["Origin", "StoredModel", "read_archive"]
