"""Learn int8 weights and the bias of one layer from its inputs in float and on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.quantizing.bias import bias_shift, error_size, shift_behind
from builder.quantizing.gptq import gptq, inverse_factor, neighbours
from builder.quantizing.patches import sample_patches
from builder.quantizing.refit import Refit, energy
from builder.quantizing.response import Function, Response, slope
from builder.tflite.flatbuffer import INT8, NO_TENSOR, Part, dtype_of, quantization
from builder.tflite.parts import constant, dequantized, makers

LEAST_RELEVANCE = 0.05  # of a row of which every output lies where the activation is flat
DAMPING = 0.01  # of the Hessian's mean diagonal, as in the paper
ROWS = {"CONV_2D": 4_000, "DEPTHWISE_CONV_2D": 500, "FULLY_CONNECTED": 4_000}  # positions at which a layer is observed


@dataclass(frozen=True)
class Learning:
    """What is learnt. ``weights``: rounding and bias; otherwise only the bias. ``refit``: see ``refit.py``."""

    weights: bool = True
    refit: bool = True


WHOLE = Learning()


class Observed:
    """A layer's inputs in float and on the device, with everything that does not depend on its weights.

    ``signal``, ``device``: float32 (groups, rows, taps). ``owners``: (rows,) the index of each row's sample.
    ``relevance``: (groups, rows) how much the squared error of a row counts; None: all alike.
    """

    def __init__(
        self, signal: np.ndarray, device: np.ndarray, owners: np.ndarray, relevance: np.ndarray | None = None
    ) -> None:
        self._inputs = signal, device
        centred = _centred(signal, relevance), _centred(device, relevance)
        self._means = centred[0][0], centred[1][0]
        self._refit = Refit(centred[0][1], centred[1][1], owners)
        gram = self._refit.gram
        self._order, self._upper = inverse_factor(gram + DAMPING * energy(gram) * np.eye(gram.shape[1]))

    def shift(
        self,
        weights: np.ndarray,
        integers: np.ndarray,
        steps: np.ndarray,
        bias: np.ndarray | None = None,
        response: Function | None = None,
    ) -> np.ndarray:
        """The correction of the bias (groups, outputs) that makes the mean error 0, with ``integers`` as weights; with a
        ``response``, that error behind it, for outputs with the float ``bias`` (groups, outputs).
        """
        rounded = integers * steps[:, None]
        if response is None or bias is None:
            return bias_shift(*self._means, weights, rounded)
        signal, device = self._inputs
        truth, found = (x @ w.astype(np.float32) + bias[:, None] for x, w in ((signal, weights), (device, rounded)))
        return shift_behind(truth, found, response)

    def fit(self, weights: np.ndarray, steps: np.ndarray, *, refit: bool = True) -> np.ndarray:
        """Integer weights with which the layer's output on the device matches its float output.

        ``weights``: (groups, taps, outputs). ``steps``: their scale (groups, outputs). Returns integers -127..127
        (groups, taps, outputs), each less than one from the float weight. ``refit``: match the output for
        the float inputs; otherwise that of the float weights for the device's inputs.
        """
        aim = self._refit(weights) if refit else weights
        return gptq(aim, steps, neighbours(weights, steps), self._order, self._upper)


def _centred(rows: np.ndarray, relevance: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The mean (groups, 1, taps) of (groups, rows, taps), and the rows without it, float32; with their ``relevance``."""
    if relevance is None:
        mean = rows.mean(1, keepdims=True)
        return mean, rows - mean
    share = (relevance / relevance.mean(1, keepdims=True))[..., None].astype(np.float32)
    mean = (rows * share).mean(1, keepdims=True)
    return mean, (rows - mean) * np.sqrt(share)


def kernel_of(part: Part, op: Any) -> int | None:
    """The tensor with the int8 weights of ``op``, also behind a DEQUANTIZE."""
    between = [other.inputs[0] for other in makers(part, op, [op.inputs[0]])]
    found = between[0] if between else op.inputs[1]
    return found if part.tensors[found].type == INT8 and constant(part, found, np.int8) is not None else None


