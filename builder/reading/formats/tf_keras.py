"""A model file of Keras 1, Keras 2 or tf_keras, however it was stored: Keras 3 rebuilds it, tf_keras runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from builder.reading.formats.cleaned import write_layers
from builder.reading.formats.keras2 import Modernized
from builder.reading.formats.keras2_weights import modern_weights
from builder.reading.formats.rebuild import rebuild
from builder.reading.formats.stored import StoredModel, Weights
from builder.reading.formats.toolkit import Unwrapped
from builder.reading.originals.original import KerasOriginal


def tf_keras_model(
    path: Path,
    kind: str,
    model: Unwrapped,
    modern: Modernized,
    weights: Weights,
    copy: Callable[[Path], Path],
    *,
    allow_code: bool,
    shape: Sequence[int | None] = (),
) -> StoredModel:
    """Put together what was read of a file.

    Args:
        path: The file.
        kind: What it is, in words.
        model: Its configuration without wrappers.
        modern: The same as Keras 3 serializes it.
        weights: Of each layer.
        copy: Writes the file, cleaned, into a folder; not used where wrappers were removed.
        allow_code: Whether layers of nobody's but the user's are run.
        shape: Of the input, batch axis included, where the file does not say it.
    """
    if model.layers:
        copy = partial(write_layers, model.definition, weights)
    weights = modern_weights(modern.definition, weights)
    live = partial(rebuild, modern.definition, weights, path, allow_code=allow_code)
    original = KerasOriginal(path, "tf_keras", copy, allow_code=allow_code, shape=shape, otherwise=live)
    return StoredModel(
        path,
        kind,
        modern.definition,
        weights,
        live,
        original,
        notes=(*model.notes, *modern.notes),
        training=modern.training,
    )
