"""The range of every activation of a float ``.tflite`` on representative data.

``minmax`` takes the least and the greatest value; ``percentile`` clips the share ``TAIL`` at either end; ``mse`` takes
the range whose 256 steps have the least mean squared error (Choukroun et al. 2019, arXiv 1902.06822), measured after the
operator that reads the tensor: in front of a swish or a sigmoid, values where those are flat need no precision. Then
residual sums get the step of their terms where that loses less (``sums.py``). Heads and the seam keep at least their
whole ranges: large logits are rare but decide the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from builder.quantizing.response import Function, Response, responses
from builder.quantizing.sums import exact_sums
from builder.support.threads import OfEachThread, beside
from builder.tflite.flatbuffer import Part, read_parts, tensor_name
from builder.tflite.parts import Range
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE

# Attention writes numbers like -1e38 where a softmax must give 0. In int8 a moderately low number does as well, and
# leaves the others a usable scale.
MASKED, FAR = -1e6, 16.0
HEAD_SAMPLES = 200  # heads are small and may be many
Sample = dict[str, np.ndarray]  # (1, ...) by the name of an input or output
TAIL = 1e-4
_KEPT = 1024  # values kept of a tensor in each sample, besides its least and greatest
_CUTS = np.linspace(0.2, 1.0, 17)  # factors of either end that are tried
_STEPS = 255


def measure_ranges(
    model: bytes,
    inputs: np.ndarray,
    heads: Iterable[str],
    advance: Callable[[], None] = lambda: None,
    *,
    estimate: str = "minmax",
) -> dict[str, Range]:
    """Run the backbone on ``inputs`` and each head on the features. Returns the range of every float tensor by its name.

    ``inputs``: (samples, ...), as the model's ``image`` or ``tokens`` takes them. ``advance`` is called after each sample
    of each signature. ``estimate``: as above, of the backbone.
    """
    parts, found = read_parts(model), dict[str, Range]()
    (source,) = parts[BACKBONE].inputs
    seen = _Seen(responses(parts[BACKBONE]), keep=estimate != "minmax")
    samples = ({source: sample[None]} for sample in inputs)
    watched = OfEachThread(lambda: _watched(model))
    features = _run(watched, parts[BACKBONE], samples, seen, advance, on_threads=True)[:HEAD_SAMPLES]
    found.update(seen.ranges(estimate))
    for i in parts[BACKBONE].outputs.values():  # heads that are added later may depend on rare values
        name = tensor_name(parts[BACKBONE].tensors[i])
        found[name] = seen.limits(name)
    if estimate == "mse":
        found = exact_sums(parts[BACKBONE], found)
    for head in heads:
        seen = _Seen(keep=False)
        _run(watched, parts[head], features, seen, advance)
        found.update(seen.ranges(estimate))
    return found


def measure_head(model: bytes, head: str, features: Iterable[Sample]) -> dict[str, Range]:
    """The ranges of the signature ``head`` alone, run on ``features`` of the backbone."""
    seen = _Seen(keep=False)
    _run(lambda: _watched(model), read_parts(model)[head], features, seen, lambda: None)
    return seen.ranges("minmax")


def _watched(model: bytes) -> Any:
    _, factory = find_interpreter("ai_edge_litert")
    return factory(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)


class _Values(NamedTuple):
    """Of one tensor for one sample: its limits and some of its values, none where they are not kept. ``channels``: of
    these values, where they matter.
    """

    limits: Range
    kept: np.ndarray
    channels: np.ndarray | None


def _values(values: np.ndarray, draw: np.random.Generator | None, *, channels: bool = False) -> _Values:
    count = values.shape[-1] if values.ndim else 1
    if float(values.min()) < MASKED:
        real = values[values >= MASKED]
        values, count = np.append(real, (real.max() if real.size else 0.0) - FAR), 1
    flat = values.ravel()
    if draw is None:
        places = np.arange(0)
    elif flat.size <= _KEPT:
        places = np.arange(flat.size)
    else:
        places = draw.integers(0, flat.size, _KEPT)
    return _Values((float(values.min()), float(values.max())), flat[places], places % count if channels else None)


class _Seen:
    """What tensors held: their limits and, with ``keep``, some values of each sample, drawn with a fixed seed.

    ``reads``: what the only reader of a tensor makes of it.
    """

    def __init__(self, reads: Mapping[str, Response] = MappingProxyType({}), *, keep: bool) -> None:
        self.keep, self._reads = keep, reads
        self._limits: dict[str, Range] = {}
        self._values: dict[str, list[_Values]] = {}

    def by_channel(self, name: str) -> bool:
        """Whether the channels of the values of this tensor matter."""
        return self.keep and name in self._reads and self._reads[name].scale is not None

    def add(self, name: str, found: _Values) -> None:
        low, high = self._limits.get(name, (np.inf, -np.inf))
        self._limits[name] = min(low, found.limits[0]), max(high, found.limits[1])
        if self.keep:
            self._values.setdefault(name, []).append(found)

    def limits(self, name: str) -> Range:
        return self._limits[name]

    def ranges(self, estimate: str) -> dict[str, Range]:
        if not self.keep:
            return self._limits
        values = {name: np.concatenate([v.kept for v in found]) for name, found in self._values.items()}
        if estimate == "percentile":
            return {name: percentile_range(v) for name, v in values.items()}

        def best(name: str) -> Range:
            channels = [v.channels for v in self._values[name] if v.channels is not None]
            read = self._reads[name].of(np.concatenate(channels or [np.arange(0)])) if name in self._reads else None
            return mse_range(values[name], self._limits[name], read)

        return dict(zip(values, beside(best, values), strict=True))


def percentile_range(values: np.ndarray) -> Range:
    """The range of the values without the share ``TAIL`` at either end."""
    low, high = np.quantile(values, (TAIL, 1 - TAIL))
    return float(low), float(high)


def mse_range(values: np.ndarray, limits: Range, read: Function | None = None) -> Range:
    """The range within ``limits`` whose 256 steps represent ``read(values)`` best, searched end by end, twice."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    read = read or _as_it_is
    truth, best = read(values), (low, high)
    for _ in range(2):
        lows = [(low * cut, best[1]) for cut in (_CUTS if low < 0 else _CUTS[-1:])]
        best = min(lows, key=lambda r: _error(values, truth, read, r))
        highs = [(best[0], high * cut) for cut in (_CUTS if high > 0 else _CUTS[-1:])]
        best = min(highs, key=lambda r: _error(values, truth, read, r))
    return best


