"""Read the part of a SavedModel that computes the scores, and its variables; nothing is run or loaded by TensorFlow.

TensorFlow 2 calls functions of a library, and the object graph tells which variable each argument of a call is;
TensorFlow 1 has variables in the graph itself, named as in the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from builder.reading.formats.checkpoint import BrokenCheckpointError, Checkpoint
from builder.reading.formats.limits import MAX_BYTES
from builder.reading.formats.members import Members
from builder.reading.formats.saved_model import GRAPH, VARIABLES, checkpoint_keys, names_in_checkpoint
from builder.reading.graphs.allowed import check_operators
from builder.support.errors import ModelFileError

_FIRST = "serving_default"
_INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")
_VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
_PIXELS = (types_pb2.DT_FLOAT, types_pb2.DT_UINT8)
_CHOICES = (
    "config_proto",
    "config",
    "executor_type",
)  # attributes of a call: how it is run


@dataclass(frozen=True)
class GraphFile:
    """``graph``: a serialized ``GraphDef`` of what ``target`` needs. ``variables``: values by node name.

    ``source``, ``target``: input and output tensor. ``shape``: of the source; open sizes are None.
    """

    path: Path
    graph: bytes
    variables: Mapping[str, np.ndarray]
    source: str
    target: str
    shape: tuple[int | None, ...]

    def write(self, folder: Path) -> Path:
        """For ``originals.graph_model``: the folder that it is told of."""
        place = folder / "graph"
        place.mkdir()
        told = {"source": self.source, "target": self.target, "shape": self.shape, "variables": list(self.variables)}
        (place / "graph.json").write_text(json.dumps(told), encoding="utf-8")
        (place / "graph.pb").write_bytes(self.graph)
        np.savez(place / "variables.npz", *self.variables.values())
        return place


def read_graph_file(members: Members, prefix: str, path: Path) -> GraphFile:
    """The graph of a SavedModel that lies at ``prefix`` among ``members`` of ``path``. Raises ``ModelFileError``."""
    try:
        (meta,) = saved_model_pb2.SavedModel.FromString(members[f"{prefix}{GRAPH}"]()).meta_graphs
        source, target = _ends(_signature(meta, path), path)
        graph, ordered = _needed(meta.graph_def, target.name, path)
        variables = [node for node in ordered if node.op in _VARIABLES]
        values = _values(meta, variables, members, f"{prefix}{VARIABLES}") if variables else {}
    except (ValueError, KeyError, IndexError, TypeError, DecodeError, BrokenCheckpointError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{path}: not a whole SavedModel ({what}); copy it again") from error
    shape = tuple(int(d.size) if d.size >= 0 else None for d in source.tensor_shape.dim)
    if source.tensor_shape.unknown_rank or len(shape) != 4:
        raise ModelFileError(f"{path}: expected pictures (batch, height, width, 3), found input {shape or '(any)'}")
    return GraphFile(path, graph.SerializeToString(), values, source.name, target.name, shape)


def _signature(meta: Any, path: Path) -> Any:
    found = {name: one for name, one in meta.signature_def.items() if name not in _INTERNAL}
    if _FIRST in found or len(found) == 1:
        return found.get(_FIRST) or next(iter(found.values()))
    raise ModelFileError(f"{path}: expected a signature {_FIRST!r}, found {', '.join(sorted(found))[:200] or 'none'}")


def _ends(signature: Any, path: Path) -> tuple[Any, Any]:
    """The only input, a picture, and the only numeric output; text outputs, such as Lobe's label, are ignored."""
    inputs = dict(signature.inputs)
    if len(inputs) != 1:
        raise ModelFileError(f"{path}: expected one input, a picture; found {len(inputs)} ({', '.join(inputs)[:200]})")
    (source,) = inputs.values()
    if source.dtype == types_pb2.DT_STRING:
        raise ModelFileError(
            f"{path}: it takes encoded pictures (JPEG, PNG); export it with pixels as its input, or as TensorFlow Lite"
        )
    if source.dtype not in _PIXELS:
        found = types_pb2.DataType.Name(source.dtype)
        raise ModelFileError(f"{path}: expected pixels as float32 or uint8, found {found}")
    outputs = {name: one for name, one in signature.outputs.items() if one.dtype == types_pb2.DT_FLOAT}
    if len(outputs) != 1:
        raise ModelFileError(
            f"{path}: expected one output, a score for each label; found {len(outputs)} of numbers "
            f"({', '.join(sorted(outputs))[:200]}): a detector, or a model with several heads"
        )
    return source, next(iter(outputs.values()))


def _needed(graph: Any, target: str, path: Path) -> tuple[Any, list[Any]]:
    """The nodes that a tensor needs, and their graph with its library. Raises ``ModelFileError`` for other operators."""
    nodes = {node.name: node for node in graph.node}
    kept = _reached(nodes, [_node_of(target)])
    check_operators(kept, path)
    found = graph_pb2.GraphDef(versions=graph.versions)
    found.node.extend(_plain(node) for node in kept)
    library = {function.signature.name: function for function in graph.library.function}
    pending, seen = [name for node in kept for name in _functions(node)], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        function = library[name]
        check_operators(function.node_def, path, f"function {name!r:.80}")
        own = found.library.function.add()
        own.CopyFrom(function)
        del own.node_def[:]
        own.node_def.extend(_plain(node) for node in function.node_def)
        own.attr.clear()
        pending += [inner for node in function.node_def for inner in _functions(node)]
    return found, kept


def _reached(nodes: Mapping[str, Any], first: Iterable[str]) -> list[Any]:
    pending, seen = list(first), dict[str, Any]()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen[name] = nodes[name]
            pending += [_node_of(one) for one in nodes[name].input]
    return [node for name, node in nodes.items() if name in seen]


def _node_of(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]


def _functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        for one in value.list.func:
            yield one.name


def _plain(node: Any) -> Any:
    """The node without device placement and execution settings."""
    found = type(node)()
    found.CopyFrom(node)
    found.device = ""
    for key in [key for key in found.attr if key in _CHOICES or key.startswith("_")]:
        del found.attr[key]
    return found


def _values(meta: Any, variables: Iterable[Any], members: Members, prefix: str) -> dict[str, np.ndarray]:
    """Values of variables by node name. Raises ``BrokenCheckpointError``, ``KeyError`` and ``ValueError``."""
    checkpoint = Checkpoint(members, prefix)
    keys = _keys(meta, checkpoint)
    found, size = dict[str, np.ndarray](), 0
    for node in variables:
        name = node.attr["shared_name"].s.decode() or node.name
        found[node.name] = checkpoint.tensor(keys.get(node.name) or keys.get(name) or name)
        size += found[node.name].nbytes
        if size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 30} GB of variables")
    return found


def _keys(meta: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """Checkpoint keys by node name: from the bindings of function calls, else from full names."""
    objects = meta.object_graph_def
    if not len(objects.nodes):
        return names_in_checkpoint(checkpoint)
    by_number = checkpoint_keys(objects.nodes, checkpoint)
    found = dict[str, str]()
    for node in meta.graph_def.node:
        for name in _functions(node):
            bound = objects.concrete_functions[name].bound_inputs if name in objects.concrete_functions else ()
            arguments = [one for one in node.input if not one.startswith("^")]
            for argument, number in zip(arguments[len(arguments) - len(bound) :], bound, strict=True):
                if number in by_number:
                    found[_node_of(argument)] = by_number[number]
    return found
