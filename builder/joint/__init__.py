"""One list of the labels of all heads: P(head) from a router, times the head's probabilities. Read ``head.py`` first."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.joint.head import FittedOnce, JointHead, fit_joint
    from builder.joint.observe import grouped_samples

__all__ = ["FittedOnce", "JointHead", "fit_joint", "grouped_samples"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import on first use: heads can be renamed where SciPy is not installed."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "observe" if name == "grouped_samples" else "head"
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
