"""What originals have in common runs once.

By the definitions of both frameworks a Sequential is the composition of its layers, and a functional model that is cut
at a tensor is the composition of its two parts. Parts with the same settings and bit-identical weights give the same
outputs for the same samples, so these are kept. Like the rest of the child process, this imports no reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from builder.reading.originals.nameless import spelled

_MOST = 1 << 29  # bytes kept
_Run = Callable[[str, Callable[[], np.ndarray]], Any]
_MASKING = ("Masking", "Embedding")  # what they add to a tensor gets lost where a model is cut


class SharedRuns:
    """Runs models of one framework, each with the parts of those before it. ``keras``: the framework."""

    def __init__(self, keras: Any) -> None:
        self._keras = keras
        self._kept: dict[str, np.ndarray] = {}  # the output of each part, by the digest of all that it depends on
        self._cut: WeakKeyDictionary[Any, tuple[Sequence[Any], list[str]]] = WeakKeyDictionary()

    def of(self, model: Any) -> _Run:
        """What gives the model's outputs as ``model(batch, training=False)`` does.

        It takes the digest of a batch, and a function that makes the batch, float32 (samples, height, width, channels),
        which is called only where something has to be computed from it.
        """
        if model not in self._cut:
            parts = self._parts(model)
            self._cut[model] = parts, [_settings(part) for part in parts[:-1]]
        parts, settings = self._cut[model]
        if not settings:
            return lambda _, batch: model(batch(), training=False)
        digests = [digest(one, *part.get_weights()) for one, part in zip(settings, parts, strict=False)]
        return partial(self._run, parts, digests)

    def _run(self, parts: Sequence[Any], digests: Sequence[str], samples: str, batch: Callable[[], np.ndarray]) -> Any:
        keys = [*accumulate(digests, digest, initial=samples)][1:]  # of the output of each part
        known = next((i for i in reversed(range(len(keys))) if keys[i] in self._kept), -1)
        x = batch() if known < 0 else self._keep(keys[known], self._kept.pop(keys[known]))
        for key, part in zip(keys[known + 1 :], parts[known + 1 :], strict=False):
            x = self._keep(key, np.asarray(_call(part, x)))
        return _call(parts[-1], x)

    def _keep(self, key: str, found: np.ndarray) -> np.ndarray:
        """Those that were used last are kept."""
        self._kept[key] = found
        while sum(values.nbytes for values in self._kept.values()) > _MOST and len(self._kept) > 1:
            del self._kept[next(iter(self._kept))]
        return found

    def _parts(self, model: Any) -> Sequence[Any]:
        """Layers and models whose composition is ``model``; [] for a model that is not cut."""
        kind = type(model).__name__
        if kind not in ("Sequential", "Functional"):
            return []
        if any(type(layer).__name__ in _MASKING for layer in model._flatten_layers()):
            return []
        if kind == "Sequential":
            layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
            return [*(self._parts(layers[0]) or layers[:1]), *layers[1:]] if layers else []
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return []
        tensors, first = [model.outputs[0]], model.inputs[0]
        while tensors[-1] is not first and (before := _only_input(tensors[-1])) is not None:
            tensors.append(before)
        if tensors[-1] is not first:
            tensors.append(first)
        return [self._keras.Model(start, end) for start, end in pairwise(reversed(tensors))]


def digest(*parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return found.hexdigest()


def _call(part: Any, x: Any) -> Any:
    takes_training = getattr(part, "_call_has_training_arg", getattr(part, "_expects_training_arg", True))
    return part(x, training=False) if takes_training else part(x)


def _only_input(tensor: Any) -> Any:
    """The tensor that ``tensor`` is computed from; None where there are several."""
    layer, call, _ = tensor._keras_history
    node = layer._inbound_nodes[call]
    inputs = node.input_tensors if hasattr(node, "operation") else node.keras_inputs  # Keras 3, tf_keras
    return inputs[0] if len(inputs) == 1 else None


def _settings(part: Any) -> str:
    """All settings of a layer or a model except names."""
    return f"{type(part).__module__}.{type(part).__qualname__} {spelled(part.get_config())}"
