"""Pixel transforms as functions: composition, equality, and what the file's quantization can express."""

from __future__ import annotations

import numpy as np
import pytest

from builder.settings.input_scaling import GREY, PREPROCESSING, PixelTransform, named_preprocessing, parse_preprocessing
from builder.support.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_names_mean_what_they_mean_in_keras(mode: str) -> None:
    keras = pytest.importorskip("keras")
    expected = keras.applications.imagenet_utils.preprocess_input(PIXELS.copy(), data_format="channels_last", mode=mode)
    np.testing.assert_allclose(PREPROCESSING[mode].apply(PIXELS), expected, atol=2e-5)


@pytest.mark.parametrize(("name", "low", "high"), [("raw", 0, 255), ("unit", 0, 1), ("tf", -1, 1)])
def test_what_is_the_same_for_all_channels_has_these_ends(name: str, low: float, high: float) -> None:
    ends = PREPROCESSING[name].apply(np.array([[0, 0, 0], [255, 255, 255]]))
    np.testing.assert_allclose(ends, [[low] * 3, [high] * 3], atol=1e-6)


def test_composition_is_composition() -> None:
    first = PREPROCESSING["caffe"]
    second = first.then([2.0, 3.0, 4.0], [1.0, 0.0, -1.0])
    np.testing.assert_allclose(second.apply(PIXELS), first.apply(PIXELS) * [2, 3, 4] + [1, 0, -1], atol=1e-3)


def test_equal_as_functions_is_equal() -> None:
    assert PixelTransform().then(1 / 127.5, -1).identity == PixelTransform().then(1 / 255, 0).then(2, -1).identity


@pytest.mark.parametrize(
    "other",
    [
        PREPROCESSING["unit"],
        PixelTransform().then(1 / 128, -1),
        PixelTransform().then(1 / 127.5, -0.999),
        PixelTransform(order=(2, 1, 0)).then(1 / 127.5, -1),
        PixelTransform().then([1 / 127.5, 1 / 127.5, 1 / 127], -1),
    ],
)
def test_nearly_equal_is_not_equal(other: PixelTransform) -> None:
    assert PREPROCESSING["tf"].identity != other.identity


@pytest.mark.parametrize(
    ("name", "uniform"), [("raw", True), ("unit", True), ("tf", True), ("torch", False), ("caffe", False)]
)
def test_uniform_is_one_scale_and_offset_in_rgb_order(name: str, uniform: bool) -> None:
    assert PREPROCESSING[name].is_uniform is uniform


@pytest.mark.parametrize("name", named_preprocessing(GREY))
def test_greyscale_has_one_scale_and_offset(name: str) -> None:
    grey = named_preprocessing(GREY)[name]
    assert grey.is_uniform and grey.channels == 1
    np.testing.assert_allclose(grey.apply(PIXELS[..., :1]), PREPROCESSING[name].apply(PIXELS)[..., :1])


def test_an_inverting_scale_is_not_what_a_quantization_can_express() -> None:
    assert not PixelTransform().then(-1, 255).is_uniform


@pytest.mark.parametrize(
    "value",
    [
        "imagenet",
        "",
        3,
        None,
        {},
        {"scale": "a"},
        {"scale": [1, 2]},
        {"scales": 1},
        {"scale": 0},
        {"offset": float("nan")},
        [1],
    ],
)
def test_anything_else_is_refused_with_the_choices(value: object) -> None:
    with pytest.raises(ConfigError, match=r"heads\.a"):
        parse_preprocessing(value, "heads.a")


def test_a_table_is_scale_and_offset() -> None:
    assert parse_preprocessing({"scale": 2, "offset": [1, 2, 3]}, "a") == PixelTransform().then(2, [1, 2, 3])
