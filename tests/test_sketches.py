"""Constants are known again within the rounding of a converter, and no changed weight is missed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from builder.reading.graph import Graph, Ref, WeightPool
from builder.reading.tflite.digests import operator_digests
from builder.reading.tflite.operators import Held, operator_node
from builder.reading.tflite.sketches import SPAN, TOLERANCE, SeamOperators, Sketch, signed_sums, sketch_of, sketched
from edge_runtime.errors import BundleError

SHAPES = [(1,), (7,), (3, 3, 3, 16), (1, 3, 3, 64), (320, 1, 1, 96), (SPAN,), (SPAN + 1,), (5, SPAN)]
NEAR_MISS = 1e-5  # of the largest weight


def constant(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def folded(value: np.ndarray, seed: int = 1) -> np.ndarray:
    """Move each weight by up to three units in its last place, and the first weight by one unit of the largest."""
    random = np.random.default_rng(seed)
    moved = value * (1 + random.uniform(-1.8e-7, 1.8e-7, value.shape)).astype(np.float64)
    moved.reshape(-1)[0] += 1.2e-7 * np.abs(value).max()
    return moved.astype(np.float32)


def near(sketch: Sketch, value: np.ndarray) -> bool:
    return sketch.distance(float(np.abs(value).max()), signed_sums(value)) <= TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_what_a_converter_rounds_is_the_same(shape: tuple[int, ...], seed: int) -> None:
    value = constant(shape, seed)
    assert near(sketch_of(value), value)
    assert near(sketch_of(value), folded(value, seed + 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_changed_weight_is_seen(shape: tuple[int, ...]) -> None:
    """The change may be anywhere and in either direction, also with the rounding of another converter."""
    value = constant(shape)
    sketch, largest = sketch_of(value), np.abs(value).max()
    random = np.random.default_rng(2)
    for place in {0, value.size - 1, *random.integers(0, value.size, 40).tolist()}:
        for other in (value, folded(value)):
            for share in (NEAR_MISS, -NEAR_MISS):
                moved = other.astype(np.float64)
                moved.reshape(-1)[place] += share * largest
                assert not near(sketch, moved)


@pytest.mark.parametrize("seed", range(20))
def test_weights_that_were_trained_on_are_seen(seed: int) -> None:
    """All weights change by less than a single one may."""
    value, random = constant((64, 3, 3, 64), seed), np.random.default_rng(seed + 100)
    assert not near(sketch_of(value), value + random.normal(0, 1e-6, value.shape) * np.abs(value).max())


def test_zeros_are_zeros_alone() -> None:
    zeros = np.zeros(16, np.float32)
    assert near(sketch_of(zeros), zeros)
    assert not near(sketch_of(zeros), np.full(16, 1e-12, np.float32))
    assert not near(sketch_of(constant((16,))), zeros)
    assert not near(sketch_of(constant((16,))), np.full(16, np.nan, np.float32))


def network(values: list[np.ndarray]) -> Graph:
    """Dense layers in a row, of equal shapes."""
    pool, nodes = WeightPool(), []
    for i, value in enumerate(values):
        weights = [pool.add(value), pool.add(np.zeros(len(value), np.float32))]
        shape = (1, value.shape[1])
        node = operator_node(
            f"dense_{i}", "FULLY_CONNECTED", [Ref(i - 1, 0), Held(0), Held(1)], weights, shapes=[shape, None, None],
            outputs=[(1, len(value))],
        )  # fmt: skip
        nodes.append(node)
    return Graph(tuple(nodes), Ref(len(nodes) - 1, 0))


def known(graph: Graph) -> SeamOperators:
    named, constants = sketched(graph, range(len(graph.nodes)))
    told = SeamOperators({"features": operator_digests(named, "pixels")[-1]}, constants)
    return SeamOperators.from_json(json.loads(json.dumps(told.to_json())))


def fits(told: SeamOperators, graph: Graph) -> bool:
    return told.seam["features"] in operator_digests(told.named(graph), "pixels")


def test_a_network_is_known_again_by_its_constants_and_how_they_are_wired() -> None:
    values = [constant((32, 32), seed) for seed in range(4)]
    told = known(network(values))
    assert fits(told, network(values))
    assert fits(told, network([folded(value) for value in values]))
    assert not fits(told, network([values[1], values[0], *values[2:]]))
    assert not fits(told, network([values[0], *values[:3]]))
    assert not fits(told, network([value.T for value in values]))
    for i in range(len(values)):
        moved = [value.copy() for value in values]
        moved[i][3, 5] += NEAR_MISS * np.abs(values[i]).max()
        assert not fits(told, network(moved))


def test_the_sketches_of_a_base_are_small() -> None:
    """About one number for ``SPAN`` weights."""
    told = known(network([constant((256, 256), seed) for seed in range(3)]))
    assert len(json.dumps(told.to_json())) < 256 * 256 * 3 / 100


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None}, {"shape": [0]}, {"shape": ["3"]}, {"shape": [1 << 30]}, {"shape": [SPAN + 1]}, {"largest": "1"},
        {"largest": float("nan")}, {"largest": -1.0}, {"largest": float("inf")}, {"sums": None}, {"sums": []},
        {"sums": [1.5]}, {"sums": [True]}, {"sums": [1 << 60]}, {"sums": [0, 0]},
    ],
)  # fmt: skip
def test_a_damaged_sketch_is_refused(change: dict[str, Any]) -> None:
    document = {**sketch_of(constant((7,))).to_json(), **change}
    with pytest.raises(BundleError, match="expected"):
        SeamOperators.from_json({"seam": {"features": "0"}, "constants": [document]})


@pytest.mark.parametrize("document", [None, [], {}, {"seam": {"features": 1}, "constants": []}, {"seam": {}}])
def test_damaged_operators_are_refused(document: Any) -> None:
    with pytest.raises(BundleError, match="expected"):
        SeamOperators.from_json(document)
