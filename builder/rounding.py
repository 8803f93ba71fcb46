"""Learnt rounding: int8 weights with which each layer, on the inputs it really gets on the device, gives what the float
network gives. Activations may be int8, int16 or float.

Layer by layer, from the input on: the layer is refitted by ridge regression from its *quantized* inputs to the *float*
network's outputs; its weights are rounded one input at a time, the error of each passed on to those not yet rounded
(GPTQ: Frantar et al. 2022, arXiv 2210.17323, after the optimal brain surgeon, Hassibi and Stork 1993); the bias takes
up what is left of the mean. Operators, scales and speed stay what they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from builder.flatbuffer import INT8, Part, dtype_of, is_quantity, operator_name, quantization
from builder.layerwise import Stepper, as_held, constant, dequantized, is_constant, makers, names
from builder.noise import LayerNoise, alone, snr_db
from builder.patches import sample_patches
from edge_runtime.metadata import BACKBONE

ROUNDING_SAMPLES = 192  # memory and time grow with them; see docs/how-it-works.md
RIDGE = 0.5  # pull of the refit towards the float weights, in units of an input's energy; more where rows are few
DAMPING = 0.01  # of the Hessian's mean diagonal, as in the paper
LIMIT = 127  # weights are symmetric: -127..127
NOISE_SAMPLES = 16  # on which signal to noise is measured
BLOCK = 128  # rows whose error is passed on at once; changes speed, not the result
Samples = Mapping[str, np.ndarray]  # (samples, ...) by the name of an input or output
ROWS = {"CONV_2D": 20_000, "DEPTHWISE_CONV_2D": 2_000, "FULLY_CONNECTED": 20_000}  # places at which a layer is observed


class Observed:
    """What a layer reads, in float and on the device, with everything that does not depend on its weights.

    ``signal``, ``device``: float32 (groups, rows, taps).
    """

    def __init__(self, signal: np.ndarray, device: np.ndarray) -> None:
        self._mean_signal, self._mean_device = signal.mean(1, keepdims=True), device.mean(1, keepdims=True)
        self._a, self._b = signal - self._mean_signal, device - self._mean_device
        gram = _products(self._b, self._b)
        energy = np.maximum(np.mean(np.diagonal(gram, axis1=1, axis2=2), axis=1), 1e-12)[:, None, None]
        identity = np.eye(gram.shape[1])
        self._ridge = RIDGE * (1 + gram.shape[1] / signal.shape[1]) * energy
        self._regular = gram + self._ridge * identity
        self._order, self._upper = inverse_factor(gram + DAMPING * energy * identity)

    def shift(self, weights: np.ndarray, integers: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """What the bias has to grow by (groups, outputs) for the mean error to be 0, with ``integers`` as weights.

        Bias correction: Nagel et al. 2019, arXiv 1906.04721, section 4.2, here with the inputs of the device.
        """
        target = self._mean_signal.astype(np.float64) @ weights
        return np.asarray((target - self._mean_device.astype(np.float64) @ (integers * steps[:, None]))[:, 0])

    def fit(self, weights: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Integer weights with which the device gives what the signal gives with the float ``weights``.

        ``weights``: (groups, taps, outputs). ``steps``: their scale (groups, outputs). Returns integers -127..127
        (groups, taps, outputs), and what the bias has to grow by (groups, outputs).
        """
        outputs = np.stack([x @ w for x, w in zip(self._a, weights.astype(np.float32), strict=True)])
        refitted = np.linalg.solve(self._regular, _products(self._b, outputs) + self._ridge * weights)
        integers = gptq(refitted, steps, self._order, self._upper)
        return integers, self.shift(weights, integers, steps)


def round_parts(
    float_parts: Mapping[str, Part],
    int8_parts: Mapping[str, Part],
    inputs: np.ndarray,
    advance: Callable[[], None] = lambda: None,
    *,
    bias_only: bool = False,
) -> list[LayerNoise]:
    """Learn the rounding of the backbone, then of each head on the features that the backbone now gives.

    ``inputs``: (samples, ...), as the float model's ``image`` or ``tokens`` takes them. Changes ``int8_parts`` in place;
    returns the noise behind each operator of the backbone. ``bias_only``: weights stay as they are.
    """
    backbone = int8_parts[BACKBONE]
    ((name, index),) = backbone.inputs.items()
    truth, device, noise = learn_rounding(
        float_parts[BACKBONE],
        backbone,
        {name: inputs},
        {name: as_held(backbone.tensors[index], inputs)},
        {},
        advance,
        bias_only=bias_only,
        observe_noise=True,
    )
    observed: dict[tuple[str, str], Observed] = {}  # heads read the same features: what is known of them is kept
    for name, part in int8_parts.items():
        if name != BACKBONE:
            learn_rounding(
                float_parts[name], part, truth, device, observed, advance, bias_only=bias_only, observe_noise=False
            )
    return noise


