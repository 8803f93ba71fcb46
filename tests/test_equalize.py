"""Equalization changes the scales of channels between layers, and never the outputs of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.merging.merge import MergedModel
from builder.quantizing.equalize import equalizable, equalized
from builder.quantizing.noise import snr_db
from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.sensitivity import answers
from builder.reading.picture_input import PictureSourceInput
from builder.settings.input_scaling import PixelTransform
from builder.tflite.flatbuffer import operator_name, read_parts
from tests.tiny_models import seed_weights

RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(12, 16, 16, 3)).astype(np.float32)


def float_model_of(backbone: Any) -> bytes:
    """The float file with one head, as ``convert`` makes it."""
    seam = keras.Input(backbone.output_shape[1:], name="features")
    head = keras.Model(seam, layers.Dense(4, name="dense")(layers.Flatten()(seam)), name="scores")
    seed_weights(head, 9)
    entry = PictureSourceInput((16, 16), PixelTransform(), PixelTransform())
    return MergedModel(entry, backbone, {"scores": head}, "", ("features",)).float_model()


def bottlenecks(activation: str | None = None, *, ill: bool = False) -> Any:
    """Two blocks with linear ends, the second with a residual; ``ill``: their channels scaled by powers of two, 2^-6 to
    2^6, and the layers that read them the other way.
    """
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 1, name="first")(image)
    x = skip = layers.Activation(activation or "linear")(x)
    x = layers.Conv2D(24, 1, activation="relu6", name="expand")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.Conv2D(12, 1, name="project")(x)
    x = layers.Add()([x, skip])
    x = layers.Conv2D(24, 1, activation="relu6", name="read")(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    seed_weights(model, 3)
    if ill:
        powers = 2.0 ** np.linspace(-6, 6, 12).round()
        for name in ("first", "project"):
            kernel, bias = model.get_layer(name).get_weights()
            model.get_layer(name).set_weights([kernel * powers, bias * powers])
        for name in ("expand", "read"):
            kernel, bias = model.get_layer(name).get_weights()
            model.get_layer(name).set_weights([kernel / powers[:, None], bias])
    return model


def features(model: bytes) -> np.ndarray:
    parts = read_parts(model)
    return answers(parts["backbone"], {"scores": parts["scores"]}, IMAGES)["scores"]


def snr(model: bytes, truth: np.ndarray) -> float:
    """The SNR of int8, rounded to nearest, against float."""
    return snr_db(truth, features(quantize(model, measure_ranges(model, IMAGES, ["scores"]))))


def test_float_answers_stay_what_they_were() -> None:
    for ill in (False, True):
        model = float_model_of(bottlenecks(ill=ill))
        found = equalized(model, IMAGES)
        assert found != model
        np.testing.assert_allclose(features(found), features(model), atol=1e-5)


def test_a_badly_scaled_network_is_as_good_as_a_well_scaled_one() -> None:
    well, ill = (float_model_of(bottlenecks(ill=ill)) for ill in (False, True))
    truth = features(well)
    np.testing.assert_allclose(features(ill), truth, atol=1e-4)
    assert snr(ill, truth) < snr(well, truth) - 10
    assert snr(equalized(ill, IMAGES), truth) > snr(equalized(well, IMAGES), truth) - 1.5


def test_what_residuals_join_is_one_group() -> None:
    backbone = read_parts(float_model_of(bottlenecks()))["backbone"]
    kinds = {operator_name(backbone, op) for op in backbone.operators if set(op.outputs) & equalizable(backbone)}
    assert kinds == {"CONV_2D", "ADD"}
    assert len(equalizable(backbone)) == 3  # first, project and their sum; not what is behind ReLU6


@pytest.mark.parametrize("activation", ["relu6", "swish", "tanh"])
def test_nothing_is_scaled_across_an_activation(activation: str) -> None:
    """The other input of a residual sum is not scaled either."""
    assert not equalizable(read_parts(float_model_of(bottlenecks(activation)))["backbone"])


def test_relu_and_pools_pass_channels_on() -> None:
    image = keras.Input((16, 16, 3))
    x = skip = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, skip]))
    x = layers.AveragePooling2D(2)(layers.MaxPooling2D(3, 2)(x))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, activation="relu")(x)))
    seed_weights(model, 8)
    before = float_model_of(model)
    backbone = read_parts(before)["backbone"]
    kinds = {operator_name(backbone, op) for op in backbone.operators if set(op.outputs) & equalizable(backbone)}
    assert kinds >= {"CONV_2D", "ADD", "MAX_POOL_2D", "AVERAGE_POOL_2D"}
    found = equalized(before, IMAGES)
    assert found != before
    np.testing.assert_allclose(features(found), features(before), atol=1e-5)


def test_a_channel_that_is_always_zero_does_no_harm() -> None:
    model = bottlenecks()
    for name in ("first", "project"):
        kernel, bias = model.get_layer(name).get_weights()
        kernel[..., 2], bias[2] = 0, 0
        model.get_layer(name).set_weights([kernel, bias])
    before = float_model_of(model)
    found = features(equalized(before, IMAGES))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, features(before), atol=1e-5)


def test_seam_and_input_are_left_alone() -> None:
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, layers.Conv2D(5, 3)(layers.Conv2D(4, 3)(image)))
    seed_weights(model, 1)
    backbone = read_parts(float_model_of(model))["backbone"]
    assert equalizable(backbone) == {backbone.operators[0].outputs[0]}
