"""The float backbone, run sample by sample on several threads."""

from __future__ import annotations

from typing import Any

from builder.support.threads import OfEachThread
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE


def backbone_runner(model: bytes) -> OfEachThread[Any]:
    """Gives the runner of the backbone's signature, one for each thread; each computes on one thread."""
    _, factory = find_interpreter("ai_edge_litert")
    return OfEachThread(lambda: factory(model_content=model, num_threads=1).get_signature_runner(BACKBONE))
