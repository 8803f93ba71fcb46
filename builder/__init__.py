"""Merge Keras classifiers that share a frozen backbone into one int8 ``.tflite`` file."""

import os
from typing import Any

from builder.settings.config import BuildConfig, HeadConfig
from builder.support.errors import BuilderError

# TensorFlow reads these once, when it is imported. Builds run on the CPU: the same inputs give the same bytes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

__all__ = ["BuildConfig", "BuildResult", "BuilderError", "HeadConfig", "build"]


def __getattr__(name: str) -> Any:
    """``build`` and ``BuildResult`` import TensorFlow, which takes seconds: only when they are asked for."""
    if name in ("build", "BuildResult"):
        from builder import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
