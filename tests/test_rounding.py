"""Laws of learnt rounding, each on small matrices and on the tiny file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildResult, build
from builder.flatbuffer import read_parts
from builder.layerwise import Stepper
from builder.patches import sample_patches
from builder.rounding import Observed, gptq, inverse_factor
from edge_runtime import MultiHeadClassifier

RNG = np.random.default_rng(3)


def correlated(rows: int, taps: int) -> np.ndarray:
    """Inputs that move together, as the channels of a network do: float32 (1, rows, taps)."""
    mix = RNG.normal(size=(taps, taps)) * np.linspace(2, 0.02, taps)
    return (RNG.normal(size=(rows, taps)) @ mix + RNG.normal(size=taps)).astype(np.float32)[None]


def layer(taps: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    weights = RNG.normal(size=(1, taps, outputs))
    return weights, np.abs(weights).max(1) / 127


def test_weights_that_lie_on_the_grid_stay_where_they_are() -> None:
    weights, steps = layer(12, 5)
    integers = np.clip(np.rint(weights / steps[:, None]), -127, 127)
    x = correlated(400, 12)
    found, shift = Observed(x, x).fit(integers * steps[:, None], steps)
    np.testing.assert_array_equal(found, integers)
    np.testing.assert_allclose(shift, 0, atol=1e-4)


def test_rounding_by_gptq_is_nearer_than_rounding_to_nearest_where_inputs_are_correlated() -> None:
    weights, steps = layer(24, 6)
    x = correlated(2000, 24)[0].astype(np.float64)
    hessian = (x.T @ x)[None]
    found = gptq(weights, steps, *inverse_factor(hessian + 1e-6 * np.eye(24)))
    nearest = np.clip(np.rint(weights / steps[:, None]), -127, 127)
    errors = [float(np.sum((x @ ((q * steps[:, None]) - weights)[0]) ** 2)) for q in (found, nearest)]
    assert errors[0] < 0.5 * errors[1]


def test_integers_are_integers_within_127() -> None:
    weights, steps = layer(150, 4)  # more taps than one block
    found = gptq(weights * 3, steps, *inverse_factor(np.eye(150)[None]))
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found).max() == 127


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, steps = layer(40, 3)
    x = correlated(500, 40)[0].astype(np.float64)
    factor = inverse_factor((x.T @ x + 5 * np.eye(40))[None])
    whole = gptq(weights, steps, *factor)
    monkeypatch.setattr("builder.rounding.BLOCK", 7)
    np.testing.assert_array_equal(gptq(weights, steps, *factor), whole)


def test_the_bias_makes_the_mean_error_zero() -> None:
    weights, steps = layer(10, 4)
    signal = correlated(600, 10)
    device = signal + RNG.normal(0.1, 0.2, signal.shape).astype(np.float32)
    integers, shift = Observed(signal, device).fit(weights, steps)
    error = signal[0] @ weights[0] - (device[0] @ (integers * steps[:, None])[0] + shift)
    np.testing.assert_allclose(error.mean(0), 0, atol=1e-5)


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    weights, steps = layer(8, 3)
    x = correlated(300, 8)
    x[..., 2] = 0
    integers, shift = Observed(x, x).fit(weights, steps)
    assert np.isfinite(integers).all()
    assert np.isfinite(shift).all()
    all_zero, _ = Observed(np.zeros_like(x), np.zeros_like(x)).fit(weights, steps)
    np.testing.assert_array_equal(all_zero, np.clip(np.rint(weights / steps[:, None]), -127, 127))


@pytest.mark.parametrize(
    ("stride", "dilation", "padding", "size"),
    [(1, 1, 0, 7), (2, 1, 0, 8), (2, 1, 0, 7), (1, 2, 0, 9), (2, 1, 1, 9), (1, 1, 1, 5)],
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_patches_times_weights_are_the_convolution(
    stride: int, dilation: int, padding: int, size: int, depthwise: bool
) -> None:
    import tensorflow as tf

    if stride > 1 and dilation > 1:
        pytest.skip("not a convolution there is")
    x = RNG.normal(size=(2, size, size + 1, 4)).astype(np.float32)
    name = "VALID" if padding else "SAME"
    options = SimpleNamespace(
        strideH=stride, strideW=stride, dilationHFactor=dilation, dilationWFactor=dilation, padding=padding
    )
    if depthwise:
        kernel = RNG.normal(size=(1, 3, 3, 4)).astype(np.float32)
        expected = tf.nn.depthwise_conv2d(x, kernel[0][..., None], [1, stride, stride, 1], name, dilations=[dilation] * 2)
        (patches,) = sample_patches("DEPTHWISE_CONV_2D", options, kernel.shape, [(x, 0.0)], 10**6)
        found = np.einsum("grt,gt->rg", patches, kernel.reshape(9, 4).T)
    else:
        kernel = RNG.normal(size=(5, 3, 3, 4)).astype(np.float32)
        expected = tf.nn.conv2d(x, kernel.transpose(1, 2, 3, 0), stride, name, dilations=dilation)
        (patches,) = sample_patches("CONV_2D", options, kernel.shape, [(x, 0.0)], 10**6)
        found = patches[0] @ kernel.reshape(5, -1).T
    np.testing.assert_allclose(found, np.asarray(expected).reshape(found.shape), atol=1e-4)


def test_places_are_drawn_alike_in_both_views_and_no_more_than_asked_for() -> None:
    options = SimpleNamespace(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1, padding=0)
    x = RNG.normal(size=(3, 9, 9, 2)).astype(np.float32)
    a, b = sample_patches("CONV_2D", options, (1, 3, 3, 2), [(x, 0.0), (2 * x, 0.0)], 50)
    assert a.shape == (1, 50, 18)
    np.testing.assert_array_equal(2 * a, b)


def test_one_operator_at_a_time_is_the_network(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    part = read_parts(tiny_file.read_bytes())["backbone"]
    with MultiHeadClassifier(tiny_file) as classifier:
        images = np.concatenate([classifier.prepare(p) for p in tiny_pictures[:3]])
        expected = np.concatenate([classifier.features_of(image[None]) for image in images])
    stepper = Stepper(part, {part.inputs["image"]: images})
    np.testing.assert_array_equal(stepper.until(part.outputs["features"]), expected)
    with pytest.raises(KeyError):
        stepper.value(part.inputs["image"])  # no longer needed, so no longer held


def test_learnt_rounding_is_nearer_to_float_at_equal_size(tiny: BuildResult, tmp_path: Path) -> None:
    nearest = build(replace(tiny.report.config, rounding="nearest", output=tmp_path / "nearest.tflite"))
    assert tiny.quality.features_snr_db > nearest.quality.features_snr_db
    assert tiny.report.linked.backbone_bytes == nearest.report.linked.backbone_bytes
    assert not nearest.report.rung.noise
