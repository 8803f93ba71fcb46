"""Classifies pictures from a camera, a stream, a video or a folder as they arrive. Read ``camera.py`` first."""

from __future__ import annotations

from edge_runtime.camera.camera import Answer, Camera, Event, Heads, Seen

__all__ = ["Answer", "Camera", "Event", "Heads", "Seen"]
