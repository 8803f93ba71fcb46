"""Model files of every usual kind, read without building the model and without running what they bring."""

from __future__ import annotations

from builder.reading.formats.archive import read_archive
from builder.reading.formats.labels import read_label_file
from builder.reading.formats.reading import read_model
from builder.reading.formats.stored import Origin, StoredModel

__all__ = ["Origin", "StoredModel", "read_archive", "read_label_file", "read_model"]
