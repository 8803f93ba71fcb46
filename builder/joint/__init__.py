"""One list of the labels of all heads: P(head) from a router, times what each head says. Read ``head.py`` first."""

from __future__ import annotations

from builder.joint.head import FittedOnce, JointHead, fit_joint
from builder.joint.observe import grouped_samples

__all__ = ["FittedOnce", "JointHead", "fit_joint", "grouped_samples"]
