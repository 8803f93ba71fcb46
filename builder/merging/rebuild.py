"""Rebuild parts of classifiers as separate Keras models, layer by layer with their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from builder.merging.backbone import SharedBackbone
from builder.merging.budget import Budget
from builder.reading.checks import check_labels
from builder.reading.classifier import Classifier
from builder.reading.formats.limits import PLAIN
from builder.reading.formats.stored import LOADING_ERRORS
from builder.reading.graph import INPUT, Graph, Node, Ref, map_refs
from builder.reading.layers import made, refusals, unallocated
from builder.support.errors import ModelFileError
from builder.support.frameworks import innermost


def head_model(
    classifier: Classifier, nodes: Sequence[int], seam: Mapping[str, Ref], shapes: Mapping[str, tuple[int, ...]]
) -> Any:
    """``nodes`` of a classifier as a Keras model: the tensors of ``seam`` that they read -> scores (n, labels).

    ``shapes``: of the seam's tensors, without the batch axis. Raises ``ModelFileError``, and ``ConfigError`` where
    outputs and labels differ in number.
    """
    read = {ref for node in nodes for ref in classifier.graph.nodes[node].inputs()}
    inputs = {ref: keras.Input(shapes[name], name=name) for name, ref in seam.items() if ref in read}
    head = _rebuild(classifier, nodes, [classifier.graph.output], inputs, finish=classifier.applied)
    check_labels(classifier, head.output_shape)
    return head


def whole_model(classifier: Classifier) -> Any:
    """A whole classifier as a Keras model: input of its graph -> its scores, as the original gives them."""
    source_input, graph = classifier.source_input, classifier.graph
    source = keras.Input(source_input.shape, name=source_input.name, dtype=source_input.dtype)
    return _rebuild(classifier, range(len(graph.nodes)), [graph.output], {Ref(INPUT, 0): source}, name="whole")


def backbone_model(classifiers: Sequence[Classifier], shared: SharedBackbone) -> Any:
    """The shared part as a Keras model: input of the graph -> the tensors of the seam."""
    source_input = classifiers[0].source_input
    source = keras.Input(source_input.shape, name=source_input.name, dtype=source_input.dtype)
    nodes, outputs = shared.backbone(classifiers), list(shared.seams[0].values())
    return _rebuild(classifiers[0], nodes, outputs, {Ref(INPUT, 0): source}, name="backbone")


def _rebuild(
    classifier: Classifier,
    indices: Sequence[int],
    outputs: Sequence[Ref],
    inputs: Mapping[Ref, Any],
    *,
    name: str = "",
    finish: str | None = None,
) -> Any:
    """A Keras model of some nodes of a classifier, fed by the tensors in ``inputs``."""
    graph, values, layers = classifier.graph, dict(inputs), dict[str, Any]()
    names, budget = _unique_names(graph, indices), Budget(classifier)
    for i in indices:
        node = graph.nodes[i]
        args, kwargs = _arguments(node, values, classifier)
        budget.enter(node, args)
        if node.layer not in layers:
            if node.weights or node.kind not in _WITHOUT_WEIGHTS:
                _check_weights(node, classifier, args, kwargs)
            layers[node.layer] = _layer(node, names[node.layer], classifier)
        results = as_list(_call(layers[node.layer], node, args, kwargs, classifier))
        budget.leave(node, args, results)
        values.update((Ref(i, k), tensor) for k, tensor in enumerate(results))
        _set_weights(layers[node.layer], node)
    try:
        tensors = [values[ref] for ref in outputs]
    except KeyError as error:
        raise ModelFileError(f"{classifier.path}: it reads an output that its layer does not have") from error
    if finish is not None:
        tensors = [keras.layers.Activation(finish, name="probabilities")(tensor) for tensor in tensors]
    sources = list(inputs.values())
    return keras.Model(_one_or_all(sources), _one_or_all(tensors), name=name or classifier.name)


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _unique_names(graph: Graph, indices: Iterable[int]) -> dict[str, str]:
    """Map each layer's path to its own name, or to the whole path where another layer of this part has that name."""
    paths = dict.fromkeys(graph.nodes[i].layer for i in indices)
    own = [path.rsplit("/", 1)[-1] for path in paths]
    return {
        path: name
        if own.count(name) == 1 and name not in ("image", "tokens", "probabilities") and not name.startswith("features")
        else path.replace("/", "_")
        for path, name in zip(paths, own, strict=True)
    }


# What Keras raises on settings that contradict each other: they come from an untrusted file.
_UNFIT = (*LOADING_ERRORS, ArithmeticError, MemoryError)
_WITHOUT_WEIGHTS = (
    "Activation",
    "Add",
    "Concatenate",
    "Flatten",
    "Multiply",
    "ReLU",
    "Reshape",
    "Softmax",
    "ZeroPadding2D",
)


def _layer(node: Node, name: str, classifier: Classifier) -> Any:
    # Keras removes entries from the definition that it reads.
    definition = copy.deepcopy({**node.definition, "config": {**node.config, "name": name}})
    try:
        return made(definition, allow_code=classifier.allow_code)
    except _UNFIT as error:
        raise _unfit(node, classifier, error) from error


def _call(layer: Any, node: Node, args: Any, kwargs: Any, classifier: Classifier) -> Any:
    try:
        with refusals():
            return layer(*args, **kwargs)
    except _UNFIT as error:
        raise _unfit(node, classifier, error) from error


def _check_weights(node: Node, classifier: Classifier, args: Any, kwargs: Any) -> None:
    """Check that the file's weights fit the layer, before any are allocated."""

    def shapes() -> list[tuple[int, ...]]:
        sketch = _layer(node, "sketch", classifier)
        _call(sketch, node, args, kwargs, classifier)
        return [tuple(w.shape) for w in getattr(sketch, "weights", ())]  # a bare operation has none

    expected = unallocated(shapes)
    found = [w.value.shape for w in node.weights]
    if found != expected:
        raise ModelFileError(
            f"{classifier.path}: layer {node.layer!r} ({node.kind}): expected weights of shapes {expected}, found {found}"
        )


def _set_weights(layer: Any, node: Node) -> None:
    if node.weights:
        layer.set_weights([weight.value for weight in node.weights])
    if node.kind == "Normalization":
        layer.finalize_state()  # it computes with values derived from its weights


def _unfit(node: Node, classifier: Classifier, error: Exception) -> ModelFileError:
    why = innermost(str(error))
    return ModelFileError(f"{classifier.path}: layer {node.layer!r} ({node.kind}) cannot be rebuilt: {why}")


def _arguments(node: Node, values: Mapping[Ref, Any], classifier: Classifier) -> Any:
    """(args, kwargs) of a call, with tensors for references. Raises ``ModelFileError``."""
    try:
        return [_constants(map_refs(part, values.__getitem__)) for part in (node.args, dict(node.kwargs))]
    except KeyError as error:
        raise _unfit(node, classifier, ValueError(f"it reads an output that no layer has: {error}")) from error
    except _UNFIT as error:
        raise _unfit(node, classifier, error) from error


def _constants(value: Any) -> Any:
    """Turn constants that Keras serialized inside a call into arrays; tensors pass. Raises ``ValueError``."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            if value["class_name"] not in PLAIN:
                raise ValueError(f"a constant of class {value['class_name']!r:.60} in a call; expected numbers")
            return made(value)
        return {key: _constants(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_constants(item) for item in value)
    return value
