"""Content and quantization of tensors."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from edge_runtime.flatbuffer.model import TYPES, Model
from edge_runtime.flatbuffer.tables import refuse_where

_WIDTH_OF_CONTENT = {kind: max(bits // 8, 1) for kind, (_, bits) in TYPES.items()}
# What a zero point may be. Biases (int32, int64) and int16 are symmetric; other types have none.
_ZERO_POINTS = {3: (0, 255), 7: (0, 0), 9: (-128, 127), 17: (-8, 7), 2: (0, 0), 4: (0, 0)}
_STORED = (3, 7, 9, 17)  # types whose numbers mean nothing without a scale
SCALES = 2.0**-80, 2.0**80  # of those: products and quotients of two of them are still numbers


def check_content(model: Model) -> None:
    """A constant has as many bytes as its shape says, where its type may be read."""
    tensors = model.tensors
    size, start = model.buffer_bytes[tensors.buffer], model.buffer_starts[tensors.buffer]
    wrong = (size > 0) & (size != tensors.bytes)
    refuse_where(
        wrong,
        lambda i: (
            f"a constant of {size[i]:,} bytes, where its shape {shape_of(model, i)} and type need {tensors.bytes[i]:,}"
        ),
    )
    widths = np.zeros(256, np.int64)
    widths[list(_WIDTH_OF_CONTENT)] = list(_WIDTH_OF_CONTENT.values())
    refuse_where((size > 0) & (start % widths[tensors.type] != 0), lambda i: "a constant that is not aligned")


def scales_of(model: Model) -> Tuple[np.ndarray, np.ndarray]:
    """Scales are numbers that can be computed with, zero points lie in their type, channels have a scale each.

    Returns the first scale of each tensor, float32 (tensors,), 0 where there is none; and whether it has several.
    """
    tensors = model.tensors
    tables, owners = tensors.tables.tables(4)
    for field, kind in ((0, "f4"), (1, "f4")):
        tables.vectors(field, 4).values(kind)
    refuse_where(tables.scalars(4, "u1") != 0, lambda i: "a tensor quantized in a way of its own")
    scales, zeros = tables.vectors(2, 4), tables.vectors(3, 8)
    axis = tables.scalars(6, "i4")
    type_, rank = tensors.type[owners], tensors.rank[owners]
    refuse_where(scales.counts != zeros.counts, lambda i: "a tensor with more scales than zero points, or fewer")
    many = scales.counts > 1
    refuse_where(many & ((axis < 0) | (axis >= rank)), lambda i: f"scales along axis {axis[i]} of {rank[i]}")
    channels = tensors.shape[owners, np.where(many, axis, 0)]
    refuse_where(many & (channels != scales.counts), lambda i: f"{scales.counts[i]} scales for {channels[i]} channels")
    _check_numbers(scales.values("f4"), zeros.values("i8"), type_[scales.owners])
    first, per_channel = np.zeros(len(tensors.type), np.float32), np.zeros(len(tensors.type), bool)
    there = np.flatnonzero(scales.counts)
    first[owners[there]] = model.data.read("f4", scales.starts[there])
    per_channel[owners] = many
    return first, per_channel


def _check_numbers(scale: np.ndarray, zero: np.ndarray, type_: np.ndarray) -> None:
    wrong = ~(np.isfinite(scale) & (scale >= 0))
    refuse_where(wrong, lambda i: f"a scale of {scale[i]}")
    real = np.isin(type_, _STORED)
    refuse_where(
        real & ((scale < SCALES[0]) | (scale > SCALES[1])),
        lambda i: f"a scale of {scale[i]:.3g}, with which nothing can be computed",
    )
    least, most = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for kind, (low, high) in _ZERO_POINTS.items():
        least[kind], most[kind] = low, high
    refuse_where(
        (zero < least[type_]) | (zero > most[type_]), lambda i: f"zero point {zero[i]} of {TYPES[int(type_[i])][0]}"
    )


def shape_of(model: Model, tensor: int) -> list:
    found: list = model.tensors.shape[tensor, : model.tensors.rank[tensor]].tolist()
    return found
