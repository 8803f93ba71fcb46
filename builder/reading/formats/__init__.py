"""Read model files of every usual kind without building the model and without running code from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.reading.formats.archive import read_archive
    from builder.reading.formats.labels import read_label_file
    from builder.reading.formats.reading import read_model
    from builder.reading.formats.stored import Origin, StoredModel

__all__ = ["Origin", "StoredModel", "read_archive", "read_label_file", "read_model"]

_HOMES = {
    "Origin": "stored",
    "StoredModel": "stored",
    "read_archive": "archive",
    "read_label_file": "labels",
    "read_model": "reading",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import on first use: label files are also read without TensorFlow."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
