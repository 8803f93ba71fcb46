"""Backbone and heads become Keras models of their own, and one merged model with a named output for each head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from builder.backbone import SharedBackbone
from builder.errors import BuilderError, NoSharedBackboneError
from builder.graph import INPUT, Graph, Node, Ref, map_refs
from builder.loading import Classifier, run_float
from builder.pixels import CHANNELS, PixelTransform

PROOF_TOLERANCE = 1e-4  # on probabilities: two float programs of one function differ by rounding only


@dataclass(frozen=True)
class MergedModel:
    """``backbone``: transformed pixels (n, height, width, 3) -> ``features``; each head: features -> scores (n, labels).

    Every head ends in probabilities, also where the original gave bare logits.
    """

    pixels: PixelTransform
    backbone: Any  # keras.Model
    heads: dict[str, Any]  # keras.Model of each head, in the user's order
    activations: dict[str, str]
    size: tuple[int, int]
    digest: str

    @property
    def features_shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.backbone.output_shape[1:])

    def device_input(self, pictures: np.ndarray) -> np.ndarray:
        """What the file's ``image`` stands for, float32, for pixels 0..255 (pictures, height, width, 3).

        Transformed already where one scale and one offset do it, else raw with the transform in the backbone.
        """
        return self.pixels.apply(pictures) if self.pixels.is_uniform else pictures.astype(np.float32)

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Float features (pictures, ...) of pixels 0..255 (pictures, height, width, 3)."""
        found: np.ndarray = self.backbone.predict(self.pixels.apply(pictures), batch_size=32, verbose=0)
        return found

    def head_scores(self, name: str, features: np.ndarray) -> np.ndarray:
        """Float probabilities (pictures, labels) of features (pictures, ...)."""
        return run_float(self.heads[name], features)

    def keras_model(self) -> Any:
        """Pixels 0..255 in, one named output for each head; plain Keras, loadable without this project."""
        image = keras.Input((*self.size, CHANNELS), name="image")
        x = pixel_layer(self.pixels)(image)
        features = self.backbone(x)
        outputs = {name: head(features) for name, head in self.heads.items()}
        return keras.Model(image, outputs, name="polyhead")


def merge(classifiers: Sequence[Classifier], shared: SharedBackbone) -> MergedModel:
    """Rebuild the shared part once, from the first classifier, and each head from its own."""
    first = classifiers[0]
    backbone = backbone_model(first, shared)
    heads = {}
    for classifier, cut in zip(classifiers, shared.cuts, strict=True):
        graph, seam = classifier.graph, keras.Input(backbone.output_shape[1:], name="features")
        nodes = range(cut, len(graph.nodes))
        heads[classifier.name] = _rebuild(
            graph,
            nodes,
            graph.output,
            {Ref(cut - 1, 0): seam},
            classifier.name,
            softmax=classifier.activation == "linear",
        )
    return MergedModel(
        pixels=first.pixels,
        backbone=backbone,
        heads=heads,
        activations={c.name: "sigmoid" if c.activation == "sigmoid" else "softmax" for c in classifiers},
        size=first.size,
        digest=f"sha256:{shared.digest}",
    )


def backbone_model(first: Classifier, shared: SharedBackbone) -> Any:
    """The shared part as a Keras model: transformed pixels (n, height, width, 3) -> features."""
    source, cut = keras.Input((*first.size, CHANNELS), name="image"), shared.cuts[0]
    return _rebuild(first.graph, range(cut), Ref(cut - 1, 0), {Ref(INPUT, 0): source}, "backbone")


def prove(classifiers: Sequence[Classifier], merged: MergedModel, pictures: np.ndarray) -> float:
    """Run every original beside its share of the merged model; returns the largest difference of a probability.

    ``pictures``: pixels 0..255 (pictures, height, width, 3). Raises ``NoSharedBackboneError`` above ``PROOF_TOLERANCE``.
    """
    features = merged.features(pictures)
    worst = 0.0
    for classifier in classifiers:
        original = classifier.predict(pictures)
        if classifier.activation == "linear":
            original = np.asarray(keras.ops.softmax(original))
        distance = float(np.max(np.abs(original - merged.head_scores(classifier.name, features))))
        if not distance <= PROOF_TOLERANCE:
            raise NoSharedBackboneError(
                f"{classifier.name}: by content its base is the shared one, but run on {len(pictures)} pictures its "
                f"probabilities differ by up to {distance:.2g} from {classifier.path.name}; what is not proved is not "
                "shared"
            )
        worst = max(worst, distance)
    return worst


def pixel_layer(transform: PixelTransform) -> Any:
    """A plain Keras layer for ``transform``: a Rescaling, or a 1x1 convolution where channels differ or are swapped."""
    if transform.is_uniform:
        return keras.layers.Rescaling(transform.scale[0], transform.offset[0], name="pixels")
    layer = keras.layers.Conv2D(CHANNELS, 1, name="pixels", trainable=False)
    layer.build((None, None, None, CHANNELS))
    kernel = np.zeros((1, 1, CHANNELS, CHANNELS), np.float32)
    kernel[0, 0, list(transform.order), range(CHANNELS)] = transform.scale
    layer.set_weights([kernel, np.asarray(transform.offset, np.float32)])
    return layer


def _rebuild(
    graph: Graph, indices: range, output: Ref, values: dict[Ref, Any], name: str, *, softmax: bool = False
) -> Any:
    """A Keras model of the nodes ``indices`` of ``graph``, fed by the tensors in ``values``."""
    source = next(iter(values.values()))
    layers: dict[str, Any] = {}
    names = _unique_names(graph, indices)
    for i in indices:
        node = graph.nodes[i]
        if node.layer not in layers:
            layers[node.layer] = _layer(node, names[node.layer])
        args, kwargs = (map_refs(part, values.__getitem__) for part in (node.args, dict(node.kwargs)))
        result = layers[node.layer](*_constants(args), **_constants(kwargs))
        for k, tensor in enumerate(result if isinstance(result, (list, tuple)) else [result]):
            values[Ref(i, k)] = tensor
        _set_weights(layers[node.layer], node)
    tensor = values[output]
    if softmax:
        tensor = keras.layers.Softmax(name="probabilities")(tensor)
    return keras.Model(source, tensor, name=name)


def _unique_names(graph: Graph, indices: range) -> dict[str, str]:
    """The layer's own name where no other in this part has it, else the whole path."""
    paths = dict.fromkeys(graph.nodes[i].layer for i in indices)
    own = [path.rsplit("/", 1)[-1] for path in paths]
    return {
        path: name
        if own.count(name) == 1 and name not in ("image", "features", "probabilities")
        else path.replace("/", "_")
        for path, name in zip(paths, own, strict=True)
    }


def _layer(node: Node, name: str) -> Any:
    definition = {**node.definition, "config": {**node.config, "name": name}}
    try:
        return keras.saving.deserialize_keras_object(definition, safe_mode=True)
    except (ValueError, TypeError) as error:
        raise BuilderError(f"layer {node.layer!r} ({node.kind}) cannot be rebuilt: {error}") from error


def _constants(value: Any) -> Any:
    """Constants that Keras serialized inside a call become arrays again; tensors pass."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            return keras.saving.deserialize_keras_object(value, safe_mode=True)
        return {key: _constants(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_constants(item) for item in value)
    return value


def _set_weights(layer: Any, node: Node) -> None:
    if node.weights:
        layer.set_weights(list(node.weights.values()))
