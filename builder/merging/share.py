"""What each head costs beside the backbone, from its weights and shapes: bytes, and multiply-adds for one sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from builder.merging.backbone import LARGE_HEAD, SharedBackbone, reaches_into_base
from builder.reading.classifier import Classifier
from builder.reading.graph import Graph, Node, Ref
from builder.reading.shapes import Shape, tensor_shapes
from builder.reading.tflite.classifier import TfliteClassifier

_NAMED = 3  # heads in a sentence
_LOOKED_UP = ("Embedding",)  # weights that nothing is multiplied with
_BY_STEP = ("LSTM", "GRU", "SimpleRNN", "Bidirectional")  # their weights are used at every step of the input


@dataclass(frozen=True)
class HeadShare:
    """The cost of one head beside the backbone that it shares.

    ``work``, ``shared_work``: multiply-adds for one sample; None where a shape is unknown. ``in_base``: the head contains
    layers of the base, which were fine-tuned.
    """

    name: str
    parameters: int
    work: int | None
    shared_parameters: int
    shared_work: int | None
    in_base: bool

    @property
    def work_share(self) -> float | None:
        """The head's share of the multiply-adds of backbone and head, 0 to 1."""
        if self.work is None or self.shared_work is None:
            return None
        return self.work / max(self.work + self.shared_work, 1)

    @property
    def is_early(self) -> bool:
        """Whether the head contains much of the base."""
        return self.in_base and self.parameters > LARGE_HEAD * self.shared_parameters

    def cost(self, of: str) -> str:
        """The cost in words: parameters, bytes, and share of the work. ``of``: ``its`` or ``their``."""
        work = self.work_share
        said = "" if work is None else f", {percent(work)} of the multiply-adds of backbone and head"
        return (
            f"{self.parameters:,} parameters of {of} own beside {self.shared_parameters:,} shared ones, about "
            f"{_size(self.parameters)} in int8{said}"
        )


def head_shares(classifiers: Sequence[Classifier], shared: SharedBackbone) -> tuple[HeadShare, ...]:
    """The cost of each head, in the order of ``classifiers``."""
    first, seam = classifiers[0], shared.seams[0]
    backbone = shared.backbone(classifiers)
    shapes = _shapes(first, backbone, {})
    work = _work(first.graph, backbone, shapes)
    at_seam = {name: shapes.get(ref) for name, ref in seam.items()}
    found = []
    for i, classifier in enumerate(classifiers):
        nodes = shared.head(classifiers, i)
        own = _shapes(classifier, nodes, {ref: at_seam[name] for name, ref in shared.seams[i].items()})
        layers = [classifier.graph.nodes[node] for node in nodes]
        parameters, its_work = sum(layer.parameters for layer in layers), _work(classifier.graph, nodes, own)
        found.append(HeadShare(classifier.name, parameters, its_work, shared.parameters, work, reaches_into_base(layers)))
    return tuple(found)


def share_sentences(shares: Sequence[HeadShare]) -> list[str]:
    """One sentence for all heads of the same cost: what they cost, and what to do about it."""
    alike: dict[tuple[str, bool], list[HeadShare]] = {}
    for share in shares:
        alike.setdefault((share.cost("its"), share.is_early), []).append(share)
    return [f"{_who(found)}; {_advice(found[0])}" for found in alike.values()]


def percent(share: float) -> str:
    """As text, with at most two significant digits."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _who(found: Sequence[HeadShare]) -> str:
    names = [share.name for share in found]
    if len(names) == 1:
        return f"{names[0]} has {found[0].cost('its')}"
    named = " and ".join(names) if len(names) == 2 else ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if names[_NAMED:] else ""
    return f"{named}{more} each have {found[0].cost('their')}"


def _advice(share: HeadShare) -> str:
    if not share.is_early:
        return "nothing needs to be done: this is all that follows the base"
    return (
        "they are stored and computed for each head; to share the whole base, train the classifiers with "
        "base.trainable = False, or run only the heads that a picture needs (schedule, --head)"
    )


def _size(parameters: int) -> str:
    """The size of int8 parameters, one byte each."""
    return f"{parameters / 1e6:.1f} MB" if parameters >= 1e5 else f"{max(parameters / 1e3, 0.1):.1f} kB"


def _shapes(
    classifier: Classifier, nodes: Iterable[int], given: Mapping[Ref, Shape | None]
) -> Mapping[Ref, Shape | None]:
    if isinstance(classifier, TfliteClassifier):
        return {Ref(i, 0): classifier.graph.nodes[i].config["outputs"][0] for i in range(len(classifier.graph.nodes))}
    return tensor_shapes(classifier.graph, classifier.source_input.shape, nodes, given)


def _work(graph: Graph, nodes: Iterable[int], shapes: Mapping[Ref, Shape | None]) -> int | None:
    found = [_multiply_adds(graph.nodes[i], Ref(i, 0), shapes) for i in nodes]
    return None if None in found else sum(filter(None, found))


def _multiply_adds(node: Node, made: Ref, shapes: Mapping[Ref, Shape | None]) -> int | None:
    """Each weight of a kernel is used once at each position of the output."""
    kernels = sum(w.value.size for w in node.weights if w.value.ndim > 1)
    if not kernels or node.kind in _LOOKED_UP:
        return 0
    shape = shapes.get(next(node.inputs()) if node.kind in _BY_STEP else made)
    return None if shape is None else kernels * math.prod(n or 1 for n in shape[1:-1])
