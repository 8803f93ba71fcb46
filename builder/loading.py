"""Keras file -> ``Classifier``: a model that was checked to be one, its graph, its labels, its pixels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from builder.config import HeadConfig
from builder.errors import ConfigError, ModelFileError
from builder.graph import Graph, UnreadableModelError, read_graph
from builder.pixels import CHANNELS, PixelTransform
from builder.simplify import activation_of, simplify

HDF5_SUFFIXES = (".h5", ".hdf5")
# What Keras raises on files that are not what they say: it has no error of its own for that.
_LOADING_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError, ImportError, NotImplementedError,
    zipfile.BadZipFile, UnicodeDecodeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Classifier:
    """One loaded model.

    ``graph``: what it computes at inference from ``pixels`` on. ``pixels``: from 0..255 to the graph's input.
    ``declared``: the part of ``pixels`` that happens outside the model. ``activation``: what its last layer applies.
    """

    name: str
    path: Path
    model: Any  # keras.Model
    graph: Graph
    pixels: PixelTransform
    declared: PixelTransform
    labels: tuple[str, ...]
    size: tuple[int, int]  # height, width
    activation: str

    @property
    def outputs(self) -> int:
        return int(self.model.outputs[0].shape[1])

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """The original model's scores, float32 (pictures, labels), for pixels 0..255 (pictures, height, width, 3)."""
        return run_float(self.model, self.declared.apply(pixels))


