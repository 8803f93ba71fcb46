"""Read layers and weights from a SavedModel of Keras 2 or tf_keras, without running its graph.

Keras's description of every layer is in ``keras_metadata.pb`` (until TensorFlow 2.4 in ``saved_model.pb`` itself), by
the number of an object; ``saved_model.pb`` says which object holds which, and so does the checkpoint, with numbers of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from builder.reading.formats import differences
from builder.reading.formats.calls import clean_name, layer_name, layers_in
from builder.reading.formats.checkpoint import BrokenCheckpointError, Checkpoint, proto_fields
from builder.reading.formats.cleaned import in_float32
from builder.reading.formats.complete import check_complete, layers_within
from builder.reading.formats.definition import check_form, parse_definition
from builder.reading.formats.exported import DESCRIPTION, OBJECT_GRAPH, weights_by_place
from builder.reading.formats.keras2 import modernize
from builder.reading.formats.limits import as_float32, check_definition
from builder.reading.formats.members import Members, file_beside
from builder.reading.formats.stored import LOADING_ERRORS, LayerPath, NoLayersError, StoredModel, reason_of
from builder.reading.formats.tf_keras import tf_keras_model
from builder.reading.formats.toolkit import Unwrapped, unwrap
from builder.reading.formats.training import as_inference
from builder.reading.formats.vocabulary import TEXT_LAYER, table_tokens
from builder.reading.keras_graph import input_shapes
from builder.reading.originals.original import write_definition
from builder.reading.trained import loss_in
from builder.reading.vocabulary import check_output_mode
from builder.support.errors import ModelFileError

GRAPH, METADATA, VARIABLES = "saved_model.pb", "keras_metadata.pb", "variables/variables"
_AGAIN = 'load it with the Keras that made it and save it with model.save("name.keras")'
_NO_LAYERS = (
    "a SavedModel without Keras's description of its layers (made by model.export() or without Keras): it can be read as "
    f"a classifier, but not as layers; {_AGAIN}"
)


@dataclass(frozen=True)
class SavedModelPlace:
    """A SavedModel that lies at ``prefix`` among ``members`` of ``path``."""

    path: Path
    members: Members
    prefix: str

    def beside(self, name: str) -> bytes | None:
        """The file ``name`` in the SavedModel's folder or beside it; None where there is none."""
        around = self.prefix.rstrip("/").rpartition("/")[0]
        places = [f"{self.prefix}{name}", f"{around}/{name}".lstrip("/")]
        read = next((self.members[one] for one in places if one in self.members), None)
        if read is not None:
            return read()
        return None if self.prefix or not self.path.is_dir() else file_beside(self.path.parent, name)


def saved_model_of(members: Members, prefix: str, path: Path, *, allow_code: bool = False) -> StoredModel:
    """The model of a SavedModel that lies at ``prefix`` among ``members`` of ``path``. Raises ``ModelFileError``."""
    for name in (GRAPH, f"{VARIABLES}.index"):
        if f"{prefix}{name}" not in members:
            raise ModelFileError(f"{path}: no {prefix}{name}: expected a whole SavedModel folder; copy it again")
    try:
        graph = saved_model_pb2.SavedModel.FromString(members[f"{prefix}{GRAPH}"]())
        nodes = graph.meta_graphs[0].object_graph_def.nodes
        described = _described(members, prefix, nodes)
        if 0 not in described and f"{prefix}{DESCRIPTION}" in members:
            described = {0: members[f"{prefix}{DESCRIPTION}"]().decode("utf-8")}
        if 0 not in described:
            raise NoLayersError(f"{path}: {_NO_LAYERS}", SavedModelPlace(path, members, prefix))
        whole = parse_definition(described[0], path)
        model = unwrap(whole)
        raw = model.definition
        check_definition(raw, path, allow_code=allow_code)
        walk = _Walk(nodes, described, Checkpoint(members, f"{prefix}{VARIABLES}"))
        if len(nodes):
            walk.give_vocabularies(whole, graph.meta_graphs[0], path)
        modern = modernize(raw, path, allow_code=allow_code)
        check_form(modern.definition, path)
        weights = walk.weights(whole, model) if len(nodes) else weights_by_place(raw, walk.checkpoint)
        check_complete(modern.definition, weights, path)
    except ModelFileError:
        raise
    except (*LOADING_ERRORS, DecodeError, MemoryError) as error:
        raise ModelFileError(
            f"{path}: not a whole SavedModel of Keras ({reason_of(error)}); copy it again, or {_AGAIN}"
        ) from error

    def copy(folder: Path) -> Path:
        """Copy the checked description of the layers and the checkpoint, but not the graph, which is a program."""
        saved = write_definition(in_float32(as_inference(raw)), folder)
        for name in members:
            if name.startswith(f"{prefix}{VARIABLES}."):
                (saved / name.removeprefix(f"{prefix}variables/")).write_bytes(members[name]())
        return saved

    shape = next(iter(input_shapes(modern.definition)), ())
    kind = "Keras 2 SavedModel"
    found = tf_keras_model(path, kind, model, modern, weights, copy, allow_code=allow_code, shape=shape)
    return replace(found, loss=loss_in(described[0], "training_config"))


