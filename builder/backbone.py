"""Find what the classifiers share, by content, and say where they part.

Two tensors are the same when the same function of the pixels makes them: the same kind of layer, with the same settings
that matter at inference and the same weights, from the same tensors. That is one digest, computed from the input on, so
that equal digests of a tensor mean equal everything before it. Names, nesting and training-time settings do not enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.errors import NoSharedBackboneError
from builder.graph import INPUT, Graph, Node, Ref
from builder.loading import Classifier
from builder.simplify import ACTIVATION_LAYERS, activation_of

# Settings of a layer that do not change what it computes at inference.
_TRAINING_ONLY = (
    "name", "trainable", "seed", "momentum", "synchronized", "renorm", "batch_input_shape", "build_config",
    "build_input_shape", "activity_regularizer", "quantization_config", "lora_rank", "lora_alpha", "optional",
)  # fmt: skip
_TRAINING_ONLY_SUFFIXES = ("_initializer", "_regularizer", "_constraint")


@dataclass(frozen=True)
class Difference:
    """The first place, from the input on, at which a model leaves the first one. ``what`` is in plain words."""

    model: str
    layer: str
    what: str


@dataclass(frozen=True)
class SharedBackbone:
    """Where to cut. ``cuts``: for each classifier, how many nodes of its graph are backbone; the rest are head."""

    digest: str
    parameters: int
    cuts: tuple[int, ...]


def find_backbone(classifiers: Sequence[Classifier]) -> SharedBackbone:
    """The longest common part from the pixels on that ends in one tensor.

    A tensor can be the seam when nothing but it crosses from before to behind. The last layer with weights, and what
    follows it, is always left to the head, so that a single classifier has a head too.
    Raises ``NoSharedBackboneError`` where the models share no layer with weights.
    """
    digests = [tensor_digests(c) for c in classifiers]
    candidates = [_cuts(c.graph, d) for c, d in zip(classifiers, digests, strict=True)]
    common = set.intersection(*(set(found) for found in candidates))
    first = classifiers[0].graph
    best = max(common, key=lambda digest: candidates[0][digest], default=None)
    parameters = sum(n.parameters for n in first.nodes[: candidates[0][best]]) if best else 0
    if best is None or parameters == 0:
        raise NoSharedBackboneError(_explain(classifiers, digests))
    return SharedBackbone(best, parameters, tuple(found[best] for found in candidates))


def tensor_digests(classifier: Classifier) -> list[str]:
    """The digest of each node's first output, in the graph's order."""
    source = _hash("pixels", classifier.size, classifier.pixels.identity)
    digests: list[str] = []

    def digest_of(ref: Ref) -> str:
        return f"{source if ref.node == INPUT else digests[ref.node]}.{ref.output}"

    for node in classifier.graph.nodes:
        activation, settings = activation_of(node), _normal(node.config)
        if node.kind in ACTIVATION_LAYERS and activation is not None:
            result = digest_of(next(node.inputs()))
        else:
            arguments = _normal(_named([node.args, node.kwargs], digest_of))
            weights = [weight_digest(w) for w in node.weights.values()]
            if activation is not None:
                settings.pop("activation")
            result = f"{_hash(node.kind, settings, weights, arguments)}.0"
        # An activation is the same function inside a layer and behind it.
        plain = activation is None or activation == "linear"
        digests.append(result.rpartition(".")[0] if plain else _hash("activation", activation, result))
    return digests


def first_difference(first: Classifier, other: Classifier) -> Difference | None:
    """Where ``other`` leaves ``first``; None where all of it is the same."""
    ours, theirs = tensor_digests(first), tensor_digests(other)
    place = next((i for i, digest in enumerate(theirs) if digest not in set(ours)), None)
    if place is None:
        return None
    node = other.graph.nodes[place]
    if first.size != other.size:
        return Difference(
            other.name, node.layer, f"input is {_size(other.size)}, that of {first.name} is {_size(first.size)}"
        )
    if first.pixels.identity != other.pixels.identity:
        what = f"its pixels enter as {other.pixels}, those of {first.name} as {first.pixels}"
        return Difference(other.name, node.layer, what)
    counterpart = next((i for i, digest in enumerate(ours) if digest not in set(theirs)), len(ours) - 1)
    return Difference(other.name, node.layer, _describe(first.graph.nodes[counterpart], node))


def weight_digest(weight: np.ndarray) -> str:
    """Content of a weight: dtype, shape and every byte."""
    header = f"{weight.dtype}{weight.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(weight).tobytes()).hexdigest()


def _cuts(graph: Graph, digests: Sequence[str]) -> dict[str, int]:
    """Digest of every tensor that alone crosses a boundary, with the number of nodes before that boundary."""
    last_use: dict[Ref, int] = {graph.output: len(graph.nodes)}
    for i, node in enumerate(graph.nodes):
        for ref in node.inputs():
            last_use[ref] = max(last_use.get(ref, 0), i)
    head_start = max((i for i, node in enumerate(graph.nodes) if node.parameters), default=0)
    cuts: dict[str, int] = {}
    for boundary in range(1, head_start + 1):
        crossing = [ref for ref, use in last_use.items() if ref.node < boundary <= use]
        if len(crossing) == 1 and crossing[0] == Ref(boundary - 1, 0):
            cuts[digests[boundary - 1]] = boundary
    return cuts


def _explain(classifiers: Sequence[Classifier], digests: Sequence[Sequence[str]]) -> str:
    for other in classifiers[1:]:
        difference = first_difference(classifiers[0], other)
        if difference is not None:
            return (
                f"{classifiers[0].name} and {difference.model} share no backbone: they part at layer "
                f"{difference.layer!r}: {difference.what}. Train both heads on the same frozen base"
            )
    return f"{classifiers[0].name}: no layer with weights before the last one, so there is no backbone to share"


def _describe(ours: Node, theirs: Node) -> str:
    if ours.kind != theirs.kind:
        return f"{theirs.kind} where the other has {ours.kind} ({ours.layer!r})"
    settings, others = _normal(theirs.config), _normal(ours.config)
    for key in sorted(set(settings) | set(others)):
        if settings.get(key) != others.get(key):
            return f"{key} is {settings.get(key)!r} where the other has {others.get(key)!r}"
    changed = [_weight_difference(name, ours.weights.get(name), w) for name, w in theirs.weights.items()]
    told = [text for text in changed if text]
    same = [name for name, text in zip(theirs.weights, changed, strict=True) if not text]
    if told:
        return ", ".join(told) + (f" while {', '.join(same)} agree" if same else "")
    return "it reads other tensors"


def _weight_difference(name: str, ours: np.ndarray | None, theirs: np.ndarray) -> str:
    if ours is None:
        return f"{name} is missing in the other"
    if ours.shape != theirs.shape:
        return f"{name} has shape {theirs.shape} where the other has {ours.shape}"
    if np.array_equal(ours, theirs):
        return ""
    return f"{name} differs by up to {np.max(np.abs(ours.astype(np.float64) - theirs)):.3g}"


def _normal(value: Any) -> Any:
    """A layer's configuration without what does not matter at inference, in one spelling."""
    if isinstance(value, Mapping):
        if "class_name" in value and "config" in value:
            return [value["class_name"], _normal(value["config"])]
        kept = ((k, v) for k, v in value.items() if k not in _TRAINING_ONLY and not k.endswith(_TRAINING_ONLY_SUFFIXES))
        return {key: _normal(item) for key, item in kept if not (key == "mask" and item is None)}
    if isinstance(value, (list, tuple)):
        return [_normal(item) for item in value]
    return value


def _named(value: Any, name: Any) -> Any:
    if isinstance(value, Ref):
        return name(value)
    if isinstance(value, Mapping):
        return {key: _named(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(item, name) for item in value]
    return value


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
