"""Writing a part reads it and no more: threads run operators of one part at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from builder.tflite.flatbuffer import Part, activation_code, plain_tensor, read_parts
from builder.tflite.parts import names
from builder.tflite.stepper import run_operator
from builder.tflite.writer import write_parts


def dense() -> Part:
    """Two layers with weights, so that every index in the smaller file is another than here."""
    shapes = {"image": [1, 4], "w0": [3, 4], "b0": [3], "x": [1, 3], "w1": [2, 3], "b1": [2], "features": [1, 2]}
    tensors = [plain_tensor(name, shape, np.float32) for name, shape in shapes.items()]
    part = Part("backbone", 0, tensors, [], {"image": 0}, {"features": 6}, [], [None])
    rng = np.random.default_rng(0)
    for i in (1, 2, 4, 5):
        part.set_constant(i, rng.normal(size=tensors[i].shape).astype(np.float32))
    part.operators.append(part.operator("FULLY_CONNECTED", [0, 1, 2], [3], ("FullyConnectedOptions", {})))
    part.operators.append(part.operator("RELU", [3], [3], None))
    options = ("FullyConnectedOptions", {"fusedActivationFunction": activation_code("RELU")})
    part.operators.append(part.operator("FULLY_CONNECTED", [3, 4, 5], [6], options))
    return part


def sealed(table: Any) -> Any:
    """``table``, which from now on raises where an attribute is set; copies of it do not."""

    def refuse(which: Any, name: str, value: Any) -> None:
        assert which is not table, f"{name} was set to {value}"
        object.__setattr__(which, name, value)

    table.__class__ = type("Sealed", (type(table),), {"__setattr__": refuse})
    return table


def test_a_part_is_not_even_changed_for_a_moment() -> None:
    part, images = dense(), np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    written, answers = write_parts({"backbone": part}), run_operator(part, part.operators[2], [images[:, :3]], [3])
    for table in (*part.tensors, *part.operators, *part.codes):
        sealed(table)
    with pytest.raises(AssertionError, match="buffer was set"):
        part.tensors[1].buffer = 0
    assert write_parts({"backbone": part}) == written
    np.testing.assert_array_equal(run_operator(part, part.operators[2], [images[:, :3]], [3])[0], answers[0])
    assert list(names(read_parts(written)["backbone"])) == list(names(part))
