"""The probe: a file of a few hundred KB with chains of each kind of operator, for ``edge-runtime benchmark --operators``.

There are two chains of different length for each case, each of one kind of operator, with sizes as in the middle and
towards the end of MobileNetV2 and EfficientNet. All chains of one size share their weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.boards.work import CONVERSION, DYNAMIC_LAYERS, kind_of, precision_of, work_of
from builder.quantizing.quantize import quantize
from builder.tflite.flatbuffer import INT32, Part, activation_code, plain_tensor, read_parts
from builder.tflite.parts import is_constant
from builder.tflite.versions import with_versions
from builder.tflite.writer import write_parts
from edge_runtime.bundle import append_files
from edge_runtime.probe import FORMAT_VERSION, MEMBER, PRECISIONS

SHORT, LONG, LIGHT = 2, 6, 26  # lengths of the chains; the last is for light, elementwise operators
_RANGE = (-4.0, 4.0)  # of every activation
_PADDING_SAME = 0
_CONVOLUTION = {"padding": _PADDING_SAME, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}


class _Chain:
    """One subgraph that grows by one operator at a time; activations are float32 (1, side, side, channels)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        tensors = [plain_tensor("x", shape, np.float32)]
        self.part = Part("chain", 0, tensors, [], {"x": 0}, {}, [], [None])
        self.last = 0

    def constant(self, values: np.ndarray) -> int:
        self.part.tensors.append(plain_tensor(f"constant{len(self.part.tensors)}", values.shape, values.dtype))
        self.part.set_constant(len(self.part.tensors) - 1, values)
        return len(self.part.tensors) - 1

    def add(
        self, kind: str, inputs: list[int], shape: tuple[int, ...], options: Any = None, *, scale: float | None = None
    ) -> int:
        """``scale``: of an operator with int8 output."""
        dtype = np.float32 if scale is None else np.int8
        self.part.tensors.append(plain_tensor(f"y{len(self.part.tensors)}", shape, dtype, scale=scale))
        self.last = len(self.part.tensors) - 1
        self.part.operators.append(self.part.operator(kind, inputs, [self.last], options))
        return self.last

    def layer(self, kind: str, weights: tuple[int, int], shape: tuple[int, ...]) -> None:
        activation = {"fusedActivationFunction": activation_code("NONE")}
        options: dict[str, tuple[str, dict[str, int]]] = {
            "CONV_2D": ("Conv2DOptions", {**_CONVOLUTION, **activation}),
            "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", {**_CONVOLUTION, **activation, "depthMultiplier": 1}),
            "FULLY_CONNECTED": ("FullyConnectedOptions", {**activation, "keepNumDims": False}),
        }
        self.add(kind, [self.last, *weights], shape, options[kind])


@dataclass(frozen=True)
class _Subject:
    """``grow``: adds the operators to a chain, the given number of times."""

    shape: tuple[int, ...]
    grow: Callable[[_Chain, int], None]
    long: int = LONG


def make_probe() -> bytes:
    """The bytes of the probe file, always the same."""
    parts, cases = dict[str, Part](), list[dict[str, Any]]()
    for number, subject in enumerate(_subjects()):
        pair = [_chain(subject, times) for times in (SHORT, subject.long)]
        for precision in PRECISIONS:
            chains = [_in_precision(part, precision) for part in pair]
            if precision == "dynamic" and kind_of(pair[0], pair[0].operators[0]).split()[0] not in DYNAMIC_LAYERS:
                continue
            names = [f"{precision}_{number}_{length}" for length in ("short", "long")]
            parts.update(zip(names, chains, strict=True))
            cases.append(_case(chains, names, precision))
    for number, side, channels in ((0, 56, 24), (1, 14, 192)):
        chains = [_conversions(side, channels, count) for count in (SHORT, LIGHT)]
        names = [f"conversion_{number}_{length}" for length in ("short", "long")]
        parts.update(zip(names, chains, strict=True))
        cases.append(_case(chains, names, "float"))
    model = write_parts({name: with_versions(part) for name, part in parts.items()}, "operators to measure")
    document = {"format_version": FORMAT_VERSION, "model_crc32": zlib.crc32(model), "cases": cases}
    return append_files(model, {MEMBER: json.dumps(document).encode()})


def _case(chains: list[Part], names: list[str], precision: str) -> dict[str, Any]:
    """A case of the probe; its work is the mean over the operators, since expansion and projection are one kind."""
    kind = kind_of(chains[0], chains[0].operators[0])
    own = [[op for op in part.operators if kind_of(part, op) == kind] for part in chains]
    assert kind == CONVERSION or {precision_of(chains[0], op) for op in own[0]} == {precision}
    work = float(np.mean([work_of(chains[0], op) for op in own[0]]))
    return {
        "kind": kind, "precision": precision, "work": work, "signatures": names, "operators": [len(ops) for ops in own]
    }  # fmt: skip


def _chain(subject: _Subject, times: int) -> Part:
    chain = _Chain(subject.shape)
    subject.grow(chain, times)
    chain.part.outputs = {"y": chain.last}
    return chain.part


