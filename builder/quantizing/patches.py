"""The inputs that a layer multiplies with its weights, as rows of a matrix (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from builder.quantizing.refit import held_out

SAME = 0  # the schema's Padding


def sample_patches(
    kind: str, options: Any, shape: tuple[int, ...], inputs: Sequence[tuple[np.ndarray, float]], rows: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """For each of ``inputs``, versions of the same samples, patches (groups, rows, taps) at the same positions; and the
    index of each row's sample, (rows,).

    ``inputs``: values, and the value that stands for zero, which pads them. ``shape``: of the weights as the file has
    them. A convolution is one group with height x width x channels taps; a depthwise convolution has a group for each
    channel with height x width taps. ``rows``: most positions, drawn with a fixed seed.
    """
    if kind == "FULLY_CONNECTED":
        flat = [x.reshape(-1, x.shape[-1]) for x, _ in inputs]
        chosen = _draw(len(flat[0]), rows, len(inputs[0][0]))
        return [x[chosen][None] for x in flat], chosen // (len(flat[0]) // len(inputs[0][0]))
    height, width = shape[1:3]
    samples, in_height, in_width, _ = inputs[0][0].shape
    out_y = _positions(in_height, height, options.strideH, options.dilationHFactor, options.padding)
    out_x = _positions(in_width, width, options.strideW, options.dilationWFactor, options.padding)
    places = _draw(samples * len(out_y) * len(out_x), rows, samples)
    n, y, x = np.unravel_index(places, (samples, len(out_y), len(out_x)))
    row, column = out_y[y][:, :, None], out_x[x][:, None, :]  # (rows, height, 1), (rows, 1, width)
    outside = (row < 0) | (row >= in_height) | (column < 0) | (column >= in_width)
    at = n[:, None, None], row.clip(0, in_height - 1), column.clip(0, in_width - 1)
    patches = []
    for values, zero in inputs:
        taken = values[at]
        taken[outside] = zero
        by_tap = taken.reshape(len(places), height * width, -1)
        patches.append(by_tap.transpose(2, 0, 1) if kind == "DEPTHWISE_CONV_2D" else by_tap.reshape(1, len(places), -1))
    return patches, n


def _draw(count: int, most: int, samples: int) -> np.ndarray:
    """At most ``most`` of the positions 0 to ``count`` - 1, which follow each other sample by sample. Those of samples
    that a refit holds out come last.
    """
    items = np.arange(count)
    if count > most:
        items = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
    return items[np.argsort(held_out(items // (count // samples)), kind="stable")]


def _positions(size: int, kernel: int, stride: int, dilation: int, padding: int) -> np.ndarray:
    """(outputs, kernel): the input index under each tap; below 0, or ``size`` and above, in the padding."""
    extent = (kernel - 1) * dilation + 1
    if padding == SAME:
        outputs = -(-size // stride)
        before = max((outputs - 1) * stride + extent - size, 0) // 2
    else:
        outputs, before = (size - extent) // stride + 1, 0
    return np.arange(outputs)[:, None] * stride + np.arange(kernel)[None] * dilation - before
