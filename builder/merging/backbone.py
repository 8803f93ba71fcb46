"""Find what the classifiers share: every tensor that has the same digest in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.merging.difference import Difference, first_difference
from builder.reading.classifier import Classifier
from builder.reading.content import digest
from builder.reading.graph import INPUT, Graph, Node, Ref, upstream
from builder.reading.simplify import is_linear
from builder.support.errors import NoSharedBackboneError
from edge_runtime.metadata import FEATURES

LARGE_HEAD = 0.2  # of the backbone's parameters
_OF_BASES = ("conv", "lstm", "gru", "rnn", "bidirectional", "attention", "embedding")  # parts of layer kinds
_PIXELS = "pixels"  # stands among the digests of a seam for the model's input


@dataclass(frozen=True)
class SharedBackbone:
    """Where to cut: the tensors between backbone and heads (the seam), and how many parameters lie before them.

    The deepest tensor is called ``features``, further ones ``features_2``, ``features_3``, from the deepest up.

    Attributes:
        digests: Digest of each tensor of the seam, by its name.
        parameters: Number of parameters of the backbone.
        seams: For each classifier, its own tensor for every name of the seam, also for names that its head does not read.
    """

    digests: Mapping[str, str]
    parameters: int
    seams: tuple[Mapping[str, Ref], ...]

    @property
    def digest(self) -> str:
        """One digest for the whole seam."""
        found = list(self.digests.values())
        return found[0] if len(found) == 1 else digest(*found)

    def head(self, classifiers: Sequence[Classifier], index: int) -> list[int]:
        """The nodes of one classifier that are its own."""
        return upstream(classifiers[index].graph, [classifiers[index].graph.output], self.seams[index].values())

    def backbone(self, classifiers: Sequence[Classifier], index: int = 0) -> list[int]:
        """The nodes of one classifier that are shared."""
        return upstream(classifiers[index].graph, self.seams[index].values())


def early_difference(classifiers: Sequence[Classifier], shared: SharedBackbone) -> tuple[int, int, Difference] | None:
    """The first classifier whose head is large and contains layers of the base: (index, parameters, why)."""
    for i, classifier in list(enumerate(classifiers))[1:]:
        nodes = [classifier.graph.nodes[node] for node in shared.head(classifiers, i)]
        own = sum(node.parameters for node in nodes)
        early = own > LARGE_HEAD * shared.parameters and reaches_into_base(nodes)
        difference = first_difference(classifiers[0], classifier) if early else None
        if difference is not None:
            return i, own, difference
    return None


def reaches_into_base(head: Iterable[Node]) -> bool:
    """Whether a head contains layers of a base: convolution, recurrent, attention, embedding; a dense layer is none."""
    return any(node.weights and any(word in node.kind.lower() for word in _OF_BASES) for node in head)


def find_backbone(classifiers: Sequence[Classifier]) -> SharedBackbone:
    """Find everything, from the input on, that all classifiers compute alike.

    The last layer with weights, and what follows it, always belongs to the head, so that a single classifier has a head
    too.

    Raises:
        NoSharedBackboneError: They share no layer with weights.
    """
    common = set.intersection(*(set(c.digests[: c.graph.head_start]) for c in classifiers))
    for classifier in classifiers:
        common -= _torn_apart(classifier.graph, classifier.digests, common)
    needed = set[str]().union(*(_seam(c.graph, c.digests, common) for c in classifiers))
    places = [{found: Ref(i, 0) for i, found in enumerate(c.digests)} for c in classifiers]
    order = [] if _PIXELS in needed else sorted(needed, key=lambda found: -places[0][found].node)
    digests = {(f"{FEATURES}_{i + 1}" if i else FEATURES): found for i, found in enumerate(order)}
    seams = tuple({name: place[found] for name, found in digests.items()} for place in places)
    shared = SharedBackbone(digests, 0, seams)
    parameters = sum(classifiers[0].graph.nodes[i].parameters for i in shared.backbone(classifiers))
    if parameters == 0:
        raise NoSharedBackboneError(_explain(classifiers))
    return replace(shared, parameters=parameters)


def _torn_apart(graph: Graph, digests: Sequence[str], common: set[str]) -> set[str]:
    """Convolutions whose BatchNormalization is not shared. The two are kept together: the file stores them as one
    operation, and between them each channel would need its own range.
    """
    torn = set[str]()
    for node, found in zip(graph.nodes, digests, strict=True):
        if node.kind.endswith("BatchNormalization") and found not in common:
            torn.update(digests[ref.node] for ref in node.inputs() if ref.node != INPUT and _is_linear(graph, ref))
    return torn


def _is_linear(graph: Graph, ref: Ref) -> bool:
    node = graph.nodes[ref.node]
    return "Conv" in node.kind and is_linear(node)


def _seam(graph: Graph, digests: Sequence[str], common: set[str]) -> set[str]:
    """The shared tensors at which a walk back from the output ends; the input itself stands as ``_PIXELS``."""
    stack, seen, found = [graph.output], set[Ref](), set[str]()
    while stack:
        ref = stack.pop()
        if ref in seen:
            continue
        seen.add(ref)
        if ref.node == INPUT:
            found.add(_PIXELS)
        elif ref.output == 0 and digests[ref.node] in common:
            found.add(digests[ref.node])
        else:
            stack.extend(graph.nodes[ref.node].inputs())
    return found


def _explain(classifiers: Sequence[Classifier]) -> str:
    first = classifiers[0]
    for other in classifiers[1:]:
        difference = first_difference(first, other)
        if difference is not None:
            return f"{first.name} and {other.name} share no backbone; the first layer that differs is {difference}"
    return f"{first.name}: no layer with weights before the last one, so there is no backbone to share"
