"""Channels of the first layer that are always 0 hold second copies of those whose rounding costs most.

What a channel loses by 256 steps is part of everything behind it, and the layer that reads the pixels has few channels:
a single one of them makes a tenth of all that int8 loses, while others never left 0 after training. Copies that lie parts
of a step apart are rounded differently, and their mean has as many more steps: n of them have 1/n² of the noise. (Outlier
channel splitting, Zhao et al. 2019, arXiv 1901.09504, splits channels to make the range smaller, and adds some for it;
here none is added, so nothing takes longer.)

The float network stays what it was, but for values within a step of where a ReLU begins or ends; where that is more than
next to nothing, no copies are made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.quantizing.backbone_runner import backbone_runner
from builder.quantizing.channels import is_layer, weights_of
from builder.quantizing.noise import snr_db
from builder.support.threads import beside
from builder.tflite.flatbuffer import Part, fused_activation, operator_name, read_parts
from builder.tflite.parts import Range, constant
from builder.tflite.stepper import Stepper, run_operator
from builder.tflite.writer import write_parts
from edge_runtime.metadata import BACKBONE

SAMPLES = 8
LEAST_DB = 50.0  # of the float features: int8 weights alone come to 33
_STEPS = 255
_LIMITS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0)}


@dataclass(frozen=True)
class Chain:
    """``first``: the convolution; ``depthwise``, which alone reads it; ``reader``: the 1 x 1 convolution that alone reads
    that.
    """

    first: Any
    depthwise: Any
    reader: Any


def with_copies(model: bytes, images: np.ndarray, input_range: Range | None) -> bytes:
    """The float ``model`` with spare channels of its backbone in use.

    ``images``: (samples, ...), as the backbone takes them. ``input_range``: the least and the greatest value that a pixel
    can have there; None where the input is no picture, and nothing is spare.
    """
    parts = read_parts(model)
    part = parts[BACKBONE]
    chain = find_chain(part)
    spare = [] if chain is None or input_range is None else spare_channels(part, chain.first, input_range)
    if chain is None or not spare:
        return model
    truth = Stepper(part, dict.fromkeys(part.inputs.values(), images[:SAMPLES]))
    noise, steps = _noise(part, chain, truth)
    found = use(part, chain, spare, most_useful(noise, len(spare)), steps)
    before, after = (_features(p, images[:SAMPLES]) for p in (part, found))
    near = all(snr_db(values, after[name]) >= LEAST_DB for name, values in before.items())
    return write_parts({**parts, BACKBONE: found}) if near else model


def find_chain(part: Part) -> Chain | None:
    """Of the convolution that reads the pixels; None where others stand behind it, or it has no ReLU."""
    first = next((op for op in part.operators if operator_name(part, op) == "CONV_2D"), None)
    if first is None or not _reads_pixels(part, first):
        return None
    depthwise = _only_reader(part, first, "DEPTHWISE_CONV_2D")
    reader = None if depthwise is None else _only_reader(part, depthwise, "CONV_2D")
    chain = Chain(first, depthwise, reader)
    if reader is None or not all(is_layer(part, op) for op in (first, depthwise, reader)):
        return None
    relu = {fused_activation(op) for op in (first, depthwise)} <= set(_LIMITS)
    return chain if relu and weights_of(part, reader).shape[1:3] == (1, 1) else None


def _features(part: Part, images: np.ndarray) -> dict[str, np.ndarray]:
    run, (name,) = backbone_runner(write_parts({BACKBONE: part})), part.inputs
    found = list(beside(lambda image: {k: v.copy() for k, v in run()(**{name: image[None]}).items()}, images))
    return {k: np.concatenate([sample[k] for sample in found]) for k in part.outputs}


def _only_reader(part: Part, op: Any, kind: str) -> Any:
    (result,) = op.outputs
    readers = [other for other in part.operators if result in other.inputs]
    if len(readers) != 1 or result in part.outputs.values() or operator_name(part, readers[0]) != kind:
        return None
    return readers[0]


def _reads_pixels(part: Part, op: Any) -> bool:
    """Whether the input of ``op`` is the part's, perhaps with zeros around it."""
    makers = {maker.outputs[0]: maker for maker in part.operators if operator_name(part, maker) == "PAD"}
    source = op.inputs[0]
    return (makers[source].inputs[0] if source in makers else source) in part.inputs.values()


