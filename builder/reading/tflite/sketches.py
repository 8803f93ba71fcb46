"""A constant in a few numbers, by which it is known again after another converter rounded it.

Converters fold BatchNormalization in different orders of operations, so every weight may differ by a few units of its
last place. A digest does not allow for that, and a finished file does not keep its float weights. It keeps the sums of
``SPAN`` weights each, with random signs: one changed weight moves its sum by as much as itself, while rounding errors
nearly cancel.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from builder.reading.content import digest
from builder.reading.graph import Graph, Node, Weight
from edge_runtime.checked import field_of, positive
from edge_runtime.errors import BundleError

SPAN = 2048
STEP = 2.0**-22  # of the largest weight: how finely sums are kept
# Of the largest weight. The sums of three public Teachable Machine files, of two converters, and of a conversion of the
# Keras model differ by up to 2.7e-6; a weight that moved by 1e-5 moves its sum by that.
TOLERANCE = 5e-6
_SMALLEST = 1e-30  # instead of the largest weight where all are 0


@dataclass(frozen=True)
class Sketch:
    """``largest``: magnitude of a weight. ``sums``: see ``signed_sums``, as multiples of ``STEP`` times ``largest``."""

    shape: tuple[int, ...]
    largest: float
    sums: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        """A digest that stands for the constant's own."""
        return digest("constant", self.shape, self.largest, self.sums)

    def distance(self, largest: float, sums: np.ndarray) -> float:
        """How far another constant of this shape is, relative to the largest weight; see ``signed_sums``."""
        scale = max(self.largest, _SMALLEST)
        apart = np.abs(sums / scale - np.asarray(self.sums, np.float64) * STEP)
        return max(float(apart.max(initial=0)), abs(largest - self.largest) / scale)

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "largest": self.largest, "sums": list(self.sums)}

    @classmethod
    def from_json(cls, document: Any) -> Sketch:
        """Read what ``to_json`` wrote. Raises ``BundleError``."""
        shape = tuple(positive(n, "an axis of a constant") for n in field_of(document, "shape", list))
        largest, sums = field_of(document, "largest", float), field_of(document, "sums", list)
        count = -(-math.prod(shape) // SPAN)
        if not 0 <= largest < math.inf or len(sums) != count or any(type(n) is not int or abs(n) >> 53 for n in sums):
            raise BundleError(f"expected a constant {list(shape)} as its largest value and {count} sums, found others")
        return cls(shape, largest, tuple(sums))


def sketch_of(value: np.ndarray) -> Sketch:
    """``value``: finite floats."""
    largest = _largest(value)
    sums = np.rint(signed_sums(value) / (max(largest, _SMALLEST) * STEP))
    return Sketch(value.shape, largest, tuple(map(int, sums)))


def signed_sums(value: np.ndarray) -> np.ndarray:
    """Sums of ``SPAN`` weights each, in the order of memory, with signs that are always the same; float64."""
    flat = np.ravel(value).astype(np.float64)
    bits = np.frombuffer(hashlib.shake_128(b"signs of constants").digest(-(-flat.size // 8)), np.uint8)
    flat[np.unpackbits(bits)[: flat.size] == 1] *= -1
    return np.add.reduceat(flat, np.arange(0, flat.size, SPAN)) if flat.size else flat


@dataclass(frozen=True)
class SeamOperators:
    """What a ``.tflite`` head is compared with.

    ``seam``: by the name of each tensor between backbone and heads, the digest of the operators that make it, with the
    name of a sketch in the place of each constant's digest. ``constants``: those sketches.
    """

    seam: Mapping[str, str]
    constants: tuple[Sketch, ...]

    def named(self, graph: Graph) -> Graph:
        """The graph with the name of the nearest sketch for each constant that is one of these within ``TOLERANCE``."""
        by_shape: dict[tuple[int, ...], list[Sketch]] = {}
        for sketch in self.constants:
            by_shape.setdefault(sketch.shape, []).append(sketch)

        def name_of(weight: Weight) -> str:
            known = by_shape.get(weight.value.shape, [])
            largest, sums = _largest(weight.value), signed_sums(weight.value) if known else np.zeros(0)
            apart = [sketch.distance(largest, sums) for sketch in known]
            nearest = min(range(len(known)), key=apart.__getitem__, default=None)
            return weight.digest if nearest is None or not apart[nearest] <= TOLERANCE else known[nearest].name

        return with_names(graph, name_of)

    def to_json(self) -> dict[str, Any]:
        return {"seam": dict(self.seam), "constants": [sketch.to_json() for sketch in self.constants]}

    @classmethod
    def from_json(cls, document: Any) -> SeamOperators:
        """Read what ``to_json`` wrote. Raises ``BundleError``."""
        seam = field_of(document, "seam", dict)
        found = {name: field_of(seam, name, str) for name in seam}
        return cls(found, tuple(map(Sketch.from_json, field_of(document, "constants", list))))


def with_names(graph: Graph, name_of: Callable[[Weight], str]) -> Graph:
    """The graph with other digests of its constants."""

    def renamed(node: Node) -> Node:
        return replace(node, weights=tuple(replace(weight, digest=name_of(weight)) for weight in node.weights))

    return replace(graph, nodes=tuple(map(renamed, graph.nodes)))


def sketched(graph: Graph, nodes: Sequence[int]) -> tuple[Graph, tuple[Sketch, ...]]:
    """The graph with the names of sketches for all its constants, and the sketches of those that ``nodes`` read."""
    made: dict[int, Sketch] = {}

    def name_of(weight: Weight) -> str:
        return made.setdefault(id(weight), sketch_of(weight.value)).name

    named = with_names(graph, name_of)
    own = [made[id(weight)] for i in nodes for weight in graph.nodes[i].weights]
    return named, tuple({sketch.name: sketch for sketch in own}.values())


def _largest(value: np.ndarray) -> float:
    return float(np.max(np.abs(value), initial=0))
