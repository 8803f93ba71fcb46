"""Unroll recurrent layers, so that each step becomes operators with ranges of their own.

A loop would become separate subgraphs, which the quantizer cannot take to int8 and two signatures cannot share.
"""

from __future__ import annotations

from typing import Any

import keras

RECURRENT = ("LSTM", "GRU", "SimpleRNN")


def unrolled(model: Any) -> Any:
    """``model`` with every recurrent layer unrolled; the same model where there is none."""
    if not any(_is_recurrent(layer) for layer in model.layers):
        return model
    own = keras.models.clone_model(model, clone_function=_unrolled)
    own.set_weights(model.get_weights())
    return own


def _unrolled(layer: Any) -> Any:
    if not _is_recurrent(layer):
        return layer.__class__.from_config(layer.get_config())
    config = layer.get_config()
    inner = [config["layer"]["config"], config["backward_layer"]["config"]] if "layer" in config else [config]
    for settings in inner:
        settings["unroll"] = True
    return layer.__class__.from_config(config)


def _is_recurrent(layer: Any) -> bool:
    inner = getattr(layer, "forward_layer", layer)  # of a Bidirectional
    return type(inner).__name__ in RECURRENT
