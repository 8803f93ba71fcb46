"""Ranges of activations: which values are clipped, and where none are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing import rounding
from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges, mse_range, percentile_range
from builder.quantizing.response import responses
from builder.tflite.flatbuffer import Part, operator_name, plain_tensor, read_parts
from builder.tflite.parts import Range
from tests.test_equalize import IMAGES, float_model_of
from tests.tiny_models import seed_weights

RNG = np.random.default_rng(6)


def error(values: np.ndarray, limits: Range) -> float:
    """The mean squared error with 256 steps."""
    step = (limits[1] - limits[0]) / 255
    zero = np.rint(-limits[0] / step)
    return float(np.mean(((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step - values) ** 2))


def test_least_error_is_less_than_that_of_the_least_and_the_greatest() -> None:
    values = np.append(RNG.normal(size=200_000), [-14.0, 12.0])
    found = mse_range(values, (-14.0, 12.0))
    assert -14 < found[0] < 0 < found[1] < 12
    assert error(values, found) < 0.7 * error(values, (-14.0, 12.0))


def test_what_nothing_sticks_out_of_is_left_whole() -> None:
    values = RNG.uniform(-1, 1, 20_000)
    assert mse_range(values, (-1.0, 1.0)) == (-1.0, 1.0)
    assert mse_range(np.abs(values), (0.0, 1.0)) == (0.0, 1.0)


@pytest.mark.parametrize("limits", [(3.0, 5.0), (-5.0, -3.0), (-1.0, 4.0), (0.0, 2.0), (2.0, 2.0)])
def test_zero_is_in_every_range(limits: Range) -> None:
    """Padding is 0, which must be a value of the scale."""
    low, high = mse_range(np.linspace(*limits, 200), limits)
    assert low <= 0 <= high


def test_a_percentile_leaves_out_its_share() -> None:
    low, high = percentile_range(np.linspace(0, 1, 100_001))
    assert (low, high) == pytest.approx((1e-4, 1 - 1e-4))


def test_far_below_a_swish_values_need_not_be_told_apart() -> None:
    """A squeeze-and-excite block as in EfficientNet, beside a layer with the same values and no activation."""
    image = keras.Input((16, 16, 3))
    bent, plain = (layers.Conv2D(12, 3, padding="same") for _ in range(2))
    z = layers.Activation("swish")(bent(image))
    gate = layers.Conv2D(12, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(z))
    z = layers.Concatenate()([layers.Multiply()([z, gate]), plain(image)])
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1)(z)))
    seed_weights(model, 4)
    kernel, bias = bent.get_weights()
    bent.set_weights([8 * kernel, bias])
    plain.set_weights([8 * kernel[..., ::-1], bias[::-1]])  # were they the same, they would become one layer
    float_model = float_model_of(model)
    part = read_parts(float_model)["backbone"]
    readers = {i: operator_name(part, op) for op in reversed(part.operators) for i in op.inputs}
    swish, linear = (
        next(part.tensors[i].name.decode() for i, reader in readers.items() if reader == kind and i in convolved(part))
        for kind in ("LOGISTIC", "CONCATENATION")
    )
    found, whole = (measure_ranges(float_model, IMAGES, ["scores"], estimate=e) for e in ("mse", "minmax"))
    assert whole[swish] == pytest.approx(whole[linear], rel=1e-3)
    assert found[swish][0] > 0.5 * whole[swish][0]
    assert found[linear][0] < 0.6 * whole[linear][0]


@pytest.mark.parametrize("beside", [False, True])
def test_what_only_a_hard_swish_reads_is_known(*, beside: bool) -> None:
    part = Part("backbone", 0, [plain_tensor(str(i), [1, 4], np.float32) for i in range(3)], [], {}, {}, [], [None])
    part.operators.append(part.operator("HARD_SWISH", [0], [1], None))
    if beside:
        part.operators.append(part.operator("LOGISTIC", [0], [2], None))
    found = responses(part)
    assert set(found) == (set() if beside else {"0"})
    for response in found.values():
        np.testing.assert_allclose(response.function(np.array([-9.0, -3, -1.5, 0, 3, 9])), [0, 0, -0.375, 0, 3, 9])


def convolved(part: Part) -> set[int]:
    """The outputs of convolutions of the picture."""
    (picture,) = part.inputs.values()
    return {op.outputs[0] for op in part.operators if op.inputs[0] == picture}


def test_the_seam_keeps_its_whole_range() -> None:
    image = keras.Input((16, 16, 3))
    features = layers.Conv2D(40, 3, padding="same")(image)
    model = keras.Model(image, layers.Flatten()(features))
    seed_weights(model, 2)
    float_model = float_model_of(model)
    backbone = read_parts(float_model)["backbone"]
    (seam,) = (backbone.tensors[i].name.decode() for i in backbone.outputs.values())
    images = IMAGES.copy()
    images[0, 5, 5] = 60.0  # rare
    found, whole = (measure_ranges(float_model, images, ["scores"], estimate=e) for e in ("percentile", "minmax"))
    assert found[seam] == whole[seam]
    assert any(found[name] != whole[name] for name in found)


def test_only_in_front_of_a_swish_learnt_rounding_looks_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, activation="swish")(image)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, activation="sigmoid")(x)))
    seed_weights(model, 5)
    float_model = float_model_of(model)
    parts, seen = read_parts(quantize(float_model, measure_ranges(float_model, IMAGES, ["scores"]), "int8")), []
    learn = rounding.learn_layer

    def watched(*given: Any, **options: Any) -> Any:
        response = options["response"]
        seen.append(None if response is None else round(float(response.function(np.array(-1.0))), 3))
        return learn(*given, **options)

    monkeypatch.setattr(rounding, "learn_layer", watched)
    rounding.round_parts(read_parts(float_model), {"backbone": parts["backbone"]}, IMAGES)
    assert seen == [-0.269, None, 0.269]  # of a swish, none, of a sigmoid
