"""Lazy imports of modules that take seconds, or are not installed where only ``.tflite`` files are used."""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for the module ``name``, which is imported on first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
