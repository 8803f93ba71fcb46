"""Bias correction: the bias takes up the mean error of a layer (Nagel et al. 2019, arXiv 1906.04721, section 4.2)."""

from __future__ import annotations

import numpy as np


def bias_shift(signal: np.ndarray, device: np.ndarray, weights: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """What the bias has to grow by (groups, outputs) for the mean error to be 0.

    ``signal``, ``device``: mean inputs (groups, 1, taps) in float and on the device, which gives the paper's correction
    also what was lost before the layer. ``weights``, ``rounded``: (groups, taps, outputs) in float and as the device
    has them.
    """
    return np.asarray((signal.astype(np.float64) @ weights - device.astype(np.float64) @ rounded)[:, 0])