def _error(values: np.ndarray, truth: np.ndarray, read: Function, limits: Range) -> float:
    step = max((limits[1] - limits[0]) / _STEPS, 1e-30)
    zero = np.rint(-limits[0] / step)
    there = (np.clip(np.rint(values / step) + zero, 0, _STEPS) - zero) * step
    return float(np.mean((read(there) - truth) ** 2))


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def _run(
    watched: Callable[[], Any],
    part: Part,
    samples: Iterable[Sample],
    seen: _Seen,
    advance: Callable[[], None],
    *,
    on_threads: bool = False,
) -> list[Sample]:
    """Run one signature on samples and record its tensors in ``seen``. Returns its outputs.

    ``watched``: gives the interpreter. ``on_threads``: one for each processor, which a head is too small for.
    """
    # Weights are excluded: a range for a weight would make the quantizer give all its channels one scale.
    tensors = {tensor_name(part.tensors[i]): i for i in part.activations()}
    runner = OfEachThread(lambda: (interpreter := watched(), interpreter.get_signature_runner(part.name)))

    def run(numbered: tuple[int, Sample]) -> tuple[Sample, list[_Values]]:
        (number, sample), (interpreter, signature) = numbered, runner()
        outputs = signature(**{name: sample[name] for name in part.inputs})
        draw = np.random.default_rng([0, number]) if seen.keep else None
        return outputs, [
            _values(interpreter.get_tensor(i, part.subgraph), draw, channels=seen.by_channel(name))
            for name, i in tensors.items()
        ]

    found = []
    for outputs, values in (beside if on_threads else map)(run, enumerate(samples)):
        for name, own in zip(tensors, values, strict=True):
            seen.add(name, own)
        found.append(outputs)
        advance()
    return found