def spare_channels(part: Part, layer: Any, input_range: Range) -> list[int]:
    """The channels that are 0 for every picture. ``input_range``: of a pixel; samples would not tell what others hold."""
    low, high = min(*input_range, 0.0), max(*input_range, 0.0)  # 0 lies around the picture
    weights, bias = weights_of(part, layer), _bias(part, layer)
    most = np.sum(np.maximum(weights * low, weights * high), axis=(1, 2, 3)) + bias
    return [int(channel) for channel in np.flatnonzero(most <= 0)]


def _noise(part: Part, chain: Chain, truth: Stepper) -> tuple[np.ndarray, tuple[float, float]]:
    """Mean squared change of the features when one channel of the first layer and of the depthwise one behind it is
    rounded, (channels,); and the steps of the two.
    """
    source, result = chain.first.outputs[0], chain.depthwise.outputs[0]
    rounded, step = _rounded(truth.until(source))
    found, own_step = _rounded(run_operator(part, chain.depthwise, [rounded], [source])[0])
    values = truth.until(result).copy()  # channels stay apart as far as here
    run = backbone_runner(write_parts({BACKBONE: truth.rest()[0]}))

    def of(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Of one sample, (channels,)."""
        (sample, other), noise = pair, np.zeros(values.shape[-1])

        def features(sample: np.ndarray) -> np.ndarray:
            given = run()(**{f"in{result}": sample[None]})
            return np.concatenate([given[name].ravel() for name in sorted(given)])

        right = features(sample)
        for channel in np.flatnonzero(np.any(sample != other, axis=(0, 1))):
            moved = sample.copy()
            moved[..., channel] = other[..., channel]
            noise[channel] = np.mean((features(moved) - right) ** 2)
        return noise

    return np.mean(list(beside(of, zip(values, found, strict=True))), axis=0), (step, own_step)


def _rounded(values: np.ndarray) -> tuple[np.ndarray, float]:
    step = max(float(values.max()), 1e-6) / _STEPS
    return (np.rint(values / step) * step).astype(np.float32), step


def most_useful(noise: np.ndarray, spare: int) -> dict[int, int]:
    """How often each channel shall be there, of those that are worth a copy; n copies have 1/n² of its ``noise``."""
    copies: dict[int, int] = {}
    for _ in range(spare):
        gains = [noise[c] / copies.get(c, 1) ** 2 - noise[c] / (copies.get(c, 1) + 1) ** 2 for c in range(len(noise))]
        best = int(np.argmax(gains))
        if gains[best] > 0:
            copies[best] = copies.get(best, 1) + 1
    return copies


def use(part: Part, chain: Chain, spare: Sequence[int], copies: Mapping[int, int], steps: tuple[float, float]) -> Part:
    """A copy of the float ``part`` with ``copies`` of channels, each a share of one of ``steps`` from the next: those of
    what the first layer gives and of what the depthwise one gives.
    """
    found, left = replace(part, tensors=copy.deepcopy(part.tensors), buffers=list(part.buffers)), list(spare)
    (first, bias), (taps, own_bias), (reading, last_bias) = (
        (weights_of(part, op).copy(), _bias(part, op).copy()) for op in (chain.first, chain.depthwise, chain.reader)
    )
    low, high = _LIMITS[fused_activation(chain.depthwise)]
    for channel, count in copies.items():
        was = bias[channel], own_bias[channel], reading[..., channel] / count
        for place in range(count):
            own = channel if place == 0 else left.pop(0)
            away = (place + 0.5) / count - 0.5
            if own != channel:  # what a channel that is 0 gave its reader is the same everywhere
                last_bias += reading[:, 0, 0, own] * np.clip(own_bias[own], low, high)
            first[own], taps[..., own], reading[..., own] = first[channel], taps[..., channel], was[2]
            bias[own] = was[0] + away * steps[0]
            own_bias[own] = was[1] + away * (steps[1] - steps[0] * taps[..., channel].sum())
    for op, weights, biases in (
        (chain.first, first, bias),
        (chain.depthwise, taps, own_bias),
        (chain.reader, reading, last_bias),
    ):
        found.set_constant(op.inputs[1], weights.astype(np.float32))
        found.set_constant(op.inputs[2], biases.astype(np.float32))
    return found


def _bias(part: Part, op: Any) -> np.ndarray:
    found = constant(part, op.inputs[2], np.float32)
    assert found is not None  # is_layer
    return found
