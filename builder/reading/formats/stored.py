"""``StoredModel``, into which every kind of model file is read: a definition in Keras 3's form, and weights by layer."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.originals.original import Original
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import BuilderError, ModelFileError
from builder.support.frameworks import LENGTH, innermost
from builder.support.lazy import Lazy
from edge_runtime.errors import reason

keras: Any = Lazy("keras")

LayerPath = tuple[str, ...]  # names of the nested models around a layer, from the outside in, and its own
Weights = Mapping[LayerPath, Sequence[np.ndarray]]  # of each layer that has any, in the order of ``get_weights``

# What Keras raises on malformed files: it has no error class for them.
LOADING_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError, ImportError, NotImplementedError,
    zipfile.BadZipFile, UnicodeDecodeError, RecursionError, ArithmeticError,
)  # fmt: skip


MERGED = "polyhead"  # name of the model that a build writes as ``keras_output``


def is_old(definition: Mapping[str, Any], version: str) -> bool:
    """Whether the configuration is in the form of Keras 1 or 2. ``version``: as in the file; may be empty."""
    if version.split(".")[0].isdecimal():
        return int(version.split(".")[0]) < 3
    return "module" not in definition


def version_in(metadata: bytes) -> str:
    """The version of Keras in an archive's ``metadata.json``; empty if unknown."""
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        return ""
    version = found.get("keras_version") if isinstance(found, dict) else None
    return version if isinstance(version, str) else ""


def is_merged(definition: Mapping[str, Any]) -> bool:
    """Whether a build wrote the model as ``keras_output``; it takes raw pixels."""
    return isinstance(definition["config"], Mapping) and definition["config"].get("name") == MERGED


@dataclass(frozen=True)
class Origin:
    """Labels and input scaling from the files beside a model. None: they do not say.

    ``resize``: how pictures are resized to the model's size. ``trouble``: why the labels beside it cannot be read.
    ``labels_file``: the name of the file that the labels come from, if it would fit other models too.
    """

    labels: tuple[str, ...] | None = None
    preprocessing: PixelTransform | None = None
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    trouble: str = ""
    labels_file: str = ""


@dataclass(frozen=True)
class StoredModel:
    """A model file, read but not built.

    ``kind``: in words, for reports. ``definition``: Keras 3's serialized model. ``live``: builds it with Keras 3; slow.
    ``original``: the file as its own framework runs it, in another process. ``training``: layers that are called with
    ``training=True``. ``loss``: what it was trained with, as the file says, see ``trained.trained_with``.
    """

    path: Path
    kind: str
    definition: Mapping[str, Any]
    weights: Weights
    live: Callable[[], Any]
    original: Original
    origin: Origin = Origin()
    notes: tuple[str, ...] = ()  # what was changed while reading, in words, for reports
    training: tuple[str, ...] = ()
    loss: Any = None


class NoLayersError(ModelFileError):
    """The file does not describe layers; ``place`` is what can be converted to operators."""

    def __init__(self, message: str, place: Any) -> None:
        super().__init__(message)
        self.place = place


def live_weights(model: Any) -> dict[LayerPath, list[np.ndarray]]:
    """The weights of a built Keras model, layer by layer."""
    found: dict[LayerPath, list[np.ndarray]] = {}

    def collect(layer: Any, path: LayerPath) -> None:
        if isinstance(layer, keras.Model):
            for inner in layer.layers:
                collect(inner, (*path, inner.name))
        elif getattr(layer, "weights", None):  # a bare operation has none
            found[path] = [np.asarray(w) for w in layer.weights]

    collect(model, ())
    return found


def reason_of(error: BaseException) -> str:
    """A library's error message, on one line and shortened."""
    return reason(error)[:LENGTH] if isinstance(error, OSError) else innermost(str(error))


@contextlib.contextmanager
def contradictions(path: Path) -> Iterator[None]:
    """Turn errors from a contradictory definition into one ``ModelFileError``.

    Known contradictions are reported before; no list of them is complete.
    """
    try:
        yield
    except BuilderError:
        raise
    except LOADING_ERRORS as error:
        what = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelFileError(f"{path}: its layers contradict each other ({what}); save the model again") from error
