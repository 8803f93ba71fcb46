"""The SavedModel of ``tf.keras.experimental.export_saved_model``, Teachable Machine's until 2020.

Keras's description is in ``assets/saved_model.json``, ``saved_model.pb`` does not describe layers, and the checkpoint
lists its own objects: ``layer-0``, ``layer-1``, ... of every model, in the order of the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.protobuf import trackable_object_graph_pb2

from builder.reading.formats import differences
from builder.reading.formats.calls import clean_name, layer_name, layers_in
from builder.reading.formats.checkpoint import BrokenCheckpointError, Checkpoint
from builder.reading.formats.limits import as_float32
from builder.reading.formats.stored import LayerPath

DESCRIPTION = "assets/saved_model.json"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")
# The weights of the layers that such a model may have, in the order of ``get_weights``.
_ORDER = {
    **dict.fromkeys(("Conv2D", "Dense"), ("kernel", "bias")),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    **dict.fromkeys(("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"), _NORMALIZATION),
}


def weights_by_place(definition: Mapping[str, Any], checkpoint: Checkpoint) -> dict[LayerPath, list[np.ndarray]]:
    """The weights of each layer, by the objects ``layer-N`` that the checkpoint itself lists."""
    objects = trackable_object_graph_pb2.TrackableObjectGraph.FromString(checkpoint.text(OBJECT_GRAPH)).nodes

    def walk(model: Mapping[str, Any], number: int, path: LayerPath) -> dict[LayerPath, list[np.ndarray]]:
        held = {child.local_name: child.node_id for child in objects[number].children}
        layers, found = layers_in(model), dict[LayerPath, list[np.ndarray]]()
        ahead = sum(name.startswith("layer-") for name in held) - len(
            layers
        )  # an input that is no layer of the definition
        for place, layer in enumerate(layers, ahead):
            inner = (*path, clean_name(layer_name(layer)))
            if layer["class_name"] in differences.MODELS:
                found |= walk(layer, held[f"layer-{place}"], inner)
            elif layer["class_name"] != "InputLayer":
                keys = _keys_of(objects[held[f"layer-{place}"]], layer["class_name"])
                found |= {inner: [as_float32(checkpoint.tensor(key)) for key in keys]} if keys else {}
        return found

    def _keys_of(one: Any, kind: str) -> list[str]:
        keys = {c.local_name: a.checkpoint_key for c in one.children for a in objects[c.node_id].attributes}
        if set(keys) - set(_ORDER.get(kind, ())):
            raise BrokenCheckpointError(f"a layer of class {kind!r:.60} does not list its weights")
        return [keys[name] for name in _ORDER[kind] if name in keys] if keys else []

    return walk(definition, 0, ())
