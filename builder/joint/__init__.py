"""One list of the labels of all heads: P(head) from a router, times what each head says. Read ``head.py`` first."""

from __future__ import annotations

from builder.joint.head import JointHead, NoJoint, fit_joint, grouped_samples

__all__ = ["JointHead", "NoJoint", "fit_joint", "grouped_samples"]