def _in_precision(part: Part, precision: str) -> Part:
    model = write_parts({"chain": part})
    activations = [i for i, tensor in enumerate(part.tensors) if not is_constant(part, i) and tensor.type != INT32]
    ranges = {part.tensors[i].name: _RANGE for i in activations}
    return read_parts(quantize(model, ranges, precision))["chain"]


def _conversions(side: int, channels: int, count: int) -> Part:
    """``count`` conversions of one float tensor to int8, each with its own scale so that none can be optimized away, and
    ``LIGHT`` means of their results.
    """
    chain = _Chain((1, side, side, channels))
    small, axes = (1, 1, 1, channels), chain.constant(np.array([1, 2], np.int32))
    shape = tuple(chain.part.tensors[0].shape)
    made = [chain.add("QUANTIZE", [0], shape, scale=(8 + i) / 256) for i in range(count)]
    for i in range(LIGHT):
        before = chain.last
        mean = chain.add("MEAN", [made[i % count], axes], small, ("ReducerOptions", {"keepDims": True}), scale=1 / 32)
        if i:
            chain.add("ADD", [before, mean], small, ("AddOptions", {}), scale=1 / 32)
    chain.part.outputs = {"y": chain.last}
    return chain.part


def _subjects() -> Iterator[_Subject]:
    for side, channels in ((56, 24), (14, 48)):
        yield _Subject((1, side, side, channels), _bottlenecks)
    for side, channels in ((56, 16), (28, 24)):
        yield _Subject((1, side, side, channels), _convolutions)
    for side, channels in ((56, 48), (14, 288)):
        yield _Subject((1, side, side, channels), _depthwise)
    for channels in (96, 160):
        yield _Subject((1, channels), _dense, LIGHT)
    for shape in ((1, 56, 56, 24), (1, 14, 14, 192)):
        for kind, options in (("ADD", "AddOptions"), ("MUL", "MulOptions")):
            yield _Subject(shape, _pairs(kind, options), LIGHT)
        for kind in ("LOGISTIC", "HARD_SWISH"):
            yield _Subject(shape, _alone(kind), LIGHT)
    for shape in ((1, 56, 56, 48), (1, 14, 14, 288)):
        yield _Subject(shape, _means, LIGHT)


def _weights(*shape: int) -> np.ndarray:
    """Seeded random weights that preserve the magnitude of activations."""
    taps = np.prod(shape[1:3] if shape[0] == 1 else shape[1:])
    found: np.ndarray = np.random.default_rng(shape).normal(0, 1 / np.sqrt(taps), shape).astype(np.float32)
    return found


def _layers(chain: _Chain, kind: str, layers: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], times: int) -> None:
    """``layers``: the shapes of kernel and result of each layer."""
    zeros = [np.zeros(shape[-1], np.float32) for _, shape in layers]
    kept = [(chain.constant(_weights(*k)), chain.constant(zero)) for (k, _), zero in zip(layers, zeros, strict=True)]
    for _ in range(times):
        for weights, (_, shape) in zip(kept, layers, strict=True):
            chain.layer(kind, weights, shape)


def _bottlenecks(chain: _Chain, times: int) -> None:
    *size, channels = chain.part.tensors[0].shape
    wide = 6 * channels
    layers = [((wide, 1, 1, channels), (*size, wide)), ((channels, 1, 1, wide), (*size, channels))]
    _layers(chain, "CONV_2D", layers, times)


def _convolutions(chain: _Chain, times: int) -> None:
    shape = tuple(chain.part.tensors[0].shape)
    _layers(chain, "CONV_2D", [((shape[3], 3, 3, shape[3]), shape)], times)


def _depthwise(chain: _Chain, times: int) -> None:
    shape = tuple(chain.part.tensors[0].shape)
    _layers(chain, "DEPTHWISE_CONV_2D", [((1, 3, 3, shape[3]), shape)], times)


def _dense(chain: _Chain, times: int) -> None:
    shape = tuple(chain.part.tensors[0].shape)
    _layers(chain, "FULLY_CONNECTED", [((shape[1], shape[1]), shape)], times)


def _pairs(kind: str, options: str) -> Callable[[_Chain, int], None]:
    def grow(chain: _Chain, times: int) -> None:
        for _ in range(times):
            chain.add(kind, [chain.last, 0], tuple(chain.part.tensors[0].shape), (options, {}))

    return grow


def _alone(kind: str) -> Callable[[_Chain, int], None]:
    def grow(chain: _Chain, times: int) -> None:
        for _ in range(times):
            chain.add(kind, [chain.last], tuple(chain.part.tensors[0].shape))

    return grow


def _means(chain: _Chain, times: int) -> None:
    """Means of the same tensor, joined by small additions."""
    axes, small = chain.constant(np.array([1, 2], np.int32)), (1, 1, 1, chain.part.tensors[0].shape[3])
    found = [chain.add("MEAN", [0, axes], small, ("ReducerOptions", {"keepDims": True})) for _ in range(times)]
    for mean in found[:-1]:
        chain.add("ADD", [chain.last, mean], small, ("AddOptions", {}))
