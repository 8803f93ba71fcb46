"""Read the labels of a model, and check its calls, weights and output."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.classifier import Classifier
from builder.reading.formats.labels import read_label_file
from builder.reading.formats.limits import MAX_TEXT
from builder.reading.graph import Graph
from builder.reading.layers import is_keras, weight_name
from builder.reading.outputs import wrong_count
from builder.reading.shapes import tensor_shapes
from builder.reading.spelling import axes
from builder.settings.heads import HeadConfig
from builder.support.errors import ConfigError, ModelFileError
from builder.support.naming import head_setting
from edge_runtime.counting import count_of
from edge_runtime.files import read_file


def read_labels(
    head: HeadConfig, beside: tuple[str, ...] = (), trouble: str = "", *, general: bool = False
) -> tuple[str, ...]:
    """The labels of a head: as configured, else ``beside``, else from the file with the model's name.

    ``beside``: labels inside the model, or from a ``general`` file beside it; then a file with the model's name comes
    first. ``trouble``: why there are none. Raises ``ConfigError``.
    """
    labels, source = head.labels, head_setting(head.name, "labels")
    candidates = [head.model.with_suffix(suffix) for suffix in (".txt", ".json", ".csv")]
    own = next((path for path in candidates if path.is_file()), None)
    if labels is None and general and own is not None and _has_labels(own):
        labels = own
    if labels is None and beside:
        labels = beside
    if labels is None and head.output_name is not None:
        labels = labels_of_output(head.model, head.output_name)
    if labels is None and trouble:
        raise ConfigError(f"{source}: the labels beside {head.model.name} cannot be read: {trouble}")
    labels = own if labels is None else labels
    if labels is None:
        raise ConfigError(f"{source}: expected a file or a list of labels, found neither, and no {candidates[0]}")
    if isinstance(labels, Path):
        source = str(labels)
        labels = read_label_file(labels)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ConfigError(f"{source}: labels repeat: {', '.join(repeated)}; each output needs a label of its own")
    if any(not label.strip() or "\n" in label for label in labels):
        raise ConfigError(f"{source}: a label is empty or has more than one line")
    return labels


def _has_labels(path: Path) -> bool:
    """Whether a file is one of labels; a .json may be many things."""
    try:
        return bool(read_label_file(path))
    except ConfigError:
        return False


def check_labels_beside(classifier: Classifier) -> None:
    """Check that the labels from a file beside the model are as many as its outputs. Raises ``ConfigError``."""
    outputs = classifier.end[1]
    if outputs and (wrong := wrong_count(outputs, len(classifier.labels))):
        raise ConfigError(
            f"{head_setting(classifier.name, 'labels')}: {classifier.path.name}: {wrong} in "
            f"{classifier.labels_file} beside it; if that is another's, set labels"
        )


def notes_on_labels(classifier: Classifier) -> tuple[str, ...]:
    """A note on labels from a file beside several models, of which one is theirs."""
    path, others = classifier.path, list[str]()
    if path.is_file():
        with contextlib.suppress(OSError):
            others = [p.name for p in sorted(path.parent.iterdir()) if p.suffix in _MODELS and p.stem != path.stem]
    if not others:
        return ()
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    setting = head_setting(classifier.name, "labels")
    return (
        f"its labels are from {classifier.labels_file}, which lies beside {others[0]}{more} too; if they are not "
        f"its own, set {setting}",
    )


_MODELS = (".tflite", ".keras", ".h5", ".hdf5")


def labels_file(model: Path) -> Path:
    """The file with the labels of a model with several outputs: a list for each, by its name."""
    return model.with_suffix(".labels.json")


def labels_of_output(model: Path, output: str) -> tuple[str, ...] | None:
    """The labels of one output, as a build writes them beside ``keras_output``; None where there is no such file.

    Raises ``ConfigError``.
    """
    path = labels_file(model)
    if not path.is_file():
        return None
    try:
        found = json.loads(read_file(path, MAX_TEXT))[output]
        if isinstance(found, list) and found and all(isinstance(label, str) for label in found):
            return tuple(found)
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        pass
    raise ConfigError(f"{path}: expected a JSON table with a list of labels for {output!r:.80}")


def check_nodes(graph: Graph, path: Path) -> None:
    """Raises ``ModelFileError`` for a call on no tensor, and for a weight that is NaN or infinite."""
    for node in graph.nodes:
        if next(node.inputs(), None) is None:
            raise ModelFileError(f"{path}: layer {node.layer!r:.80} ({node.kind}) is called on nothing; save it again")
        for i, weight in enumerate(node.weights):
            wrong = weight.value.size - int(np.isfinite(weight.value).sum())
            if wrong:
                name = weight_name(node.kind, node.config, i)
                raise ModelFileError(
                    f"{path}: layer {node.layer!r:.80} ({node.kind}): {wrong:,} of {weight.value.size:,} numbers of its "
                    f"{name} are NaN or infinite: training diverged, or the file was damaged; train or copy again"
                )


_ALONG_AXES = (
    "Argsort", "Cumprod", "Cumsum", "Flip", "LogSoftmax", "Logsumexp", "Max", "Mean", "Median", "Min", "Normalize",
    "Prod", "Roll", "Softmax", "Sort", "Std", "Sum", "UnitNormalization", "Var",
)  # fmt: skip


def check_batch(graph: Graph, shape: tuple[int | None, ...], path: Path) -> None:
    """Check that no layer computes along the batch axis. ``shape``: of the input, without that axis.

    Raises ``ModelFileError``.
    """
    asked = [i for i, node in enumerate(graph.nodes) if node.kind in _ALONG_AXES and is_keras(node.definition)]
    shapes = tensor_shapes(graph, shape) if asked else {}
    for node in (graph.nodes[i] for i in asked):
        found, told = shapes.get(next(node.inputs())), node.config.get("axis")
        along = range(len(found or ())) if told is None else axes(told, len(found or ()))
        if found and isinstance(along, Sequence) and None in [found[axis] for axis in along if axis < len(found)]:
            raise ModelFileError(
                f"{path}: layer {node.layer!r:.80} ({node.kind}) computes over {_axis(told)}, along the batch: an answer "
                "depends on the samples beside it, and a device has one at a time; give it an axis of the sample, "
                "such as that of the labels, and save the model again; its weights stay"
            )


def _axis(told: Any) -> str:
    return "all axes" if told is None else f"axis {told}"


def check_labels(classifier: Classifier, shape: tuple[int | None, ...]) -> None:
    """Check labels against the model's output ``shape``, batch axis included. Raises ``ModelFileError`` and
    ``ConfigError``.
    """
    if len(shape) != 2 or shape[1] is None:
        raise ModelFileError(f"{classifier.path}: expected one output (batch, labels), found {shape}; not a classifier")
    if len(classifier.labels) != shape[1]:
        raise ConfigError(
            f"{head_setting(classifier.name, 'labels')}: expected {count_of(shape[1], 'labels')}, one for each output of "
            f"{classifier.path.name}, found {len(classifier.labels)}"
        )
