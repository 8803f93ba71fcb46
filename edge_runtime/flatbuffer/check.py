"""``check_model``: from the structure to the operators."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np

from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer.model import Model
from edge_runtime.flatbuffer.operators import check_operators
from edge_runtime.flatbuffer.order import arena_bytes, operator_that_makes
from edge_runtime.flatbuffer.tables import Data, refuse_where
from edge_runtime.flatbuffer.tensors import check_content, scales_of, shape_of

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TensorFlow Lite flatbuffer


class ModelLimits(NamedTuple):
    """``items``: of any one kind of table or list. ``arena_bytes``: of the tensors between the operators."""

    items: int = 1_000_000
    tensor_bytes: int = 1 << 29
    arena_bytes: int = 1 << 30


DEFAULT_LIMITS = ModelLimits()


def check_model(data: Any, *, limits: ModelLimits = DEFAULT_LIMITS) -> Model:
    """Would an interpreter run this flatbuffer?

    Checked are offsets, counts and indices; shapes against contents; types; scales and zero points; the order of the
    operators; and for each operator the number, type and shape of what it takes and gives, as far as they are known
    before it runs. What no classifier needs is refused by its name: custom operators, control flow, variables.

    Args:
        data: bytes, or anything with the buffer protocol; it is not changed.
        limits: Refused is what is larger.

    Returns:
        Its tables, of which ``Views`` gives parts. They keep ``data``.

    Raises:
        BundleError: One line, the first thing that is wrong.
    """
    return check_structure(data, limits=limits)()


def check_structure(data: Any, *, limits: ModelLimits = DEFAULT_LIMITS) -> Callable[[], Model]:
    """All of ``check_model`` but the rules of the operators, which the result checks: the shapes of a model that takes
    pictures of any size are a stand-in's until it has one.
    """
    if bytes(data[4:8]) != IDENTIFIER:
        raise BundleError("not a TensorFlow Lite model")
    with np.errstate(all="ignore"):
        model = Model(Data(data, limits.items))
        tensors = model.tensors
        refuse_where(
            tensors.bytes > limits.tensor_bytes,
            lambda i: (
                f"a tensor {shape_of(model, i)} of {tensors.bytes[i]:,} bytes, "
                f"more than the {limits.tensor_bytes:,} that are allowed"
            ),
        )
        check_content(model)
        scale, per_channel = scales_of(model)
        needed = arena_bytes(model, operator_that_makes(model))
        if needed > limits.arena_bytes:
            raise BundleError(f"{needed:,} bytes of memory to run, more than the {limits.arena_bytes:,} that are allowed")

    def rules() -> Model:
        with np.errstate(all="ignore"):
            check_operators(model, scale, per_channel)
        return model

    return rules
