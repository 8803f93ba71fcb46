"""Signal-to-noise ratio of an operator by itself, and of its weights and activations separately."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from builder.tflite.flatbuffer import INT8, Part, quantization
from builder.tflite.parts import constant, is_constant
from builder.tflite.stepper import run_operator


@dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratio in dB of the output of one operator against float; infinite where nothing is lost.

    Attributes:
        layer: Name of the operator's result.
        kind: Kind of the operator.
        snr_db: With the noise of all operators before it.
        alone_db: On float inputs that were only rounded themselves.
        weights_db: With only its weights rounded; None where it has none.
        activations_db: With only its inputs and outputs rounded.
        head_noise: Mean squared change of the heads' scores when only this operator is int8; None where it was not
            measured: int8 passed, or there are too many operators.
    """

    layer: str
    kind: str
    snr_db: float
    alone_db: float
    weights_db: float | None
    activations_db: float
    head_noise: float | None

    def to_json(self) -> dict[str, Any]:
        """dB rounded to hundredths; null where nothing is lost, since JSON has no infinity."""
        rounded = {key: _finite(value) for key, value in asdict(self).items()}
        return {**rounded, "head_noise": self.head_noise and float(f"{self.head_noise:.4g}")}


def snr_db(signal: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio in dB: power of ``signal`` over power of its difference from ``found``."""
    noise = _energy(signal - found)
    return 10 * float(np.log10(_energy(signal) / noise)) if noise > 0 else float("inf")


def _energy(values: np.ndarray) -> float:
    """Sum of the squares; only those of one sample are summed in float32."""
    return sum(float(np.vdot(sample, sample)) for sample in np.ascontiguousarray(values))


def alone(
    parts: tuple[Part, Part],
    ops: tuple[Any, Any],
    tensors: tuple[list[int], list[int]],
    values: Sequence[np.ndarray],
    truth: np.ndarray,
    *,
    threads: int = 2,
) -> tuple[np.ndarray, tuple[float, float | None, float]]:
    """The first output of one operator by itself, float32 (samples, ...), and its ``alone_db``, ``weights_db`` and
    ``activations_db``.

    ``parts``, ``ops``: in float, and as on the device. ``tensors``: the activations that each reads, in the same order.
    ``values``: their float values, (samples, ...) each; ``truth``: the operator's float output for them. ``threads``: of
    the interpreters.
    """
    (floating, device), (op, own), (reads, own_reads) = parts, ops, tensors
    run = partial(run_operator, threads=threads)
    entering = [quantization(device.tensors[i]) for i in own_reads]
    leaving = quantization(device.tensors[own.outputs[0]])
    stored = [q.quantize(v) for q, v in zip(entering, values, strict=True)]
    found = leaving.dequantize(run(device, own, stored, own_reads)[0])
    rounded = [q.dequantize(v) for q, v in zip(entering, stored, strict=True)]
    passed = run(floating, op, rounded, reads)[0]
    kernel = _rounded_weights(floating, op, device)
    weights = None if kernel is None else snr_db(truth, run(kernel, op, list(values), reads)[0])
    return found, (snr_db(truth, found), weights, snr_db(truth, leaving.dequantize(leaving.quantize(passed))))


def _rounded_weights(floating: Part, op: Any, device: Part) -> Part | None:
    """``floating`` with the device's weights of ``op``; None where it has none."""
    if len(op.inputs) < 2 or not is_constant(floating, op.inputs[1]):
        return None
    name = floating.tensors[op.inputs[1]].name
    quantized = next((i for i, tensor in enumerate(device.tensors) if tensor.name == name and tensor.type == INT8), None)
    stored = None if quantized is None else constant(device, quantized, np.int8)
    if quantized is None or stored is None:
        return None
    scales = device.tensors[quantized].quantization
    shape = [1] * stored.ndim
    if len(scales.scale) > 1:  # else one scale for the whole tensor, which may be a single number
        shape[int(scales.quantizedDimension)] = -1
    zero = np.asarray(scales.zeroPoint, np.float32).reshape(shape)
    own = replace(floating, tensors=list(floating.tensors), buffers=list(floating.buffers))
    own.tensors[op.inputs[1]] = copy.copy(own.tensors[op.inputs[1]])
    own.set_constant(op.inputs[1], (stored - zero) * np.asarray(scales.scale, np.float32).reshape(shape))
    return own


def _finite(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 2) if math.isfinite(value) else None