def _described(members: Members, prefix: str, nodes: Any) -> dict[int, str]:
    """Keras's description of objects, as JSON, by object number."""
    found = {
        number: node.user_object.metadata
        for number, node in enumerate(nodes)
        if node.user_object.identifier.startswith("_tf_keras_") and node.user_object.metadata
    }
    if f"{prefix}{METADATA}" in members:
        for number, value in proto_fields(members[f"{prefix}{METADATA}"]()):
            if number == 1 and isinstance(value, bytes):
                fields = dict(proto_fields(value))
                place, text = fields.get(2, 0), fields.get(5, b"")
                if isinstance(place, int) and isinstance(text, bytes):
                    found[place] = text.decode("utf-8")
    return found


@dataclass(frozen=True)
class _Walk:
    """From the layers of a definition to the tensors of the checkpoint, through the objects of the graph."""

    nodes: Any
    described: Mapping[int, str]
    checkpoint: Checkpoint

    def weights(self, definition: Mapping[str, Any], model: Unwrapped) -> dict[LayerPath, list[np.ndarray]]:
        """The weights of each layer of ``model`` that has any; ``definition``: with the wrappers that the file has."""
        keys, found = checkpoint_keys(self.nodes, self.checkpoint), {}
        for place, number in self._objects(definition, 0, ()).items():
            named = [(self.nodes[one].variable.name, one) for one in self._variables(number)]
            if own := model.weights(place[-1], named):
                values = [as_float32(self.checkpoint.tensor(keys[one])) for _, one in own]
                found[(*place[:-1], clean_name(model.name(place[-1])))] = values
        return found

    def give_vocabularies(self, definition: Mapping[str, Any], meta_graph: Any, path: Path) -> None:
        """Put the vocabulary of each text layer that was adapted into its settings, in place.

        It is in the graph, as the constants that fill the layer's table when the model is loaded.
        """
        layers = {tuple(map(clean_name, place)): layer for place, layer in layers_within(definition, ()).items()}
        for place, number in self._objects(definition, 0, ()).items():
            layer = layers[place]
            if layer["class_name"] == TEXT_LAYER:
                check_output_mode(layer["config"], path)
            if layer["class_name"] == TEXT_LAYER and layer["config"].get("vocabulary") is None:
                fill = self._follow(number, ("_lookup_layer", "lookup_table", "_initialize"))
                if fill is not None:
                    layer["config"]["vocabulary"] = table_tokens(meta_graph, fill, path)

    def _follow(self, number: int, names: Sequence[str]) -> int | None:
        """The object reached through the attributes ``names``."""
        for name in names:
            held = {child.local_name: child.node_id for child in self.nodes[number].children}
            if name not in held:
                return None
            number = held[name]
        return number

    def _variables(self, number: int) -> list[int]:
        """The objects of a layer's weights, in the order of ``get_weights``."""
        held = {child.local_name: child.node_id for child in self.nodes[number].children}
        if "variables" in held:
            names = {child.local_name: child.node_id for child in self.nodes[held["variables"]].children}
            return [names[name] for name in sorted(names, key=int)]
        variables = {name for name, one in held.items() if self.nodes[one].WhichOneof("kind") == "variable"}
        kind = json.loads(self.described.get(number, "{}")).get("class_name")
        known = differences.OBJECTS.get(kind, ())
        if (variables and not variables >= set(known)) or (variables and not known):
            raise BrokenCheckpointError(f"layer {self._name(number)!r:.80} does not list its weights")
        return [held[name] for name in known if name in held]

    def _objects(self, definition: Mapping[str, Any], number: int, path: LayerPath) -> dict[LayerPath, int]:
        """The object of every layer, by the layer's path."""
        children = {child.node_id for child in self.nodes[number].children if child.local_name.startswith("layer")}
        by_name = {self._name(child): child for child in children}
        found: dict[LayerPath, int] = {}
        for layer in layers_in(definition):
            name = layer_name(layer)
            if layer["class_name"] == "InputLayer":
                continue
            if name not in by_name:
                raise BrokenCheckpointError(f"no object for layer {name!r:.80}")
            inner = (*path, clean_name(name))
            if layer["class_name"] in differences.MODELS:
                found |= self._objects(layer, by_name[name], inner)
            else:
                found[inner] = by_name[name]
        return found

    def _name(self, number: int) -> str:
        described = json.loads(self.described.get(number, "{}"))
        return str(described.get("name") or described.get("config", {}).get("name"))


def checkpoint_keys(nodes: Any, checkpoint: Checkpoint) -> dict[int, str]:
    """The key in the checkpoint of every object that is a variable, by its number in the graph of objects ``nodes``."""
    own = _own_objects(checkpoint)
    same, pending, keys = {0: 0}, [0], {}
    while pending:
        number = pending.pop()
        there = {child.local_name: child.node_id for child in own[same[number]].children}
        for attribute in own[same[number]].attributes:
            if attribute.name == "VARIABLE_VALUE":
                keys[number] = attribute.checkpoint_key
        for child in nodes[number].children:
            if child.node_id not in same and child.local_name in there:
                same[child.node_id] = there[child.local_name]
                pending.append(child.node_id)
    return keys


def names_in_checkpoint(checkpoint: Checkpoint) -> dict[str, str]:
    """The keys of variables by their names in the graph; empty where the checkpoint lists no objects."""
    try:
        objects = _own_objects(checkpoint)
    except BrokenCheckpointError:
        return {}
    return {one.full_name: one.checkpoint_key for node in objects for one in node.attributes if one.full_name}


def _own_objects(checkpoint: Checkpoint) -> Any:
    return trackable_object_graph_pb2.TrackableObjectGraph.FromString(checkpoint.text(OBJECT_GRAPH)).nodes
