"""One spelling for each layer: what Keras 3 says of it, whichever version or habit wrote it down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

# Settings of a layer that do not change what it computes at inference.
_TRAINING_ONLY = (
    "name", "trainable", "seed", "momentum", "synchronized", "renorm", "batch_input_shape", "build_config",
    "build_input_shape", "activity_regularizer", "quantization_config", "lora_rank", "lora_alpha", "optional",
)  # fmt: skip
_TRAINING_ONLY_SUFFIXES = ("_initializer", "_regularizer", "_constraint")
_FLOAT_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")  # all keep float32 weights, and the file is int8
_NORM = (("scale", "gamma"), ("center", "beta"), (None, "moving_mean"), (None, "moving_variance"))


class UnknownLayerError(ValueError):
    """Keras cannot make a layer of this definition."""


def canonical_layers(*, allow_code: bool = False) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A function from a serialized layer to its canonical definition: defaults written out, aliases resolved, nothing
    in it that only matters in training. Equal layers give one and the same object.

    The function raises ``UnknownLayerError``.
    """
    known: dict[str, Mapping[str, Any]] = {}

    def canonical(definition: Mapping[str, Any]) -> Mapping[str, Any]:
        plain = {key: definition.get(key) for key in ("module", "class_name", "registered_name")}
        plain["config"] = _inference_only(definition["config"])
        key = json.dumps(plain, sort_keys=True, default=str)
        if key not in known:
            known[key] = _rewritten(plain, definition["config"].get("name"), allow_code)
        return known[key]

    return canonical


def weight_name(kind: str, config: Mapping[str, Any], index: int) -> str:
    """What Keras calls the weight at ``index`` of ``get_weights``, for messages."""
    names: Sequence[str] = ("kernel", "bias")
    if kind.endswith("BatchNormalization"):
        names = [name for flag, name in _NORM if flag is None or config.get(flag, True)]
    elif kind == "Normalization":
        names = ("mean", "variance", "count")
    elif kind.startswith("SeparableConv"):
        names = ("depthwise_kernel", "pointwise_kernel", "bias")
    return names[index] if index < len(names) else f"weight {index}"


def _rewritten(definition: dict[str, Any], name: Any, allow_code: bool) -> Mapping[str, Any]:
    if ".ops." in f"{definition['module']}.":
        return definition  # a bare operation: Keras writes it in one way only
    try:
        layer = keras.saving.deserialize_keras_object(definition, safe_mode=not allow_code)
        rewritten = keras.saving.serialize_keras_object(layer)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnknownLayerError(
            f"layer {name!r} ({definition['class_name']}): Keras {keras.__version__} cannot make it: {reason}"
        ) from error
    plain = {key: rewritten.get(key) for key in ("module", "class_name", "registered_name")}
    return {**plain, "config": _inference_only(rewritten["config"])}


def _inference_only(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in config.items()
        if key not in _TRAINING_ONLY and not key.endswith(_TRAINING_ONLY_SUFFIXES)
    }
    if _policy(kept.get("dtype")) in _FLOAT_POLICIES:
        del kept["dtype"]
    return kept


def _policy(dtype: Any) -> Any:
    if isinstance(dtype, Mapping):
        return (dtype.get("config") or {}).get("name")
    return dtype
