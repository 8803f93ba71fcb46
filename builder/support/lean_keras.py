"""Keras without the libraries of its plots and wrappers, for which it takes a third of the time of its import."""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any

_NOT_NEEDED = ("matplotlib", "sklearn")


def spare_keras() -> None:
    """From now on Keras, while it is imported, does not find these libraries; everything else does.

    Only for a process of our own, because Keras never looks for them again.
    """
    sys.meta_path.insert(0, _NotForKeras())


class _NotForKeras(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        spec = getattr(sys.modules.get("keras"), "__spec__", None)  # tf_keras imports it too
        if name in _NOT_NEEDED and getattr(spec, "_initializing", False):  # as importlib marks what is being imported
            raise ModuleNotFoundError(f"{name} is not for Keras", name=name)
