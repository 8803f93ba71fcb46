"""Bias correction: the bias absorbs the mean error of a layer (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

Beyond the paper, errors from before the layer are corrected as well, and where a swish or a sigmoid follows, what
counts is the error behind it: most of the mean error in front of it lies where it is flat.
"""

from __future__ import annotations

import numpy as np

from builder.quantizing.response import Function, slope

STEPS = 2  # of Gauss and Newton
_FLAT = 1e-3  # mean squared slope, below which a shift is not trusted


def bias_shift(signal: np.ndarray, device: np.ndarray, weights: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """The correction of the bias (groups, outputs) that makes the mean error 0.

    ``signal``, ``device``: mean inputs (groups, 1, taps) in float and on the device. ``weights``, ``rounded``: (groups,
    taps, outputs) in float and on the device.
    """
    return np.asarray((signal.astype(np.float64) @ weights - device.astype(np.float64) @ rounded)[:, 0])


def shift_behind(truth: np.ndarray, found: np.ndarray, response: Function) -> np.ndarray:
    """The correction of the bias (groups, outputs) with the least squared error behind the activation ``response``.

    ``truth``, ``found``: outputs (groups, rows, outputs) in float and on the device, with the float bias.
    """
    wanted, shift, width = response(truth), np.zeros_like(truth[:, :1]), error_size(truth, found)
    for _ in range(STEPS):
        steepness = slope(response, found + shift, width)
        missing = np.mean(steepness * (wanted - response(found + shift)), axis=1, keepdims=True)
        shift = shift + missing / (np.mean(steepness**2, axis=1, keepdims=True) + _FLAT)
    return np.asarray(shift[:, 0])


def error_size(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Root of the mean squared error of each output, (groups, 1, outputs)."""
    return np.asarray(np.sqrt(np.mean((truth - found) ** 2, axis=1, keepdims=True)) + 1e-9)
