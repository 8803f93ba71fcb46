"""The float network made ready for int8: the same function with less to lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from builder.quantizing.equalize import equalized
from builder.quantizing.fold import folded
from builder.quantizing.quantize import STATIC
from builder.quantizing.spare import with_copies
from builder.quantizing.swish import swish_equalized
from builder.tflite.parts import Range

SAMPLES = 64


class Prepared(NamedTuple):
    """``floating``: for precisions that compute in float; there is nothing to compute in addition. ``integer``: for those
    with integer activations, with the products that ``swish.py`` adds; the same bytes where it adds none.
    """

    floating: bytes
    integer: bytes

    def of(self, precision: str) -> bytes:
        """The network that a precision is made from."""
        return self.integer if precision in STATIC else self.floating


def prepared(
    model: bytes,
    inputs: np.ndarray,
    input_range: Range | None,
    advance: Callable[[], None] = lambda: None,
    *,
    integer: bool = True,
) -> Prepared:
    """The float ``model`` with its backbone folded and equalized, and spare channels in use.

    ``inputs``: (samples, ...), as the backbone takes them, of which the first ``SAMPLES`` count; ``advance`` is called
    after each. ``input_range``: of all that a pixel can be; None for tokens. ``integer``: whether the network for
    integer activations is wanted.
    """
    found = with_copies(equalized(folded(model), inputs[:SAMPLES], advance), inputs, input_range)
    return Prepared(found, swish_equalized(found, inputs) if integer else found)
