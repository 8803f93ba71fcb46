"""The float network made ready for int8: the same function with less to lose, and nothing to compute in addition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from builder.quantizing.equalize import equalized
from builder.quantizing.fold import folded
from builder.quantizing.spare import with_copies
from builder.tflite.parts import Range

SAMPLES = 64


def prepared(
    model: bytes, inputs: np.ndarray, input_range: Range | None, advance: Callable[[], None] = lambda: None
) -> bytes:
    """The float ``model`` with its backbone folded and equalized, and spare channels in use.

    ``inputs``: (samples, ...), as the backbone takes them, of which the first ``SAMPLES`` count; ``advance`` is called
    after each. ``input_range``: of all that a pixel can be; None for tokens.
    """
    return with_copies(equalized(folded(model), inputs[:SAMPLES], advance), inputs, input_range)