def learn_rounding(
    float_part: Part,
    int8_part: Part,
    float_inputs: Samples,
    int8_inputs: Samples,
    observed: dict[tuple[str, str], Observed],
    advance: Callable[[], None],
    *,
    bias_only: bool,
    observe_noise: bool,
) -> tuple[Samples, Samples, list[LayerNoise]]:
    """Give the layers of ``int8_part`` new weights and biases, in place.

    ``float_inputs``: (samples, ...) float32 for each input that the part has, perhaps for more. ``int8_inputs``: the same
    samples as the int8 input tensors hold them. ``observed``: shared by parts with the same inputs; keeps what is known
    of dense layers that read them. ``advance`` is called after each operator. ``bias_only``: weights stay as
    they are. Returns the float outputs, the int8 outputs, and, where ``observe_noise``, the noise of each operator.
    """
    float_index, int8_name = dict(names(float_part)), {i: name for name, i in names(int8_part)}
    twin = {i: float_index[name] for i, name in int8_name.items() if name in float_index}
    twin.update((int8_part.inputs[name], float_part.inputs[name]) for name in int8_part.inputs)
    sources = {i: name for name, i in int8_part.inputs.items()}
    truth = Stepper(float_part, {i: float_inputs[name] for name, i in float_part.inputs.items()})
    device = Stepper(int8_part, {i: int8_inputs[name] for name, i in int8_part.inputs.items()})
    uses = Counter(i for op in int8_part.operators for i in op.inputs)
    read = {*uses, *int8_part.outputs.values()}
    float_ops = {op.outputs[0]: op for op in float_part.operators}
    noise = []
    for op in int8_part.operators:
        kind = operator_name(int8_part, op)
        kernel = _kernel(int8_part, op) if kind in ROWS and len(op.inputs) == 3 else None
        unshared = kernel is not None and all(uses[i] == 1 for i in (kernel, *op.inputs[1:]))
        if kernel is not None and unshared and op.inputs[0] in twin and kernel in twin:
            weights = constant(float_part, twin[kernel], np.float32)
            if weights is not None:
                views = truth.until(twin[op.inputs[0]]), device.value(op.inputs[0])
                source = sources.get(op.inputs[0]) if kind == "FULLY_CONNECTED" else None
                known = observed.get((kind, source)) if source else None
                known = _learn_layer(kind, op, kernel, int8_part, weights, views, known, bias_only=bias_only)
                if source and known is not None:
                    observed[kind, source] = known
        theirs = float_ops.get(twin.get(op.outputs[0], -1))
        watched = _watched(float_part, int8_part, theirs, op, twin) if observe_noise and op.outputs[0] in read else None
        values = [truth.until(twin[i])[:NOISE_SAMPLES] for i in watched or ()]
        device.step()
        if theirs is not None and watched is not None:
            result = op.outputs[0]
            found = dequantized(int8_part, result, device.value(result)[:NOISE_SAMPLES])
            whole = snr_db(truth.until(twin[result])[:NOISE_SAMPLES], found)
            reads = [twin[i] for i in watched], watched
            own = alone((float_part, int8_part), (theirs, op), reads, values)
            noise.append(LayerNoise(int8_name[result], kind, whole, *own))
        advance()
    return (
        {name: truth.until(i) for name, i in float_part.outputs.items()},
        {name: device.value(i) for name, i in int8_part.outputs.items()},
        noise,
    )


