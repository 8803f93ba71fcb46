"""The canonical definition of each layer, as Keras 3 writes it, whichever version wrote the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from builder.support.frameworks import innermost
from builder.support.lazy import Lazy

_T = TypeVar("_T")
keras: Any = Lazy("keras")
tf: Any = Lazy("tensorflow")

# Settings of a layer that do not change what it computes at inference.
_TRAINING_ONLY = (
    "name", "trainable", "seed", "momentum", "synchronized", "renorm", "batch_input_shape", "build_config",
    "renorm_clipping", "renorm_momentum",
    "build_input_shape", "activity_regularizer", "quantization_config", "lora_rank", "lora_alpha", "optional",
)  # fmt: skip
_TRAINING_ONLY_SUFFIXES = ("_initializer", "_regularizer", "_constraint")
_FLOAT_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")  # all have float32 weights, and the built file is int8
_NORM = (("scale", "gamma"), ("center", "beta"), (None, "moving_mean"), (None, "moving_variance"))


class UnknownLayerError(ValueError):
    """Keras cannot make a layer from this definition."""


def canonical_layers(*, allow_code: bool = False) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return a function from a serialized layer to its canonical definition: defaults written out, aliases resolved,
    training settings removed. Equal layers give the same object.

    The function raises ``UnknownLayerError``.
    """
    known: dict[str, Mapping[str, Any]] = {}

    def canonical(definition: Mapping[str, Any]) -> Mapping[str, Any]:
        plain = {key: definition.get(key) for key in ("module", "class_name", "registered_name")}
        plain["config"] = inference_only(definition["config"])
        key = json.dumps(plain, sort_keys=True, default=str)
        if key not in known:
            known[key] = _rewritten(plain, definition["config"].get("name"), allow_code)
        return known[key]

    return canonical


_NO_OPS = (
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "Equalization", "GaussianDropout",
    "GaussianNoise", "Identity", "MaxNumBoundingBoxes", "MixUp", "RandAugment", "Solarization", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "StochasticDepth",
)  # fmt: skip
_ALWAYS_ON = ("RandomCrop",)  # changes pictures at inference too


def does_nothing_at_inference(definition: Mapping[str, Any]) -> bool:
    """Whether it is one of Keras's own layers that returns its input at inference."""
    kind = str(definition["class_name"])
    return is_keras(definition) and kind not in _ALWAYS_ON and (kind in _NO_OPS or kind.startswith("Random"))


def is_keras(definition: Mapping[str, Any]) -> bool:
    """Whether it is one of Keras's own classes; a user's may have the same name."""
    module = str(definition.get("module"))
    return module.split(".")[0] == "keras" and ">" not in str(definition.get("registered_name"))


def made(definition: Any, *, allow_code: bool = False) -> Any:
    """The object that Keras makes from a definition; Keras removes parts of its argument.

    Raises whatever Keras raises; TensorFlow's own errors, as for a table without words, become ``ValueError``.
    """
    with refusals():
        return keras.saving.deserialize_keras_object(definition, safe_mode=not allow_code)


def unallocated(make: Callable[[], _T]) -> _T:
    """What ``make`` returns. The weights of the layers that it builds have shapes and no values.

    Keras would initialize them all at the end of the scope, which takes longer than to build their layers; where it is
    told not to, it keeps them for the next scope of its thread. So this is a thread that ends with them.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_without_values, make).result()


def _without_values(make: Callable[[], _T]) -> _T:
    with tf.Graph().as_default(), keras.StatelessScope(initialize_variables=False):
        return make()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn TensorFlow's own errors into ``ValueError``, as Keras's are."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow."):
            raise
        raise ValueError(" ".join(str(error).split())) from error


def weight_name(kind: str, config: Mapping[str, Any], index: int) -> str:
    """Keras's name for the weight at ``index`` of ``get_weights``, for messages."""
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
        return definition  # a bare operation: Keras writes it in only one way
    if does_nothing_at_inference(definition):
        return definition  # it is dropped later: no need to make it
    try:
        layer = made(definition, allow_code=allow_code)
        rewritten = keras.saving.serialize_keras_object(layer)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError) as error:
        reason = innermost(str(error))
        raise UnknownLayerError(
            f"layer {name!r} ({definition['class_name']}): Keras {keras.__version__} cannot make it: {reason}"
        ) from error
    plain = {key: rewritten.get(key) for key in ("module", "class_name", "registered_name")}
    return {**plain, "config": inference_only(rewritten["config"])}


def inference_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that change nothing at inference, also in nested layers."""
    kept = {
        key: value if key == "dtype" else _inner(value)
        for key, value in config.items()
        if key not in _TRAINING_ONLY and not key.endswith(_TRAINING_ONLY_SUFFIXES)
    }
    if _policy(kept.get("dtype")) in _FLOAT_POLICIES:
        del kept["dtype"]
    return kept


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_name" in value and isinstance(value.get("config"), Mapping):
        if str(value["class_name"]).startswith("__"):  # an array, a slice
            return value
        kept = {key: value.get(key) for key in ("module", "class_name", "registered_name") if key in value}
        return {**kept, "config": inference_only(value["config"])}
    return [_inner(item) for item in value] if isinstance(value, (list, tuple)) else value


def _policy(dtype: Any) -> Any:
    if isinstance(dtype, Mapping):
        return (dtype.get("config") or {}).get("name")
    return dtype
