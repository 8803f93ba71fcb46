"""Run a polyhead file: one backbone, many classification heads, without TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.engine import MultiHeadClassifier
    from edge_runtime.errors import (
        BundleError,
        EdgeRuntimeError,
        InterpreterError,
        PictureError,
        TextError,
        UnknownHeadError,
    )
    from edge_runtime.results import Category, ClassificationResult, Classifications

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Category",
    "ClassificationResult",
    "Classifications",
    "EdgeRuntimeError",
    "InterpreterError",
    "MultiHeadClassifier",
    "PictureError",
    "TextError",
    "UnknownHeadError",
    "__version__",
]

_RESULTS = ("Category", "ClassificationResult", "Classifications")

if not TYPE_CHECKING:  # a checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """Import a name on first use, so that a command can be interrupted at any moment."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "engine" if name == "MultiHeadClassifier" else "results" if name in _RESULTS else "errors"
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
