"""Learnt rounding: int8 weights with which each layer, on the device's quantized inputs, matches the float network.
Activations may be int8, int16 or float.

Layer by layer, from the input on: the layer is refitted from its *quantized* inputs to the *float* network's outputs
(``refit.py``); its weights are rounded one tap after the other, the error of each compensated in those not yet rounded
(``gptq.py``); the bias absorbs the remaining mean error (``bias.py``). Operators, scales and speed stay the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from builder.quantizing.learn_layer import ROWS, WHOLE, Learning, Observed, kernel_of, learn_layer
from builder.quantizing.noise import LayerNoise, alone, snr_db
from builder.quantizing.response import responses
from builder.quantizing.sensitivity import AtTheHeads
from builder.tflite.flatbuffer import NO_TENSOR, Part, is_quantity, operator_name
from builder.tflite.parts import as_held, constant, dequantized, is_constant, names
from builder.tflite.splice import result_name
from builder.tflite.stepper import Stepper
from edge_runtime.metadata import BACKBONE

ROUNDING_SAMPLES = 96  # memory and time grow with them; 192 give 0.1 dB more on EfficientNet-Lite0
NOISE_SAMPLES = 16  # on which the signal-to-noise ratio is measured
MOST_OPERATORS = 400  # each is run with the rest of the network after it: time grows with the square
Samples = Mapping[str, np.ndarray]  # (samples, ...) by the name of an input or output


def round_parts(
    float_parts: Mapping[str, Part],
    int8_parts: Mapping[str, Part],
    inputs: np.ndarray,
    advance: Callable[[], None] = lambda: None,
    *,
    learning: Learning = WHOLE,
) -> list[LayerNoise]:
    """Learn the rounding of the backbone, then of each head on the rounded backbone's features.

    ``inputs``: (samples, ...), as the float model's ``image`` or ``tokens`` takes them. Changes ``int8_parts`` in place.
    Returns the noise after each operator of the backbone, without ``head_noise``.
    """
    floating, backbone = float_parts[BACKBONE], int8_parts[BACKBONE]
    observed: dict[tuple[str, str], Observed] = {}  # heads read the same features: their products are kept
    with threadpool_limits(1):  # a layer's products are small: two threads take a third longer
        truth, device, noise = _walk_backbone(floating, backbone, inputs, learning, None, advance)
    for name, part in int8_parts.items():
        if name != BACKBONE:
            learn_rounding(float_parts[name], part, truth, device, observed, advance, learning=learning)
    return noise


def measure_noise(
    float_parts: Mapping[str, Part], backbone: Part, inputs: np.ndarray, advance: Callable[[], None] = lambda: None
) -> list[LayerNoise]:
    """The noise after each operator of ``backbone``, and at the heads; nothing is changed. ``float_parts``, ``inputs``:
    as for ``round_parts``.
    """
    few = len(backbone.operators) <= MOST_OPERATORS
    heads, inputs = AtTheHeads(float_parts, inputs) if few else None, inputs[:NOISE_SAMPLES]
    return _walk_backbone(float_parts[BACKBONE], backbone, inputs, None, heads, advance)[2]


def _walk_backbone(
    floating: Part,
    backbone: Part,
    inputs: np.ndarray,
    learning: Learning | None,
    heads: AtTheHeads | None,
    advance: Callable[[], None],
) -> tuple[Samples, Samples, list[LayerNoise]]:
    ((name, index),) = backbone.inputs.items()
    walk = _Walk(floating, backbone, {name: inputs}, {name: as_held(backbone.tensors[index], inputs)})
    noise = list[Future[LayerNoise] | None]()
    with ThreadPoolExecutor(2) as beside:  # a layer learns while the float network runs, and the last one is measured
        for op in backbone.operators:
            learn, step = walk.learner(op, learning, {}), walk.watched_step(op, heads, beside)
            learn()
            del learn  # and with it all samples of what the layer reads
            noise.append(step())
            advance()
        return *walk.outputs(), [measured.result() for measured in noise if measured is not None]


def learn_rounding(
    float_part: Part,
    int8_part: Part,
    float_inputs: Samples,
    int8_inputs: Samples,
    observed: dict[tuple[str, str], Observed],
    advance: Callable[[], None] = lambda: None,
    *,
    learning: Learning,
) -> None:
    """Give the layers of ``int8_part`` new weights and biases, in place.

    ``float_inputs``: (samples, ...) float32 for each input of the part, perhaps for more. ``int8_inputs``: the same
    samples as the int8 input tensors hold them. ``observed``: a cache for dense layers, shared by parts with the same
    inputs. ``advance`` is called after each operator.
    """
    walk = _Walk(float_part, int8_part, float_inputs, int8_inputs)
    with threadpool_limits(1):  # as above
        for op in int8_part.operators:
            walk.learner(op, learning, observed)()  # runs what comes before a layer, not what follows the last one
            advance()


class _Walk:
    """Runs a float part and the int8 part made from it on the same samples, one int8 operator after the other."""

    def __init__(self, float_part: Part, int8_part: Part, float_inputs: Samples, int8_inputs: Samples) -> None:
        self._float, self._int8 = float_part, int8_part
        float_index, int8_names = dict(names(float_part)), {i: name for name, i in names(int8_part)}
        self._float_index = {i: float_index[name] for i, name in int8_names.items() if name in float_index}
        self._float_index.update((int8_part.inputs[name], float_part.inputs[name]) for name in int8_part.inputs)
        self._sources = {i: name for name, i in int8_part.inputs.items()}
        self._truth = Stepper(float_part, {i: float_inputs[name] for name, i in float_part.inputs.items()}, threads=1)
        self._device = Stepper(int8_part, {i: int8_inputs[name] for name, i in int8_part.inputs.items()}, threads=1)
        self._uses = Counter(i for op in int8_part.operators for i in op.inputs)
        self._float_ops = {op.outputs[0]: op for op in float_part.operators}
        self._responses = responses(float_part)

    def learner(
        self, op: Any, learning: Learning | None, observed: dict[tuple[str, str], Observed]
    ) -> Callable[[], None]:
        """Returns what gives the next operator new weights and a new bias, while the float network may run on. It does
        nothing unless something is learnt and the operator is a layer with weights of its own.
        """
        kind, in_float = operator_name(self._int8, op), self._float_index
        kernel = kernel_of(self._int8, op) if learning and kind in ROWS and len(op.inputs) in (2, 3) else None
        if kernel is None or any(self._uses[i] > 1 for i in (kernel, *op.inputs[1:]) if i != NO_TENSOR):
            return _nothing
        if op.inputs[0] not in in_float or kernel not in in_float:
            return _nothing
        weights = constant(self._float, in_float[kernel], np.float32)
        if learning is None or weights is None:
            return _nothing
        views = self._truth.until(in_float[op.inputs[0]]), self._device.until(op.inputs[0])
        source = self._sources.get(op.inputs[0]) if kind == "FULLY_CONNECTED" else None
        response = self._responses.get(result_name(self._int8, op))

        def learn() -> None:
            known = observed.get((kind, source)) if source else None
            known = learn_layer(kind, op, kernel, self._int8, weights, views, known, learning=learning, response=response)
            if source and known is not None:
                observed[kind, source] = known

        return learn

    def watched_step(
        self, op: Any, heads: AtTheHeads | None, beside: Executor
    ) -> Callable[[], Future[LayerNoise] | None]:
        """Returns what runs ``op``, the next int8 operator, and gives the noise after it; None where it is not measured.

        The float network runs ahead as far as that in ``beside``, where the noise is measured too.
        """
        result, theirs = op.outputs[0], self._float_ops.get(self._float_index.get(op.outputs[0], -1))
        watched = self._watched(theirs, op) if self._uses[result] or result in self._int8.outputs.values() else None
        if watched is None:
            return self._device.step
        reads, wanted = [self._float_index[i] for i in watched], self._float_index[result]
        values = [self._truth.until(i)[:NOISE_SAMPLES].copy() for i in reads]  # of a view all samples would be kept
        ahead = beside.submit(self._truth.until, wanted)

        def measured(truth: np.ndarray, found: np.ndarray) -> LayerNoise:
            whole, tensors = snr_db(truth, found), (reads, watched)
            by_itself, own = alone((self._float, self._int8), (theirs, op), tensors, values, truth, threads=1)
            at_heads = None if heads is None else heads.noise(self._truth, wanted, by_itself)
            return LayerNoise(result_name(self._int8, op), operator_name(self._int8, op), whole, *own, at_heads)

        def step() -> Future[LayerNoise]:
            self._device.step()
            found = dequantized(self._int8, result, self._device.value(result)[:NOISE_SAMPLES])
            noise = beside.submit(measured, ahead.result()[:NOISE_SAMPLES].copy(), found)
            if heads is not None:  # they continue from where the float network is
                wait([noise])
            return noise

        return step

    def outputs(self) -> tuple[Samples, Samples]:
        """The outputs in float and in int8, once all operators have run."""
        return (
            {name: self._truth.until(i) for name, i in self._float.outputs.items()},
            {name: self._device.value(i) for name, i in self._int8.outputs.items()},
        )

    def _watched(self, theirs: Any, op: Any) -> list[int] | None:
        """The activations that ``op`` reads, if ``theirs``, its float counterpart, reads the same ones, and they and
        its only result are real-valued; otherwise None.
        """
        in_float = self._float_index
        reads = [i for i in op.inputs if i in in_float and not is_constant(self._float, in_float[i])]
        quantities = all(is_quantity(self._int8.tensors[i]) for i in (*reads, *op.outputs))
        if theirs is None or len(op.outputs) > 1 or not quantities:
            return None
        same = [i for i in theirs.inputs if i >= 0 and not is_constant(self._float, i)]
        return reads if [in_float[i] for i in reads] == same else None


def _nothing() -> None:
    pass
