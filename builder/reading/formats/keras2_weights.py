"""Weights of Keras 2 and tf_keras with which a layer of Keras 3 computes the same.

Their hard_sigmoid, the default of recurrent layers until TensorFlow 2.0, is clip(x / 5 + 1/2, 0, 1); Keras 3's is
clip(x / 6 + 1/2, 0, 1). So the gates of such a layer get weights that are 6/5 as large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from builder.reading.formats.complete import layers_within
from builder.reading.formats.stored import Weights

# Along the last axis of every weight: 1 for a gate, whose activation is ``recurrent_activation``, 0 for the candidate.
_LSTM, _GRU = (1, 1, 0, 1), (1, 1, 0)
GATES = {"LSTM": _LSTM, "GRU": _GRU, "ConvLSTM1D": _LSTM, "ConvLSTM2D": _LSTM, "ConvLSTM3D": _LSTM}


def modern_weights(definition: Mapping[str, Any], weights: Weights) -> Weights:
    """``weights`` of an old file for ``definition``, which is in Keras 3's form."""
    layers = layers_within(definition, ())
    return {place: _modern(layers[place], values) if place in layers else values for place, values in weights.items()}


def _modern(layer: Mapping[str, Any], values: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    kind, config = layer["class_name"], layer["config"]
    if kind == "Bidirectional":
        half = len(values) // 2
        forward, backward = config["layer"], config.get("backward_layer") or config["layer"]
        return [*_modern(forward, values[:half]), *_modern(backward, values[half:])]
    if isinstance(inner := config.get("layer", config.get("cell")), Mapping):
        return _modern(inner, values)
    gates = GATES.get(kind.removesuffix("Cell"))
    if gates is None or config.get("recurrent_activation") != "hard_sigmoid":
        return values
    factors = np.where(gates, 6 / 5, 1)
    return [(v * np.repeat(factors, v.shape[-1] // len(gates))).astype(v.dtype) for v in values]
