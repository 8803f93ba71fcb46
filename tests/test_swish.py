"""Channels are scaled across swish where most use few steps; the float answers stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing.channels import groups
from builder.quantizing.equalize import equalizable, equalized
from builder.quantizing.noise import snr_db
from builder.quantizing.prepare import prepared
from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges, mse_range
from builder.quantizing.response import responses
from builder.quantizing.rounding import round_parts
from builder.quantizing.sensitivity import answers
from builder.quantizing.swish import LEAST, bits_of, swish_equalized
from builder.tflite.flatbuffer import INT8, NO_TENSOR, Part, operator_name, plain_tensor, read_parts, tensor_name
from builder.tflite.parts import constant, dequantized
from tests.test_equalize import IMAGES, features, float_model_of, snr
from tests.tiny_models import seed_weights

CHANNELS = 16
POWERS = 2.0 ** -np.tile([0, 3, 4, 5], CHANNELS // 4)  # three of four channels use few steps


def gated(x: Any, channels: int) -> Any:
    """Squeeze and excite."""
    gate = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="swish")(gate)
    return layers.Multiply()([x, layers.Conv2D(channels, 1, activation="sigmoid")(gate)])


def inverted(
    scale: np.ndarray | None = None, *, end: Callable[[Any], Any] | None = None, far: float | None = None
) -> bytes:
    """A block as EfficientNet has it, with a stride, behind padding. ``scale``: of the channels of both swishes; the
    layers that read them undo it, as far as that is possible across swish. ``end``: what else reads the first one.
    ``far``: the bias of one channel of the first layer.
    """
    image = keras.Input((16, 16, 3))
    x = first = layers.Conv2D(CHANNELS, 1, name="expand")(image)
    x = y = layers.Activation("swish")(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.DepthwiseConv2D(3, 2, name="depthwise")(x)
    x = gated(layers.Activation("swish")(x), CHANNELS)
    x = layers.Conv2D(8, 1, name="project")(x)
    outputs = [layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, activation="relu")(x))]
    if end is not None:
        outputs.append(layers.GlobalAveragePooling2D()(end((first, y))))
    model = keras.Model(image, layers.Concatenate()(outputs) if end is not None else outputs[0])
    seed_weights(model, 4)
    if far is not None:
        kernel, bias = model.get_layer("expand").get_weights()
        model.get_layer("expand").set_weights([kernel, np.append(bias[1:], far).astype(np.float32)])
    if scale is not None:
        for name, after in (("expand", "depthwise"), ("depthwise", "project")):
            kernel, bias = model.get_layer(name).get_weights()
            wide = scale[:, None] if name == "depthwise" else scale
            model.get_layer(name).set_weights([8 * kernel * wide, 8 * bias * scale])
            kernel, bias = model.get_layer(after).get_weights()
            model.get_layer(after).set_weights([kernel / scale[:, None] / 8, bias])
    return float_model_of(model)


def kinds(model: bytes) -> list[str]:
    backbone = read_parts(model)["backbone"]
    return [operator_name(backbone, op) for op in backbone.operators]


@pytest.fixture(scope="module")
def uneven() -> bytes:
    return inverted(POWERS)


def test_float_answers_stay_what_they_were_and_each_swish_costs_a_product(uneven: bytes) -> None:
    found = swish_equalized(uneven, IMAGES)
    np.testing.assert_allclose(features(found), features(uneven), atol=1e-6)
    before, after = kinds(uneven), kinds(found)
    assert [kind for kind in after if kind != "MUL"] == [kind for kind in before if kind != "MUL"]
    assert after.count("MUL") == before.count("MUL") + 2
    assert swish_equalized(uneven, IMAGES) == found


@pytest.mark.parametrize("rounding", ["nearest", "learnt"])
def test_int8_gains_where_most_channels_used_few_steps(uneven: bytes, rounding: str) -> None:
    truth, found = features(uneven), []
    for model in (uneven, swish_equalized(uneven, IMAGES)):
        parts = read_parts(quantize(model, measure_ranges(model, IMAGES, ["scores"], estimate="mse")))
        if rounding == "learnt":
            round_parts(read_parts(model), parts, IMAGES)
        found.append(snr_db(truth, answers(parts["backbone"], {"scores": parts["scores"]}, IMAGES)["scores"]))
    assert found[1] > found[0] + 4, found


def test_only_integer_activations_get_the_products(uneven: bytes) -> None:
    found = prepared(uneven, IMAGES, (-1.0, 1.0))
    assert kinds(found.integer).count("MUL") == kinds(found.floating).count("MUL") + 2
    assert all(found.of(p) is found.integer for p in ("int8", "int16"))
    assert all(found.of(p) is found.floating for p in ("dynamic", "weights", "float16", "float"))


def test_int8_holds_the_ratios_of_the_scales(uneven: bytes) -> None:
    model = swish_equalized(uneven, IMAGES)
    part = read_parts(quantize(model, measure_ranges(model, IMAGES, ["scores"])))["backbone"]
    scales = [i for i, tensor in enumerate(part.tensors) if tensor_name(tensor).endswith("/scale")]
    assert len(scales) == 2
    for i in scales:
        held = constant(part, i, np.int8)
        assert held is not None
        bits = np.log2(dequantized(part, i, held).ravel())
        assert np.ptp(bits.round()) >= 4
        np.testing.assert_allclose(bits, bits.round(), atol=0.012)


def test_channels_alike_are_left_alone() -> None:
    model = inverted()
    assert swish_equalized(model, IMAGES) is model


def test_what_lies_where_a_swish_is_flat_does_not_count() -> None:
    """A channel that is always far below 0 would else be the largest one."""
    model = inverted(far=-60.0)
    assert swish_equalized(model, IMAGES) is model


def test_bits() -> None:
    assert bits_of(np.array([8.0, 4.0, 3.0, 1e-9, 0.0])).tolist() == [0, -1, -1, -6, -6]
    assert bits_of(np.zeros(3)).tolist() == [0, 0, 0]
    assert LEAST == 2.0  # a quarter of the range in the mean


@pytest.mark.parametrize(
    "end",
    [
        lambda ends: layers.Activation("tanh")(ends[0]),  # in front of the swish
        lambda ends: layers.Multiply()([ends[0], layers.Activation("sigmoid")(ends[1])]),  # a gate of something else
        lambda ends: layers.Multiply()([ends[1], ends[1]]),  # a square
        lambda ends: layers.Conv2D(4, 1, activation="relu6")(layers.LayerNormalization()(ends[1])),
    ],
)
def test_what_something_else_reads_is_left_alone(end: Callable[[Any], Any]) -> None:
    """The second swish is free."""
    model = inverted(POWERS, end=end)
    found = swish_equalized(model, IMAGES)
    assert kinds(found).count("MUL") == kinds(model).count("MUL") + 1
    np.testing.assert_allclose(features(found), features(model), atol=1e-5)


def test_a_swish_at_the_seam_is_left_alone() -> None:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(CHANNELS, 1, name="last")(image)
    model = keras.Model(image, layers.Flatten()(layers.Activation("swish")(x)))
    seed_weights(model, 1)
    kernel, bias = model.get_layer("last").get_weights()
    model.get_layer("last").set_weights([kernel * 8 * POWERS, bias])
    found = float_model_of(model)
    assert swish_equalized(found, IMAGES) is found


def test_relu_in_front_of_a_gate_is_scaled_for_nothing() -> None:
    image = keras.Input((16, 16, 3))
    x = gated(layers.Conv2D(CHANNELS, 1, activation="relu", name="first")(image), CHANNELS)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, activation="relu", name="last")(x)))
    seed_weights(model, 2)
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * POWERS, bias * POWERS])
    kernel, bias = model.get_layer("last").get_weights()
    model.get_layer("last").set_weights([kernel / POWERS[:, None], bias])
    before = float_model_of(model)
    found, truth = equalized(before, IMAGES), features(before)
    np.testing.assert_allclose(features(found), truth, atol=1e-6)
    assert kinds(found) == kinds(before)
    assert snr(found, truth) > snr(before, truth) + 3


def part_of(kind: str, source: list[int], result: list[int], content: np.ndarray | None, options: Any = None) -> Part:
    """Two convolutions and one operator between them. ``content``: its second input."""
    part = Part("backbone", 0, [], [], {}, {}, [], [None])
    for name, shape in (("image", [1, 4, 4, 3]), ("x", source), ("y", result), ("z", [1, 1, 1, 2])):
        part.tensors.append(plain_tensor(name, shape, np.float32))
    for name, shape in (("w", [source[-1], 1, 1, 3]), ("b", [source[-1]]), ("v", [2, 1, 1, result[-1]]), ("c", [2])):
        part.tensors.append(plain_tensor(name, shape, np.float32))
        part.set_constant(len(part.tensors) - 1, np.ones(shape, np.float32))
    inputs = [1]
    if content is not None:
        part.tensors.append(plain_tensor("content", content.shape, content.dtype))
        part.set_constant(8, content)
        inputs.append(8)
    layer = ("Conv2DOptions", {"strideH": 1, "strideW": 1})
    part.operators = [
        part.operator("CONV_2D", [0, 4, 5], [1], layer),
        part.operator(kind, inputs, [2], options),
        part.operator("CONV_2D", [2, 6, 7], [3], layer),
    ]
    part.inputs, part.outputs = {"image": 0}, {"features": 3}
    return part


@pytest.mark.parametrize(
    ("kind", "source", "result", "content", "passes"),
    [
        ("PAD", [1, 4, 4, 6], [1, 5, 5, 6], np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32), True),
        ("PAD", [1, 4, 4, 6], [1, 4, 4, 8], np.array([[0, 0], [0, 0], [0, 0], [1, 1]], np.int32), False),
        ("PAD", [1, 4, 4, 6], [1, 4, 5, 6], np.array([[0, 0], [0, 0], [1, 0], [0, 0]], np.int64), True),
        ("MEAN", [1, 4, 4, 6], [1, 1, 1, 6], np.array([1, 2], np.int32), True),
        ("MEAN", [1, 4, 6, 6], [1, 4, 6], np.array([-1], np.int32), False),
        ("RESHAPE", [1, 1, 1, 6], [1, 1, 1, 6], np.array([1, 1, 1, 6], np.int32), True),
        ("RESHAPE", [1, 6, 2, 6], [1, 2, 6, 6], np.array([1, 2, 6, 6], np.int32), False),
        ("RESHAPE", [1, 2, 1, 6], [1, 1, 1, 12], np.array([1, 1, 1, 12], np.int32), False),
        ("RELU", [1, 4, 4, 6], [1, 4, 4, 6], None, True),
        ("RELU6", [1, 4, 4, 6], [1, 4, 4, 6], None, False),
        ("TANH", [1, 4, 4, 6], [1, 4, 4, 6], None, False),
        ("MUL", [1, 4, 4, 6], [1, 4, 4, 6], np.ones(6, np.float32), False),
    ],
)
def test_what_keeps_channels_apart_passes_their_scales_on(
    kind: str, source: list[int], result: list[int], content: np.ndarray | None, passes: bool
) -> None:
    options = {"MEAN": ("ReducerOptions", {"keepDims": True}), "MUL": ("MulOptions", {})}.get(kind)
    part = part_of(kind, source, result, content, options)
    assert equalizable(part) == ({1, 2} if passes else set())
    assert all(not group.sigmoids for group in groups(part))


def test_numbers_without_a_shape_and_operators_without_a_result_pass_nothing_on() -> None:
    part = part_of("RELU", [1, 4, 4, 6], [1, 4, 4, 6], None)
    number = plain_tensor("number", [], np.float32)
    number.shape = None
    part.tensors.append(number)
    last = len(part.tensors) - 1
    part.operators.append(part.operator("MUL", [last, last], [last], ("MulOptions", {})))
    part.operators.append(part.operator("ADD", [last, 2], [2], ("AddOptions", {})))
    part.operators.append(part.operator("ASSIGN_VARIABLE", [2, 2], [], None))
    assert all(group.closed for group in groups(part) if last in group.tensors or 2 in group.tensors)


@pytest.mark.parametrize(("first", "known"), [(0.5, True), (-0.5, True), (0.0, False)])
def test_the_scale_in_front_of_a_sigmoid(first: float, known: bool) -> None:
    """Networks have such products of their own: a swish with a learnt beta."""
    part = Part("backbone", 0, [plain_tensor(name, [1, 4], np.float32) for name in "xmsyc"], [], {}, {}, [], [None])
    part.set_constant(4, np.array([first, 1, 2, 4], np.float32))
    part.operators = [
        part.operator("MUL", [0, 4], [1], ("MulOptions", {})),
        part.operator("LOGISTIC", [1], [2]),
        part.operator("MUL", [0, 2], [3], ("MulOptions", {})),
    ]
    found = responses(part)
    assert set(found) == ({"x", "m"} if known else {"m"})
    if known:
        values = np.array([2.0, -3, 1, 0.25])
        expected = values / (1 + np.exp(-values * [first, 1, 2, 4]))
        np.testing.assert_allclose(found["x"].of(np.arange(4))(values), expected)


@pytest.mark.parametrize("shape", [[], None])
def test_a_number_has_no_channels(shape: list[int] | None) -> None:
    part = Part("backbone", 0, [plain_tensor(name, [], np.float32) for name in "xmsyc"], [], {}, {}, [], [None])
    part.tensors[0].shape = shape
    part.set_constant(4, np.array(2, np.float32))
    part.operators = [
        part.operator("MUL", [0, 4], [1], ("MulOptions", {})),
        part.operator("LOGISTIC", [1], [2]),
        part.operator("MUL", [0, 2], [3], ("MulOptions", {})),
    ]
    assert set(responses(part)) == {"m"}


def test_an_omitted_bias_is_no_activation() -> None:
    part = part_of("RELU", [1, 4, 4, 6], [1, 4, 4, 6], None)
    part.operators[2].inputs[2] = NO_TENSOR
    part.tensors.append(plain_tensor("last", [1, 4, 4, 6], np.float32))
    assert all(i >= 0 for group in groups(part) for i in group.tensors)


def test_behind_a_scaled_swish_the_errors_count_as_they_are_there(uneven: bytes) -> None:
    part = read_parts(swish_equalized(uneven, IMAGES))["backbone"]
    scaled = {name: r for name, r in responses(part).items() if r.scale is not None}
    assert len(scaled) == 2
    for response in scaled.values():
        assert response.scale is not None
        values = np.linspace(-30, 30, CHANNELS)
        at = values * response.scale
        np.testing.assert_allclose(response.of(np.arange(CHANNELS))(values), at / (1 + np.exp(-at)) / response.scale)
        outputs = np.broadcast_to(values[:, None, None], (CHANNELS, 2, 1))
        np.testing.assert_allclose(
            response.of_outputs((-1, 1, 1))(outputs)[:, 0, 0], response.of(np.arange(CHANNELS))(values)
        )
        # What a small channel holds below 0 matters, what a large one holds there does not.
        low, high = (mse_range(np.linspace(-100, 10, 500), (-100, 10), response.of(np.full(500, c)))[0] for c in (0, 1))
        assert abs(low) < abs(high)


def test_the_sigmoid_of_a_restored_channel_is_known(uneven: bytes) -> None:
    part = read_parts(swish_equalized(uneven, IMAGES))["backbone"]
    restored = [name for name in responses(part) if name.endswith("/restored")]
    assert len(restored) == 2
    found = measure_ranges(swish_equalized(uneven, IMAGES), IMAGES, ["scores"], estimate="mse")
    assert all(found[name][0] >= -20 for name in restored)
    assert all(found[name.removesuffix("/restored")][0] < -25 for name in restored)  # a sixteenth of it is not flat
    int8 = read_parts(quantize(swish_equalized(uneven, IMAGES), found))["backbone"]
    assert all(t.type == INT8 for t in int8.tensors if tensor_name(t).endswith("/restored"))
