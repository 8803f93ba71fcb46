"""Residual sums that round nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.sums import exact_sums
from builder.tflite.flatbuffer import (
    Part,
    activation_code,
    operator_name,
    plain_tensor,
    quantization,
    read_parts,
    tensor_name,
)
from builder.tflite.parts import Range, dequantized
from builder.tflite.stepper import Stepper
from edge_runtime.metadata import BACKBONE
from tests.test_equalize import IMAGES, float_model_of
from tests.tiny_models import seed_weights


def residual(block: float) -> Part:
    """The int8 backbone of one residual block whose convolution has weights of the size ``block``."""
    image = keras.Input((16, 16, 3))
    skip = layers.Conv2D(12, 1, name="first")(image)
    x = layers.Conv2D(12, 3, padding="same", activation="relu6")(skip)
    x = layers.Conv2D(12, 1, name="project")(x)
    x = layers.Conv2D(6, 1)(layers.Add()([x, skip]))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    seed_weights(model, 3)
    kernel, bias = model.get_layer("project").get_weights()
    model.get_layer("project").set_weights([block * kernel, block * bias])
    floating = float_model_of(model)
    return read_parts(quantize(floating, measure_ranges(floating, IMAGES, ["scores"], estimate="mse")))[BACKBONE]


@pytest.mark.parametrize(("block", "exact"), [(0.05, False), (0.3, True), (1.0, True), (8.0, False)])
def test_the_sum_on_the_device_is_that_of_its_terms(*, block: float, exact: bool) -> None:
    part = residual(block)
    (add,) = (op for op in part.operators if operator_name(part, op) == "ADD")
    tensors = (*add.inputs, *add.outputs)
    scales = [quantization(part.tensors[i]).scale for i in tensors]
    assert (max(scales) == pytest.approx(min(scales), rel=1e-6)) == exact
    (image,) = part.inputs.values()
    stepper = Stepper(part, {image: quantization(part.tensors[image]).quantize(IMAGES)})
    x, y, z = (dequantized(part, i, stepper.until(i).copy()) for i in tensors)
    inside = (z > z.min()) & (z < z.max())
    assert inside.mean() > 0.9
    assert bool(np.abs(z - x - y)[inside].max() < 1e-3 * max(scales)) == exact


def chain(count: int, activation: str = "NONE") -> Part:
    """Sums in a row: each adds a convolution of the sum before it. The tensors are image, x0, y1, x1, y2, x2, ..."""
    names = ["image", "x0", *(f"{kind}{i}" for i in range(1, count + 1) for kind in "yx")]
    tensors = [plain_tensor(name, [1, 4, 4, 2], np.float32) for name in names]
    part = Part(BACKBONE, 0, tensors, [], {"image": 0}, {"features": len(names) - 1}, [], [None])
    part.operators.append(part.operator("CONV_2D", [0], [1], ("Conv2DOptions", {})))
    for i in range(1, 2 * count, 2):
        part.operators.append(part.operator("CONV_2D", [i], [i + 1], ("Conv2DOptions", {})))
        adding = ("AddOptions", {"fusedActivationFunction": activation_code(activation)})
        part.operators.append(part.operator("ADD", [i, i + 1], [i + 2], adding))
    return part


def step(limits: Range) -> float:
    return limits[1] - limits[0]


def exact(ranges: dict[str, Range], count: int) -> list[bool]:
    """Which sums of ``chain`` round nothing."""
    triples = [(f"x{i - 1}", f"y{i}", f"x{i}") for i in range(1, count + 1)]
    return [np.ptp([step(ranges[name]) for name in names]) < 1e-9 for names in triples]


def noise(ranges: dict[str, Range], count: int) -> float:
    """The sum of squared steps of what is rounded."""
    free = {f"x{i}" for i, found in enumerate(exact(ranges, count), 1) if found}
    return sum(step(limits) ** 2 for name, limits in ranges.items() if name not in free)


def test_sums_lose_no_more_than_before_and_no_range_is_narrower() -> None:
    rng, found = np.random.default_rng(1), 0
    for _ in range(300):
        count = int(rng.integers(1, 5))
        part = chain(count)
        names = [tensor_name(tensor) for tensor in part.tensors]
        ends = rng.uniform(0.3, 1.0, (len(names), 2)) * rng.choice([1, 1, 0], (len(names), 2))
        before: dict[str, Range] = {
            n: (-float(low), float(high) + 1e-3) for n, (low, high) in zip(names, ends, strict=True)
        }
        after = exact_sums(part, before)
        assert list(after) == list(before)
        assert all(after[n][0] <= before[n][0] <= 0 <= before[n][1] <= after[n][1] for n in names)
        assert all(before[n][0] < 0 or after[n][0] == 0 for n in names)  # what is never negative stays so
        assert after["image"] == before["image"]
        assert noise(after, count) <= noise(before, count) + 1e-9
        if count == 1:
            squares = [step(before[name]) ** 2 for name in ("x0", "y1", "x1")]
            assert exact(after, 1) == [sum(squares) > 2 * max(squares)]
        found += sum(exact(after, count))
    assert found > 100


def test_the_sum_that_gains_most_comes_first() -> None:
    ranges = {"image": (0.0, 1.0), "x0": (-1.2, 1.2), "y1": (-1.1, 1.1), "x1": (-1.0, 1.1)}
    ranges |= {"y2": (-1.1, 1.1), "x2": (-1.1, 1.1)}
    assert exact(exact_sums(chain(2), ranges), 2) == [False, True]


@pytest.mark.parametrize("other", ["activation", "term", "input", "integers"])
def test_only_a_sum_of_two_tensors_of_any_range_is_made_exact(other: str) -> None:
    part = chain(1, "RELU6" if other == "activation" else "NONE")
    ranges = {**dict.fromkeys(("image", "x0", "y1"), (-1.0, 1.0)), "x1": (-1.0, 1.1)}
    if other == "term":  # its scale is 1/256, whatever its range is
        part.operators[1] = part.operator("LOGISTIC", [1], [2], None)
    elif other == "input":
        part.operators = part.operators[1:]
        part.inputs["image"] = 1
    elif other == "integers":
        del ranges["y1"]
    assert exact_sums(part, ranges) == ranges
    assert exact_sums(chain(1), {"y1": (-1.0, 1.0), **ranges}) != ranges