def inverse_factor(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which taps are rounded (groups, taps): falling diagonal of the Hessian (groups, taps, taps); and the
    upper Cholesky factor of its inverse in that order.
    """
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    hessian = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    return order, np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)


def gptq(weights: np.ndarray, steps: np.ndarray, order: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Round ``weights`` (groups, taps, outputs) to multiples -127..127 of ``steps`` (groups, outputs).

    ``order``, ``upper``: from ``inverse_factor``; the error of each tap is spread over the taps that are left as the
    inverse Hessian says. Returns the integers.
    """
    left = np.take_along_axis(weights, order[:, :, None], 1)
    integers, taps = np.empty_like(left), left.shape[1]
    for start in range(0, taps, BLOCK):
        end = min(start + BLOCK, taps)
        errors = np.empty_like(left[:, start:end])
        for i in range(start, end):
            integers[:, i] = np.clip(np.rint(left[:, i] / steps), -LIMIT, LIMIT)
            errors[:, i - start] = (left[:, i] - integers[:, i] * steps) / upper[:, i, i, None]
            left[:, i + 1 : end] -= upper[:, i, i + 1 : end, None] * errors[:, i - start, None]
        left[:, end:] -= np.matmul(upper[:, start:end, end:].transpose(0, 2, 1), errors)
    return np.take_along_axis(integers, np.argsort(order, axis=1)[:, :, None], 1)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 ``a.T @ b`` of each group; one by one, since a batch of transposed matrices does not reach BLAS."""
    return np.stack([x.T @ y for x, y in zip(a, b, strict=True)]).astype(np.float64)


def _watched(float_part: Part, int8_part: Part, theirs: Any, op: Any, twin: Mapping[int, int]) -> list[int] | None:
    """The activations that ``op`` reads, where they are those that its twin ``theirs`` reads, and all of them and its one
    result are quantities; else None.
    """
    reads = [i for i in op.inputs if i in twin and not is_constant(float_part, twin[i])]
    quantities = all(is_quantity(int8_part.tensors[i]) for i in (*reads, *op.outputs))
    if theirs is None or len(op.outputs) > 1 or not quantities:
        return None
    return (
        reads
        if [twin[i] for i in reads] == [i for i in theirs.inputs if i >= 0 and not is_constant(float_part, i)]
        else None
    )


def _kernel(part: Part, op: Any) -> int | None:
    """The tensor with the int8 weights of ``op``, also where a DEQUANTIZE stands between them."""
    between = [other.inputs[0] for other in makers(part, op, [op.inputs[0]])]
    found = between[0] if between else op.inputs[1]
    return found if part.tensors[found].type == INT8 and constant(part, found, np.int8) is not None else None


def _learn_layer(
    kind: str,
    op: Any,
    kernel: int,
    part: Part,
    weights: np.ndarray,
    views: tuple[np.ndarray, np.ndarray],
    known: Observed | None,
    *,
    bias_only: bool,
) -> Observed | None:
    """New int8 weights and bias for ``op``, from its input in float and on the device; returns what was seen of it."""
    source, _, bias = op.inputs
    old = constant(part, bias, dtype_of(part.tensors[bias]))
    if old is None or weights.shape[-1] != views[0].shape[-1]:
        return None  # a depth multiplier or groups: left as they are
    scale, zero_point, _ = quantization(part.tensors[source])
    if known is None:
        inputs = [(views[0], 0.0), (views[1], float(zero_point))]
        signal, integers = sample_patches(kind, op.builtinOptions, weights.shape, inputs, ROWS[kind])
        known = Observed(np.ascontiguousarray(signal), np.ascontiguousarray(dequantized(part, source, integers)))
    depthwise = kind == "DEPTHWISE_CONV_2D"
    wanted = _by_group(weights, depthwise=depthwise).astype(np.float64)
    scales = np.asarray(part.tensors[kernel].quantization.scale, np.float64)
    steps = np.broadcast_to(scales, wanted.shape[0] * wanted.shape[2])
    own_steps = steps[:, None] if depthwise else steps[None]
    if bias_only:
        nearest = constant(part, kernel, np.int8)
        assert nearest is not None  # _kernel
        shift = known.shift(wanted, _by_group(nearest, depthwise=depthwise), own_steps)
    else:
        integers, shift = known.fit(wanted, own_steps)
        rounded = integers[:, :, 0].T if depthwise else integers[0].T
        part.set_constant(kernel, rounded.reshape(weights.shape).astype(np.int8))
    if old.dtype == np.float32:
        part.set_constant(bias, (old + shift.reshape(-1)).astype(np.float32))
    else:
        new = np.rint(old + shift.reshape(-1) / (scale * steps))
        part.set_constant(bias, np.clip(new, -(2**31), 2**31 - 1).astype(old.dtype))
    return known


def _by_group(weights: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """(groups, taps, outputs) of TFLite's (1, height, width, channels) of a depthwise convolution, a group for each
    channel, and of (outputs, ..., inputs) of any other layer, which is one group.
    """
    if depthwise:
        return weights.reshape(-1, weights.shape[3]).T[:, :, None]
    return weights.reshape(weights.shape[0], -1).T[None]
