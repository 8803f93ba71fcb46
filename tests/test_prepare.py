"""Preparing the float network for int8 keeps its answers, adds no operator, and makes int8 more exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing.channels import weights_of
from builder.quantizing.fold import foldable, folded
from builder.quantizing.noise import snr_db
from builder.quantizing.prepare import prepared
from builder.quantizing.spare import find_chain, most_useful, spare_channels, use, with_copies
from builder.tflite.flatbuffer import operator_name, read_parts
from builder.tflite.parts import constant
from builder.tflite.stepper import Stepper
from tests.test_equalize import IMAGES, features, float_model_of
from tests.tiny_models import seed_weights

Net = Callable[[Any], Any]
PIXELS = (float(IMAGES.min()), float(IMAGES.max()))


def made(net: Net, seed: int = 3) -> bytes:
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(net(image)))
    seed_weights(model, seed)
    return float_model_of(model)


def kinds(model: bytes) -> list[str]:
    part = read_parts(model)["backbone"]
    return [operator_name(part, op) for op in part.operators]


def pair(inner: int, outer: int, activation: str | None = None, strides: tuple[int, int] = (1, 1)) -> Net:
    """8 channels -> ``inner`` -> ``outer``; strides of the two."""

    def net(image: Any) -> Any:
        x = layers.Conv2D(8, 3, activation="relu6")(image)
        x = layers.Conv2D(inner, 1, strides[0], activation=activation)(x)
        return layers.Conv2D(outer, 1, strides[1], activation="relu6")(x)

    return net


@pytest.mark.parametrize(("inner", "outer", "second"), [(4, 24, 1), (6, 12, 2), (8, 8, 1), (2, 3, 1)])
def test_two_linear_layers_become_the_one_that_they_are(inner: int, outer: int, second: int) -> None:
    model = made(pair(inner, outer, strides=(1, second)))
    found = folded(model)
    assert len(kinds(found)) == len(kinds(model)) - 1
    np.testing.assert_allclose(features(found), features(model), atol=1e-5)
    assert folded(found) == found


def residual(image: Any) -> Any:
    x = skip = layers.Conv2D(6, 1)(layers.Conv2D(8, 3, activation="relu6")(image))
    return layers.Add()([layers.Conv2D(6, 1)(x), skip])


def wide_kernel(image: Any) -> Any:
    return layers.Conv2D(12, 3)(layers.Conv2D(6, 1)(layers.Conv2D(8, 3)(image)))


@pytest.mark.parametrize(
    "net",
    [pair(4, 24, "relu6"), pair(4, 24, strides=(2, 1)), pair(2, 24), pair(4, 200), residual, wide_kernel],
    ids=["activation between", "strides", "narrow", "much work", "two readers", "3 x 3"],
)
def test_what_is_more_work_or_another_function_stays(net: Net) -> None:
    model = made(net)
    assert folded(model) == model


def test_of_three_in_a_row_two_become_one() -> None:
    def net(image: Any) -> Any:
        x = layers.Conv2D(8, 3, activation="relu6")(image)
        for _ in range(3):
            x = layers.Conv2D(8, 1)(x)
        return x

    model = made(net)
    assert len(foldable(read_parts(model)["backbone"])) == 1
    np.testing.assert_allclose(features(folded(model)), features(model), atol=1e-5)


def inverted(
    *, dead: int, loud: int, tap: float = 0.0, relu: str = "relu6", branch: bool = False, padding: str = "same"
) -> bytes:
    """A stem of 12 channels, a depthwise layer and its reader: ``dead`` channels of the stem are always 0, and ``loud``
    ones matter thirty times as much as others. ``tap``: a weight of each dead channel, which still stays below 0.
    """
    image = keras.Input((16, 16, 3))
    x = stem = layers.Conv2D(12, 3, 2, padding="same", activation=relu, name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding=padding, activation=relu, name="depthwise")(x)
    x = layers.Conv2D(6, 1, name="reader")(x)
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation=relu)(x))
    if branch:
        outputs = layers.Concatenate()([outputs, layers.GlobalAveragePooling2D()(stem)])
    model = keras.Model(image, outputs)
    seed_weights(model, 4)
    kernel, bias = model.get_layer("stem").get_weights()
    kernel, bias = kernel * 0.5, np.full_like(bias, 2.0)  # inside of ReLU6
    kernel[..., dead : dead + loud] *= 0.1
    kernel[..., :dead], bias[:dead] = tap, -(27 * tap * np.abs(IMAGES).max() + 0.1)
    model.get_layer("stem").set_weights([kernel, bias])
    taps, own_bias = model.get_layer("depthwise").get_weights()
    taps[:, :, dead : dead + loud] -= taps[:, :, dead : dead + loud].mean((0, 1))  # an edge: all of it is small detail
    taps[:, :, dead : dead + loud] *= 30
    model.get_layer("depthwise").set_weights([taps, np.abs(own_bias) + 1])
    return float_model_of(model)


def from_steps(model: bytes, truth: np.ndarray) -> float:
    """Signal to noise of the features when what the first layer gives has 256 steps, and all else is float."""
    part = read_parts(model)["backbone"]
    run, source = Stepper(part, dict.fromkeys(part.inputs.values(), IMAGES)), part.operators[0].outputs[0]
    values = run.until(source)
    step = values.max() / 255
    run.put(source, (np.rint(values / step) * step).astype(np.float32))
    return snr_db(truth, run.until(part.outputs["features"]))


def float_features(model: bytes, images: np.ndarray = IMAGES) -> np.ndarray:
    part = read_parts(model)["backbone"]
    return Stepper(part, dict.fromkeys(part.inputs.values(), images)).until(part.outputs["features"])


def spare_of(model: bytes) -> list[int]:
    part = read_parts(model)["backbone"]
    chain = find_chain(part)
    assert chain is not None
    return spare_channels(part, chain.first, PIXELS)


@pytest.mark.parametrize(("relu", "padding"), [("relu6", "same"), ("relu", "valid")])
def test_spare_channels_make_the_loud_ones_finer(relu: str, padding: str) -> None:
    model = inverted(dead=3, loud=1, relu=relu, padding=padding)
    found, truth = with_copies(model, IMAGES, PIXELS), float_features(model)
    assert kinds(found) == kinds(model)
    assert snr_db(truth, float_features(found)) > 50
    assert from_steps(found, truth) > from_steps(model, truth) + 6


def test_zeros_around_the_picture_are_no_layer_before_the_first() -> None:
    chains = []
    for front in ([], [layers.ZeroPadding2D(2)], [layers.ZeroPadding2D(2), layers.MaxPooling2D()]):

        def net(image: Any, front: list[Any] = front) -> Any:
            for layer in front:
                image = layer(image)
            x = layers.DepthwiseConv2D(3, activation="relu6")(layers.Conv2D(8, 3, activation="relu6")(image))
            return layers.Conv2D(6, 1)(x)

        chains.append(find_chain(read_parts(made(net))["backbone"]))
    assert [chain is not None for chain in chains] == [True, True, False]


def test_copies_lie_parts_of_a_step_apart_and_share_the_weight_of_their_reader() -> None:
    model = inverted(dead=3, loud=1)
    before, after = (read_parts(m)["backbone"] for m in (model, with_copies(model, IMAGES, PIXELS)))
    kernels = [[weights_of(part, op) for op in part.operators[:3]] for part in (before, after)]
    (first, taps, reader), (own_first, own_taps, own_reader) = kernels
    copies = [c for c in range(12) if np.array_equal(own_first[c], first[3])]
    assert copies == [0, 1, 2, 3]
    for c in copies:
        np.testing.assert_array_equal(own_taps[..., c], taps[..., 3])
        np.testing.assert_allclose(own_reader[..., c], reader[..., 3] / 4, rtol=1e-6)


@pytest.mark.parametrize("channel", [3, 7])  # one whose depthwise weights add up to 0, and one whose do not
def test_of_each_layer_copies_give_a_share_of_its_step_more(channel: int) -> None:
    before, steps = read_parts(inverted(dead=3, loud=1))["backbone"], (0.01, 0.02)
    chain = find_chain(before)
    assert chain is not None
    after = use(before, chain, [0, 1, 2], {channel: 4}, steps)
    copies = [0, 1, 2, channel]
    moved, own_moved = (
        (constant(after, op.inputs[2], np.float32) - constant(before, op.inputs[2], np.float32)[channel])[copies]
        for op in (chain.first, chain.depthwise)
    )
    behind = own_moved + moved * weights_of(before, chain.depthwise)[..., channel].sum()
    for found, step in ((moved, steps[0]), (behind, steps[1])):
        np.testing.assert_allclose(np.sort(found) / step, [-3 / 8, -1 / 8, 1 / 8, 3 / 8], atol=1e-3)


@pytest.mark.parametrize("reach", [0.9, 1.1])
def test_a_channel_is_spare_where_no_picture_can_wake_it(reach: float) -> None:
    """Not where it was 0 on those that calibrate: all pixels may be at their greatest at once."""
    model = inverted(dead=2, loud=1, tap=0.02)
    part = read_parts(model)["backbone"]
    chain = find_chain(part)
    assert chain is not None
    largest = max(map(abs, PIXELS))
    most = reach * (largest + 0.1 / (27 * 0.02))
    assert (spare_channels(part, chain.first, (0.0, most)) == [0, 1]) == (reach < 1)


def test_dark_pictures_do_not_make_a_channel_spare_that_bright_ones_wake() -> None:
    model = inverted(dead=3, loud=1, tap=0.02)
    assert with_copies(model, IMAGES, PIXELS) != model
    assert with_copies(model, IMAGES, (PIXELS[0], 2 * PIXELS[1])) == model  # beyond where the dead channels begin


def test_a_convolution_behind_other_layers_has_no_spare_channels() -> None:
    """The range of its values over all possible pictures is not known."""

    def net(image: Any) -> Any:
        x = layers.Conv2D(12, 3, activation="relu6", kernel_initializer="zeros")(layers.MaxPooling2D()(image))
        return layers.Conv2D(6, 1)(layers.DepthwiseConv2D(3, activation="relu6")(x))

    part = read_parts(made(net))["backbone"]
    assert find_chain(part) is None


@pytest.mark.parametrize("input_range", [None, (-9e9, 9e9)])
def test_nothing_is_spare_without_a_range_of_pixels(input_range: tuple[float, float] | None) -> None:
    model = inverted(dead=3, loud=1, tap=0.02)
    assert with_copies(model, IMAGES, input_range) == model


@pytest.mark.parametrize("model", [inverted(dead=0, loud=1), inverted(dead=2, loud=1, branch=True)])
def test_nothing_changes_without_spare_channels_or_where_others_read_them(model: bytes) -> None:
    assert with_copies(model, IMAGES, PIXELS) == model


def test_copies_that_move_the_float_network_are_not_made() -> None:
    """Steps are so wide here that a part of one is much: what lies near 0 is cut off elsewhere in each copy."""
    model = inverted(dead=3, loud=1, relu="relu")
    assert with_copies(model, IMAGES, PIXELS) == model


def test_copies_go_where_they_take_most_noise() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        noise, spare = rng.exponential(size=4) ** 3, 3
        copies = most_useful(noise, spare)
        assert sum(n - 1 for n in copies.values()) <= spare
        left = sum(noise[c] / copies.get(c, 1) ** 2 for c in range(4))
        others = (np.bincount(chosen, minlength=4) + 1 for chosen in itertools.product(range(4), repeat=spare))
        assert left == pytest.approx(min(float(np.sum(noise / counts**2)) for counts in others))
    assert most_useful(np.zeros(4), 2) == {}


def test_a_prepared_network_gives_what_it_gave() -> None:
    model = inverted(dead=3, loud=2)
    found, integer = prepared(model, IMAGES, PIXELS)
    assert integer is found  # no swish
    assert snr_db(float_features(model), float_features(found)) > 50
    assert spare_of(model) == [0, 1, 2]
    assert spare_of(found) == []
