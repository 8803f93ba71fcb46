"""The graph of a Keras model from the configuration that Keras itself saves. Nested models are flattened.

No live model is needed, and no code from the file is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, UnreadableModelError, WeightPool, refs_in, renumber, upstream
from builder.support.naming import advice

MODEL_CLASSES = ("Functional", "Model", "Sequential")
Path = tuple[str, ...]  # names of the models around a layer, outermost child first, and its own


class _Reader(NamedTuple):
    """The state of a walk through a definition."""

    nodes: list[Node]
    weights: Mapping[Path, Sequence[np.ndarray]]
    pool: WeightPool
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def read_graph(
    definition: Mapping[str, Any],
    weights: Mapping[Path, Sequence[np.ndarray]],
    *,
    pool: WeightPool,
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    output: int | None = None,
) -> Graph:
    """The graph of a serialized Functional or Sequential model.

    ``weights``: of each layer that has any. ``canonical``: returns a layer's definition in the canonical form in which
    models are compared. ``output``: the index in ``output_names``, for a model with several. Raises
    ``UnreadableModelError``.
    """
    reader = _Reader([], weights, pool, canonical)
    outputs = _read_model(definition, (), ([Ref(INPUT, 0)],), reader)
    if output is None and len(outputs) != 1:
        names = output_names(definition)
        raise UnreadableModelError(
            f"expected one output (batch, labels), found {len(outputs)}: {', '.join(names)!s:.200}; each can be a head: "
            f"add {advice('output_name', names[0] if names else 'NAME')}"
        )
    return _reachable(Graph(tuple(reader.nodes), outputs[output or 0]))


def output_names(definition: Mapping[str, Any]) -> list[str]:
    """What the outputs of a serialized model are called, in the order in which Keras gives them: by the keys of a dict,
    else by the layers that make them, numbered where one makes several. Of a Sequential model there is one.
    """
    structure = definition["config"].get("output_layers", [["output", 0, 0]])
    if isinstance(structure, dict):
        return [str(key) for key in sorted(structure)]
    layers = [str(name) for name, *_ in _histories(structure)]
    return [f"{name}_{layers[:i].count(name) + 1}" if name in layers[:i] else name for i, name in enumerate(layers)]


def input_shapes(definition: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The shape of each input of a serialized model, batch axis included; open sizes are None."""
    config = definition["config"]
    if "input_layers" in config:
        names = [entry[0] for entry in _histories(config["input_layers"])]
        return [_shape_of(layer) for name in names for layer in config["layers"] if layer["config"]["name"] == name]
    first = config["layers"][0] if config["layers"] else definition
    if first["class_name"] in MODEL_CLASSES and first["config"].get("layers"):
        return input_shapes(first)
    shape = _shape_of(first) or (definition.get("build_config") or {}).get("input_shape")
    return [tuple(shape)] if shape else []


def _shape_of(layer: Mapping[str, Any]) -> tuple[Any, ...]:
    config = layer["config"]
    return tuple(config.get("batch_shape") or config.get("batch_input_shape") or ())


def _read_model(definition: Mapping[str, Any], path: Path, args: tuple[Any, ...], reader: _Reader) -> list[Ref]:
    if definition.get("class_name") not in MODEL_CLASSES:
        name = definition.get("class_name")
        raise UnreadableModelError(
            f"{name} is a custom model class; rebuild it with Sequential or keras.Model(inputs, outputs)"
        )
    config = definition["config"]
    if "input_layers" not in config:
        return _read_sequential(config, path, list(refs_in(args)), reader)
    return _read_functional(config, path, _in_order(config["input_layers"], args), reader)


def _in_order(wanted: Any, args: tuple[Any, ...]) -> list[Ref]:
    """The tensors of a call in the order of the model's inputs. A dict names them, by its keys or as the layers do."""
    given = args[0] if args else None
    if not isinstance(given, dict):
        return list(refs_in(args))
    names = sorted(wanted) if isinstance(wanted, dict) else [entry[0] for entry in _histories(wanted)]
    return [given[name] for name in names if name in given]


def _call(
    definition: Mapping[str, Any], path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any], reader: _Reader
) -> list[Ref]:
    """Append the call of one layer, or the layers of a nested model. Returns its outputs, as far as they are known."""
    if definition["class_name"] in MODEL_CLASSES:
        return _read_model(definition, path, args or tuple(kwargs.values()), reader)
    weights = tuple(map(reader.pool.add, reader.weights.get(path, ())))
    reader.nodes.append(Node("/".join(path), reader.canonical(definition), weights, args, kwargs))
    return [Ref(len(reader.nodes) - 1, 0)]