def run_float(model: Any, inputs: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """A Keras model at inference, in batches; float32. Eager: ``predict`` would compile anew for each of 200 heads."""
    starts = range(0, len(inputs), batch_size)
    return np.concatenate([np.asarray(model(inputs[i : i + batch_size], training=False)) for i in starts])


def load_classifiers(heads: Iterable[HeadConfig], advance: Callable[[], None] = lambda: None) -> tuple[Classifier, ...]:
    """Load each model; ``advance`` is called after each. Raises ``ModelFileError`` and ``ConfigError``."""
    found = []
    for head in heads:
        found.append(load_classifier(head))
        advance()
    return tuple(found)


def load_classifier(head: HeadConfig) -> Classifier:
    """The classifier of one head, with its labels. Raises ``ModelFileError`` and ``ConfigError``."""
    classifier = read_classifier(head.name, head.model, head.preprocessing)
    if head.preprocessing is None and classifier.pixels == PixelTransform():
        raise ConfigError(
            f"heads.{head.name}: how do pixels 0..255 enter {head.model.name}? No layer in it says so; "
            'add preprocessing = "raw", "unit", "tf", "torch", "caffe" or {scale, offset}'
        )
    return replace(classifier, labels=read_labels(head, classifier.outputs))


def read_classifier(name: str, path: Path, preprocessing: PixelTransform | None) -> Classifier:
    """The classifier in ``path``, without labels. Raises ``ModelFileError``."""
    model = load_model(path)
    size = _input_size(model, path)
    _check_output(model, path)
    try:
        graph = graph_of(model)
    except UnreadableModelError as error:
        raise ModelFileError(f"{path}: {error}") from error
    declared = preprocessing or PixelTransform()
    simple, pixels = simplify(graph, declared)
    return Classifier(
        name=name,
        path=path,
        model=model,
        graph=simple,
        pixels=pixels,
        declared=declared,
        labels=(),
        size=size,
        activation=_activation(simple, path),
    )


def load_model(path: Path) -> Any:
    """The Keras model in ``path``. Runs no code that the file brings. Raises ``ModelFileError``."""
    _check_container(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(f"{path}: Keras {keras.__version__} cannot load this model: {reason}") from error


def graph_of(model: Any) -> Graph:
    """The graph of a live Keras model. Raises ``UnreadableModelError``."""
    definition = keras.saving.serialize_keras_object(model)

    inside: dict[int, dict[str, Any]] = {}  # operations of each model by name; bare ones (keras.ops) are no layers

    def weights_of(path: tuple[str, ...]) -> Mapping[str, np.ndarray]:
        layer = model
        for name in path:
            if id(layer) not in inside:
                inside[id(layer)] = {op.name: op for op in getattr(layer, "operations", None) or layer.layers}
            layer = inside[id(layer)][name]
        return named_weights(layer)

    return read_graph(definition, weights_of)


def named_weights(layer: Any) -> dict[str, np.ndarray]:
    """Every variable of a layer, not only the trainable ones, in the order of ``get_weights``."""
    found: dict[str, np.ndarray] = {}
    for variable in getattr(layer, "weights", ()):
        name = variable.name if variable.name not in found else f"{variable.name}_{len(found)}"
        found[name] = np.asarray(variable)
    return found


def read_labels(head: HeadConfig, outputs: int) -> tuple[str, ...]:
    """The labels of a head with ``outputs`` outputs. Raises ``ConfigError`` where they are not one for each output."""
    labels, source = head.labels, f"heads.{head.name}.labels"
    if labels is None:
        labels = head.model.with_suffix(".txt")
        if not labels.is_file():
            raise ConfigError(f"{source}: expected a file or a list of {outputs} labels, found neither it nor {labels}")
    if isinstance(labels, Path):
        source = str(labels)
        labels = _labels_of_file(labels)
    if len(labels) != outputs:
        raise ConfigError(
            f"{source}: expected {outputs} labels, one for each output of {head.model.name}, found {len(labels)}"
        )
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ConfigError(f"{source}: labels repeat: {', '.join(repeated)}; each output needs a label of its own")
    if any(not label.strip() or "\n" in label for label in labels):
        raise ConfigError(f"{source}: a label is empty or has more than one line")
    return labels


def _labels_of_file(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: labels cannot be read ({error}); expected UTF-8 text, one label a line") from error
    return tuple(line.strip() for line in lines if line.strip())


def _check_container(path: Path) -> None:
    """Say in plain words what is wrong with a file before Keras says it in its own."""
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file")
    if path.is_dir():
        raise ModelFileError(f"{path}: expected a .keras or .h5 file, found a folder; save the model as .keras")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path}: the file is empty; save or copy the model again")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelFileError(f"{path}: expected a .keras archive, found something else or a part of one; copy it again")
    if path.suffix in HDF5_SUFFIXES and not h5py.is_hdf5(path):
        raise ModelFileError(f"{path}: expected an HDF5 file, found something else or a part of one; copy it again")
    if path.suffix not in (".keras", *HDF5_SUFFIXES):
        raise ModelFileError(f"{path}: expected a model saved as .keras or .h5, found {path.suffix or 'no suffix'}")


def _input_size(model: Any, path: Path) -> tuple[int, int]:
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) != 1:
        raise ModelFileError(f"{path}: expected a model with one input, a picture; found {len(inputs or ())} inputs")
    shape = tuple(inputs[0].shape)
    if len(shape) != 4 or shape[3] != CHANNELS:
        raise ModelFileError(f"{path}: expected input (batch, height, width, 3), found {shape}")
    if None in shape[1:]:
        raise ModelFileError(f"{path}: expected an input of fixed size, found {shape}; save it with input_shape set")
    return int(shape[1]), int(shape[2])


def _check_output(model: Any, path: Path) -> None:
    outputs = model.outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        shapes = ", ".join(str(tuple(o.shape)) for o in outputs)
        raise ModelFileError(f"{path}: expected one output (batch, labels), found {shapes}; not a classifier")


def _activation(graph: Graph, path: Path) -> str:
    """``softmax``, ``sigmoid`` or ``linear``; a last layer without an activation of its own gives bare logits."""
    if graph.output.node < 0:
        raise ModelFileError(f"{path}: the model returns its input; not a classifier")
    name = activation_of(graph.nodes[graph.output.node]) or "linear"
    if name not in ("softmax", "sigmoid", "linear"):
        raise ModelFileError(
            f"{path}: expected softmax, sigmoid or bare logits at the end, found {name}; not a classifier"
        )
    return name
