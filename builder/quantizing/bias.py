"""Bias correction: the bias absorbs the mean error of a layer (Nagel et al. 2019, arXiv 1906.04721, section 4.2)."""

from __future__ import annotations

import numpy as np


def bias_shift(signal: np.ndarray, device: np.ndarray, weights: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """The correction of the bias (groups, outputs) that makes the mean error 0.

    ``signal``, ``device``: mean inputs (groups, 1, taps) in float and on the device. Beyond the paper, this also corrects
    errors from before the layer. ``weights``, ``rounded``: (groups, taps, outputs) in float and on the device.
    """
    return np.asarray((signal.astype(np.float64) @ weights - device.astype(np.float64) @ rounded)[:, 0])
