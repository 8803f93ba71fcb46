"""Modules that take seconds to import, and that are not there where only ``.tflite`` files are built from."""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for the module ``name``, which is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
