"""What a model's output is: probabilities that add up to 1, a probability for each label, or logits.

Two sources are used: the graph, back from the output to the last layer that neither only reshapes nor is affine, and the
output values. The last layer alone does not tell: reshapes, means and temperatures may follow an activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, WeightPool, renumber
from builder.reading.layers import is_keras
from builder.reading.spelling import activation_form
from builder.reading.trained import Trained
from builder.support.errors import ConfigError, ModelFileError
from edge_runtime.counting import count_of

LOGITS, UNKNOWN = "logits", "unknown"  # what a graph may end in, besides an activation
AS_IT_IS = "none"  # declared by the user: the values are probabilities already
_BOUNDED = ("softmax", "sigmoid", "hard_sigmoid")
_PASSED = (
    "Add", "Average", "AveragePooling1D", "AveragePooling2D", "Cast", "Concatenate", "Divide", "ExpandDims", "Flatten",
    "GetItem", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "Identity", "Mean", "Multiply", "Permute", "Rescaling",
    "Reshape", "Squeeze", "Stack", "Subtract", "Transpose", "TrueDivide",
)  # fmt: skip
_AFFINE = ("BatchNormalization", "Conv1D", "Conv2D", "Dense", "EinsumDense")
_STEP = 1 / 256  # of a softmax in int8, as TensorFlow Lite has it
_NEAR = 1e-3  # tolerance at 0 and 1, for float32 and means of many values


@dataclass(frozen=True)
class Output:
    """``ends_in``: what the graph ends in: the name of an activation, ``LOGITS`` or ``UNKNOWN``.

    ``activation``: what the scores are, ``softmax`` (they add up to 1) or ``sigmoid`` (each label is separate).
    ``applied``: the activation that turns raw values into scores; None where they are scores. ``negative``: the only
    output p answers a yes/no question, and the scores are 1 - p and p.
    """

    ends_in: str
    activation: str
    applied: str | None = None
    negative: bool = False

    @property
    def is_clear(self) -> bool:
        """Whether the graph alone decides which activation to append. Values can then only contradict it."""
        return self.ends_in in _BOUNDED

    def scores(self, raw: np.ndarray) -> np.ndarray:
        """float32 (samples, labels) from the raw values of the original, float32 (samples, outputs)."""
        found = raw if self.applied is None else _APPLIED[self.applied](raw)
        return np.concatenate([1 - found, found], axis=1) if self.negative else found


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray((1 + np.tanh(values / 2)) / 2)


_APPLIED = {"softmax": _softmax, "sigmoid": _sigmoid}


def ends_in(graph: Graph) -> str:
    """What the graph ends in: the name of an activation, ``LOGITS`` or ``UNKNOWN``."""
    found = _ends(graph, graph.output, set())
    return found.pop() if len(found) == 1 else UNKNOWN


def _ends(graph: Graph, ref: Ref, seen: set[Ref]) -> set[str]:
    if ref in seen:
        return set()
    seen.add(ref)
    if ref.node == INPUT:
        return {UNKNOWN}
    node = graph.nodes[ref.node]
    activation = activation_form(node, None)
    if activation is not None:
        return {str(activation[0])}
    if not is_keras(node.definition):
        return {UNKNOWN}
    if node.kind in _PASSED:
        return set().union(*(_ends(graph, source, seen) for source in node.inputs()))
    return {LOGITS if node.kind in _AFFINE else UNKNOWN}


def expected_output(
    end: str, outputs: int | None, declared: str | None, labels: int, where: str, trained: Trained | None = None
) -> Output:
    """The output according to the graph, the user and the loss ``trained``, before values are known. ``outputs``: their
    number, if known.

    Raises ``ConfigError`` and ``ModelFileError``.
    """
    own = {"softmax": "softmax", "sigmoid": "sigmoid", "hard_sigmoid": "sigmoid"}.get(end)
    if own is not None and declared not in (None, AS_IT_IS, own):
        raise ConfigError(
            f"{where} ends in a {own} of its own; leave activation out, or save the model with logits to use {declared}"
        )
    if own is None and end not in (LOGITS, UNKNOWN):
        raise ModelFileError(f"{where}: expected softmax, sigmoid or logits at the end, found {end}; not a classifier")
    if outputs == 1 and "softmax" in (own, declared):
        raise _softmax_of_one(where, declared)
    learnt = "sigmoid" if outputs == 1 else (trained and trained.activation) or "softmax"
    kind = own or (learnt if declared is None or declared == AS_IT_IS else declared)
    applied = kind if end == LOGITS and declared != AS_IT_IS else None
    return Output(end, kind, applied, negative=outputs == 1 and labels == 2)


def _softmax_of_one(where: str, declared: str | None) -> ConfigError | ModelFileError:
    if declared == "softmax":
        return ConfigError(
            f'{where}: a softmax over one output is always 1; write activation = "sigmoid", or leave it out'
        )
    return ModelFileError(
        f"{where}: a softmax over one output answers 1.0 whatever it sees; train it with a sigmoid, or with two outputs"
    )


def settled_output(
    expected: Output, raw: np.ndarray, declared: str | None, labels: int, where: str, trained: Trained | None = None
) -> Output:
    """The output, now that the original's values on samples are known.

    ``raw``: its values, float32 (samples, outputs). ``where``: the head and its file, for messages. ``trained``: what the
    loss says. Raises ``ConfigError`` and ``ModelFileError`` where the values are no scores, or ambiguous.
    """
    _check_values(raw, labels, where)
    single, values = raw.shape[1] == 1, _Values.of(raw)
    if expected.ends_in in _BOUNDED:
        output = _own(expected, values, single, declared, where)
    elif declared == AS_IT_IS:
        if not values.bounded:
            raise ConfigError(f"{where}: activation is none, but its values are not probabilities: {values}")
        output = replace(expected, activation="softmax" if values.add_up else "sigmoid", applied=None)
    else:
        output = _logits(expected, values, single, declared, where, trained)
    return replace(output, negative=single and labels == 2)


@dataclass(frozen=True)
class _Values:
    """``add_up``: to 1, in every sample. ``add_up_rounded``: but for the rounding to integers of a softmax in int8.

    Both are never so where there is one output.
    """

    low: float
    high: float
    add_up: bool
    add_up_rounded: bool

    @classmethod
    def of(cls, raw: np.ndarray) -> _Values:
        low, high = float(raw.min()), float(raw.max())
        wrong = np.abs(raw.sum(1, dtype=np.float64) - 1).max() if raw.shape[1] > 1 and low >= -_NEAR else np.inf
        rounded = bool(np.all(np.abs(raw - np.rint(raw / _STEP) * _STEP) < _NEAR * _STEP))
        return cls(low, high, wrong < 10 * _NEAR, rounded and wrong < 10 * _NEAR + raw.shape[1] * _STEP / 2)

    @property
    def bounded(self) -> bool:
        return self.low >= -_NEAR and self.high <= 1 + _NEAR

    def __str__(self) -> str:
        return f"they run from {self.low:.3g} to {self.high:.3g}" + (" and add up to 1" if self.add_up else "")


def _check_values(raw: np.ndarray, labels: int, where: str) -> None:
    if raw.ndim != 2:
        raise ModelFileError(
            f"{where}: expected one output (batch, labels), found {('batch', *raw.shape[1:])}; not a classifier"
        )
    if not np.isfinite(raw).all():
        raise ModelFileError(f"{where}: the original itself answers with NaN or infinity; train or save it again")
    if wrong := wrong_count(raw.shape[1], labels):
        raise ConfigError(f"{where}: {wrong}")


def wrong_count(outputs: int, labels: int) -> str:
    """The mistake in words; empty where the number of labels fits."""
    if labels == outputs or (outputs == 1 and labels == 2):
        return ""
    two = ", or two for a yes/no question, the label for no first" if outputs == 1 else ""
    return f"expected {count_of(outputs, 'labels')}, one for each output{two}; found {labels}"


def _own(expected: Output, values: _Values, single: bool, declared: str | None, where: str) -> Output:
    """The output of a graph with softmax or sigmoid, perhaps followed by other layers."""
    if single and expected.ends_in == "softmax":
        raise _softmax_of_one(where, declared)
    if not values.bounded:
        raise ModelFileError(
            f"{where}: the layers after its {expected.ends_in} do not give probabilities: {values}; save the model "
            "without them"
        )
    if values.add_up or (values.add_up_rounded and expected.ends_in == "softmax"):
        return replace(expected, activation="softmax")
    if expected.ends_in == "softmax" and declared != AS_IT_IS:
        raise ConfigError(
            f"{where}: it ends in a softmax, but its values do not add up to 1 ({values}): its axis is not that of "
            "the labels, or layers follow it; put a softmax over axis -1 last, or save the model without the layers "
            'after it, or set activation = "none" to treat each value as a separate probability'
        )
    return replace(expected, activation="sigmoid")


def _logits(
    expected: Output, values: _Values, single: bool, declared: str | None, where: str, trained: Trained | None
) -> Output:
    if single and declared == "softmax":
        raise _softmax_of_one(where, declared)
    if values.add_up:
        return replace(expected, activation="softmax", applied=None)
    if expected.ends_in == UNKNOWN and values.bounded and declared == "sigmoid":
        return replace(expected, activation="sigmoid", applied=None)
    if declared is None and trained is not None:
        declared = _learnt(trained, values, single, where)
    if declared is None and (values.bounded or expected.ends_in == UNKNOWN):
        raise ConfigError(
            f"{where}: it does not end in softmax or sigmoid, and its values may be logits or probabilities ({values}); "
            'set activation = "sigmoid" or "softmax" to turn logits into probabilities, or "none" if they are '
            "probabilities already"
        )
    kind = "sigmoid" if single else declared or expected.activation
    return replace(expected, activation=kind, applied=kind)


def _learnt(trained: Trained, values: _Values, single: bool, where: str) -> str | None:
    """The activation of logits that a loss learnt; None where the loss and the values leave it open.

    Raises ``ConfigError`` where the values are not the logits of anything.
    """
    if trained.from_logits:
        return "sigmoid" if single else trained.activation
    if trained.activation is not None and (values.bounded or (trained.activation == "softmax" and not single)):
        return None  # the largest value is the answer, whatever the loss took the values for
    what = "numbers" if trained.activation is None else "probabilities, and no sigmoid makes them"
    kinds = '"sigmoid"' if single else '"sigmoid" or "softmax"'
    raise ConfigError(
        f"{where}: its loss {trained.loss} was computed on {what} ({values}), so they are not logits; train it with a "
        f"sigmoid or a softmax, or set activation = {kinds} to treat them as logits all the same"
    )


def with_negative(graph: Graph, output: Output) -> Graph:
    """Extend a graph with one output p to the probabilities of both answers, 1 - p and p.

    A dense layer with a sigmoid of z becomes one with a softmax of -z / 2 and z / 2: the same function, with logits for
    the joint list.
    """
    end = graph.nodes[graph.output.node]
    place = graph.output.node
    if end.kind == "Activation" and output.ends_in == "sigmoid" and len(list(end.inputs())) == 1:
        place = next(end.inputs()).node
    dense = graph.nodes[place] if place != INPUT else end
    direct = place == graph.output.node and output.ends_in in ("sigmoid", LOGITS) and _is_dense(dense, _SIGMOID_OR_LINEAR)
    behind = place != graph.output.node and _is_dense(dense, _LINEAR) and _readers(graph, place) == 1
    if direct or behind:
        return _two_logits(graph, place)
    return _appended(graph, output)


_LINEAR = (None, "linear")
_SIGMOID_OR_LINEAR = (*_LINEAR, "sigmoid")


def _is_dense(node: Node, activations: Sequence[str | None]) -> bool:
    return node.kind == "Dense" and is_keras(node.definition) and node.config.get("activation") in activations


def _readers(graph: Graph, place: int) -> int:
    return sum(ref.node == place for node in graph.nodes for ref in node.inputs())


def _two_logits(graph: Graph, place: int) -> Graph:
    node, pool = graph.nodes[place], WeightPool()
    weights = tuple(pool.add(np.concatenate([-w.value / 2, w.value / 2], axis=-1)) for w in node.weights)
    definition = {**node.definition, "config": {**node.config, "units": 2, "activation": "softmax"}}
    nodes = list(graph.nodes)
    nodes[place] = replace(node, definition=definition, weights=weights)
    kept = [i for i in range(len(nodes)) if i == place or i != graph.output.node]
    return renumber(Graph(tuple(nodes), Ref(place, 0)), kept)


def _appended(graph: Graph, output: Output) -> Graph:
    nodes, last = list(graph.nodes), graph.output

    def add(kind: str, config: Mapping[str, object], read: object) -> Ref:
        definition = {"module": "keras.layers", "class_name": kind, "config": dict(config), "registered_name": None}
        nodes.append(Node(f"{kind.lower()}_of_the_answer", definition, (), (read,), {}))
        return Ref(len(nodes) - 1, 0)

    if output.applied is not None:
        last = add("Activation", {"activation": output.applied}, last)
    other = add("Rescaling", {"scale": -1.0, "offset": 1.0}, last)
    both = add("Concatenate", {"axis": -1}, [other, last])
    return Graph(tuple(nodes), both)
