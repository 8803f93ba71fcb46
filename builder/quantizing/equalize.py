"""Cross-layer equalization: scale the channels of a tensor to similar ranges, and undo it in the layers that read them.

A tensor has one scale for all its channels, so a channel with a small range gets few of the 256 steps. Where between two
layers lies only what passes scales on (``channels.py``), channel c may be divided by s_c in the first and multiplied by
it in the second: ``s = r1^a / r2^(1 - a)``, r1 the channel's range, r2 that of the weights that read it (Nagel et al.
2019, arXiv 1906.04721, equation 11, with a = 1/2; Xiao et al. 2023, arXiv 2211.10438, equation 4). The network's outputs
stay the same.

ReLU commutes with a positive scale. ReLU6 would clip at another value, also in channels that never reached 6 on the
calibration pictures (docs/concepts/quantization.md): no channel is scaled across it, and across swish ``swish.py`` does
it. Tensors that residual additions join get the same scales.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from builder.quantizing.backbone_runner import by_channel
from builder.quantizing.channels import Group, groups, scale_inputs, scale_outputs, weights_of
from builder.tflite.flatbuffer import Part, operator_name, read_parts
from builder.tflite.writer import write_parts
from edge_runtime.metadata import BACKBONE

STRENGTH = 0.5  # a; 0.75 and 1 were no better (docs/concepts/quantization.md)
_MOST = 2.0**16  # largest ratio between the scales of two channels


def equalized(model: bytes, images: np.ndarray, advance: Callable[[], None] = lambda: None) -> bytes:
    """The float ``model`` with its backbone equalized for ``images``, float32 (samples, height, width, 3), as its
    ``image`` takes them. ``advance`` is called after each image.
    """
    parts = read_parts(model)
    tensors = equalizable(parts[BACKBONE])
    if not tensors:
        return model
    ranges = _channel_ranges(model, parts[BACKBONE], tensors, images, advance)
    return write_parts({**parts, BACKBONE: equalize(parts[BACKBONE], ranges)})


def _channel_ranges(
    model: bytes, backbone: Part, tensors: set[int], images: np.ndarray, advance: Callable[[], None]
) -> dict[int, np.ndarray]:
    found = dict[int, np.ndarray]()
    for held in by_channel(model, backbone, tensors, images):
        for i, values in held.items():
            largest = np.abs(values).max(0)
            found[i] = np.maximum(found.get(i, largest), largest)
        advance()
    return found


def equalize(part: Part, channel_ranges: Mapping[int, np.ndarray]) -> Part:
    """An equalized copy of a float part, with the same outputs. ``channel_ranges``: for each tensor, the largest
    magnitude of each channel, float (channels,).
    """
    found = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers))
    for group in _linear(part):
        values = np.max([channel_ranges[i] for i in sorted(group.tensors)], axis=0)
        scale = _scale(values, np.max([_reading(part, op, values) for op in group.readers], axis=0))
        for op in group.makers:
            scale_outputs(found, op, 1 / scale)
        for op in group.readers:
            scale_inputs(found, op, scale)
    return found


def equalizable(part: Part) -> set[int]:
    """The tensors whose channels ``equalize`` may scale."""
    return {i for group in _linear(part) for i in group.tensors}


def _linear(part: Part) -> list[Group]:
    """Those without a swish, which ``swish.py`` takes."""
    return [group for group in groups(part) if group.scalable and not group.sigmoids]


def _scale(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The divisor of each channel; 1 where nothing is known. The largest is near 1."""
    known = (values > 0) & (weights > 0)
    if not known.any():
        return np.ones(len(values), np.float32)
    scale = np.ones(len(values))
    scale[known] = values[known] ** STRENGTH / weights[known] ** (1 - STRENGTH)
    scale[known] /= scale[known].max()
    return np.maximum(scale, 1 / _MOST).astype(np.float32)


def _reading(part: Part, op: Any, values: np.ndarray) -> np.ndarray:
    """The largest weight that reads each channel, (channels,), relative to the largest contribution of any channel to its
    output, so that neither the scale of outputs nor that of channels matters. ``values``: ranges of the channels.
    """
    weights = np.abs(weights_of(part, op))
    if operator_name(part, op) == "DEPTHWISE_CONV_2D":
        return np.asarray(1 / np.maximum(values, 1e-30))  # each channel has a scale of its own
    flat = weights.reshape(weights.shape[0], -1, weights.shape[-1])
    most = np.maximum((flat * values).max((1, 2), keepdims=True), 1e-30)
    return np.asarray((flat / most).max((0, 1)))