def learn_layer(
    kind: str,
    op: Any,
    kernel: int,
    part: Part,
    weights: np.ndarray,
    views: tuple[np.ndarray, np.ndarray],
    known: Observed | None,
    *,
    learning: Learning,
    response: Response | None = None,
) -> Observed | None:
    """Learn int8 weights and bias for ``op`` from its inputs in float and on the device. Returns those observations.

    ``response``: what the activation behind the layer makes of its outputs.
    """
    source, bias = op.inputs[0], op.inputs[2] if len(op.inputs) > 2 else NO_TENSOR
    old = None if bias == NO_TENSOR else constant(part, bias, dtype_of(part.tensors[bias]))
    if (old is None and bias != NO_TENSOR) or weights.shape[-1] != views[0].shape[-1]:
        return None  # a depth multiplier or groups: left unchanged
    scale, zero_point, _ = quantization(part.tensors[source])
    depthwise = kind == "DEPTHWISE_CONV_2D"
    behind = None if response is None else response.of_outputs((-1, 1, 1) if depthwise else (1, 1, -1))
    wanted = _by_group(weights, depthwise=depthwise).astype(np.float64)
    scales = np.asarray(part.tensors[kernel].quantization.scale, np.float64)
    steps = np.broadcast_to(scales, wanted.shape[0] * wanted.shape[2])
    own_steps = steps[:, None] if depthwise else steps[None]
    units = 1.0 if old is None or old.dtype == np.float32 else scale * steps
    given = np.zeros_like(own_steps) if old is None else (old * units).reshape(own_steps.shape)
    if known is None:
        inputs = [(views[0], 0.0), (views[1], float(zero_point))]
        (signal, integers), owners = sample_patches(kind, op.builtinOptions, weights.shape, inputs, ROWS[kind])
        device = np.ascontiguousarray(dequantized(part, source, integers))
        signal = np.ascontiguousarray(signal)
        relevance = None if behind is None else _relevance(signal, device, wanted, given, behind)
        known = Observed(signal, device, owners, relevance)
    if not learning.weights:
        nearest = constant(part, kernel, np.int8)
        assert nearest is not None  # kernel_of
        shift = known.shift(wanted, _by_group(nearest, depthwise=depthwise), own_steps, given, behind)
    else:
        integers = known.fit(wanted, own_steps, refit=learning.refit)
        shift = known.shift(wanted, integers, own_steps, given, behind)
        rounded = integers[:, :, 0].T if depthwise else integers[0].T
        part.set_constant(kernel, rounded.reshape(weights.shape).astype(np.int8))
    if old is not None:
        part.set_constant(bias, _shifted(old, shift.reshape(-1), units))
    return known


def _shifted(bias: np.ndarray, shift: np.ndarray, units: np.ndarray | float) -> np.ndarray:
    """The stored ``bias``, float or integers of ``units``, with ``shift`` added."""
    if bias.dtype == np.float32:
        return np.asarray(bias + shift, np.float32)
    return np.asarray(np.clip(np.rint(bias + shift / units), -(2**31), 2**31 - 1), bias.dtype)


def _relevance(
    signal: np.ndarray, device: np.ndarray, weights: np.ndarray, bias: np.ndarray, response: Function
) -> np.ndarray:
    """(groups, rows): the mean squared slope of ``response`` at a row's outputs."""
    truth, found = (x @ weights.astype(np.float32) + bias[:, None] for x in (signal, device))
    return np.asarray((slope(response, truth, error_size(truth, found)) ** 2).mean(2) + LEAST_RELEVANCE)


def _by_group(weights: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """Weights as (groups, taps, outputs): from (1, height, width, channels) of a depthwise convolution, a group for each
    channel; from (outputs, ..., inputs) of any other layer, one group.
    """
    if depthwise:
        return weights.reshape(-1, weights.shape[3]).T[:, :, None]
    return weights.reshape(weights.shape[0], -1).T[None]
