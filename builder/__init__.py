"""Merge classifiers that share a frozen backbone into one int8 ``.tflite`` file."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.pipeline import BuildResult, build
    from builder.settings.config import BuildConfig
    from builder.settings.heads import HeadConfig
    from builder.support.errors import BuilderError

# TensorFlow reads these once, when it is imported. Builds run on the CPU: the same inputs give the same bytes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

__all__ = ["BuildConfig", "BuildResult", "BuilderError", "HeadConfig", "build"]

_HOMES = {
    "BuildConfig": "builder.settings.config",
    "BuildResult": "builder.pipeline",
    "BuilderError": "builder.support.errors",
    "HeadConfig": "builder.settings.config",
    "build": "builder.pipeline",
}


if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import on first use: ``build`` takes seconds to import, and a command must be interruptible meanwhile."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
