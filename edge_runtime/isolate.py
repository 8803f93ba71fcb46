"""Tries a file in a separate process before this one opens it.

If an interpreter crashes on the file, only that process ends (``trial.py``). This one reports it and continues.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Dict, Optional, Sequence

from edge_runtime.errors import BundleError

TIMEOUT = 120.0  # seconds; a Zero 2 needs some ten


def try_in_child(path: str, interpreter: Optional[str], packs: Sequence[str]) -> None:
    """Raises ``BundleError`` where the child refuses the file at ``path``, crashes on it, or takes too long."""
    command = [sys.executable, "-m", "edge_runtime.trial", path, interpreter or "", *packs]
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=TIMEOUT, env=_environment()
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{path}: no answer in {TIMEOUT:.0f} s in a trial in a separate process") from error
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode < 0:
        words = f": {said[-1]:.200}" if said else ""
        raise BundleError(f"{path}: the interpreter crashes on it (signal {-done.returncode}){words}")
    raise BundleError(said[-1] if said else f"{path}: cannot be run (exit code {done.returncode})")


def _environment() -> Dict[str, str]:
    """The child finds this very package, wherever it was started from."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    there = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": here + (os.pathsep + there if there else "")}