def _read_sequential(config: Mapping[str, Any], path: Path, inputs: list[Ref], reader: _Reader) -> list[Ref]:
    current = inputs
    for layer in config["layers"]:
        if layer["class_name"] != "InputLayer":
            current = _call(layer, (*path, layer["config"]["name"]), tuple(current), {}, reader)
    return current


def _read_functional(config: Mapping[str, Any], path: Path, inputs: list[Ref], reader: _Reader) -> list[Ref]:
    names = [entry[0] for entry in _histories(config["input_layers"])]
    if len(names) != len(inputs):
        raise UnreadableModelError(f"expected {len(inputs)} input, found {len(names)}: {', '.join(names)}")
    values: dict[tuple[str, int], list[Ref]] = {(name, 0): [ref] for name, ref in zip(names, inputs, strict=True)}
    pending = [
        (layer, number, call)
        for layer in config["layers"]
        if layer["class_name"] != "InputLayer"
        for number, call in enumerate(layer["inbound_nodes"])
    ]
    first = _first_calls(config)
    while pending:
        waiting = []
        for layer, number, call in pending:
            arguments = [call["args"], call["kwargs"]]
            if any(_find(values, h, first) is None for h in _tensor_histories(arguments)):
                waiting.append((layer, number, call))
                continue
            args, kwargs = _with_refs(arguments, values, first)
            # In Keras 3 the outermost call decides, and predict() says False; see ``formats.training`` for Keras 2.
            kwargs.pop("training", None)
            name = layer["config"]["name"]
            values[name, number] = _call(layer, (*path, name), tuple(args), kwargs, reader)
        if len(waiting) == len(pending):
            raise UnreadableModelError(f"layer {pending[0][0]['config']['name']} reads a tensor that no layer makes")
        pending = waiting
    models = {layer["config"]["name"] for layer in config["layers"] if layer["class_name"] in ("Functional", "Model")}
    # The calls of a nested Functional are counted from 1 here, and from 0 where other layers read them.
    ends = [
        (name, call - (name in models and call > 0), output) for name, call, output in _histories(config["output_layers"])
    ]
    outputs = [_find(values, entry, {}) for entry in ends]
    return [ref for ref in outputs if ref is not None]


def _first_calls(config: Mapping[str, Any]) -> dict[str, int]:
    """The number of the first call, for each layer whose calls are not counted from 0.

    Some versions of Keras count the calls of a nested model from 1; then the largest number equals the count of calls.
    """
    calls = {layer["config"]["name"]: len(layer.get("inbound_nodes") or ()) for layer in config["layers"]}
    read = _tensor_histories([layer.get("inbound_nodes") for layer in config["layers"]])
    return {name: 1 for name, call, _ in read if 0 < calls.get(name, 0) <= call}


def _find(values: Mapping[tuple[str, int], list[Ref]], history: Any, first: Mapping[str, int]) -> Ref | None:
    """The tensor of a Keras history [layer, call, output]; None where it is not known yet."""
    name, call, output = history
    found = values.get((name, call - first.get(name, 0)))
    if found is None:
        return None
    return found[output] if output < len(found) else Ref(found[0].node, output)


def _histories(structure: Any) -> list[Any]:
    """[layer, call, output] entries of ``input_layers`` and ``output_layers``, which may be one, a list, or a dict."""
    if isinstance(structure, dict):
        structure = [structure[key] for key in sorted(structure)]  # the order in which Keras counts a dict's tensors
    if structure and isinstance(structure[0], str):
        return [structure]
    return [entry for item in structure for entry in _histories(item)]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _tensor_histories(value: Any) -> Iterator[Any]:
    if _is_tensor(value):
        yield value["config"]["keras_history"]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensor_histories(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensor_histories(item)


def _with_refs(value: Any, values: Mapping[tuple[str, int], list[Ref]], first: Mapping[str, int]) -> Any:
    if _is_tensor(value):
        return _find(values, value["config"]["keras_history"], first)
    if isinstance(value, dict):
        return {key: _with_refs(item, values, first) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_refs(item, values, first) for item in value]
    return value


def _reachable(graph: Graph) -> Graph:
    """Without the nodes that the output does not need."""
    needed = upstream(graph, [graph.output])
    return graph if len(needed) == len(graph.nodes) else renumber(graph, needed)
