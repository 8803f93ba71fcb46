"""The noise of each operator alone, and of its weights and activations separately."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder import BuildResult, build  # noqa: E402
from builder.merging.convert import _convert, _frozen  # noqa: E402
from builder.quantizing.noise import LayerNoise, _rounded_weights, snr_db  # noqa: E402
from builder.quantizing.quantize import quantize  # noqa: E402
from builder.quantizing.ranges import measure_ranges  # noqa: E402
from builder.support.errors import ConversionError  # noqa: E402
from builder.tflite.flatbuffer import read_parts  # noqa: E402
from builder.tflite.parts import constant, is_constant  # noqa: E402


def power(db: float | None) -> float:
    """The power of the noise, relative to the signal."""
    return 0.0 if db is None or np.isinf(db) else float(10 ** (-db / 10))


def test_weights_and_activations_add_up_to_the_whole(tiny: BuildResult) -> None:
    """The rounding errors of both are independent, but learnt weights may compensate for some of the other."""
    for layer in tiny.report.chosen.noise:
        parts = power(layer.weights_db) + power(layer.activations_db)
        assert 0.3 * parts < power(layer.alone_db) < 3 * parts, layer


def test_what_has_no_weights_has_none_to_lose(tiny: BuildResult) -> None:
    with_weights = {layer.kind for layer in tiny.report.chosen.noise if layer.weights_db is not None}
    assert with_weights == {"CONV_2D", "DEPTHWISE_CONV_2D"}
    assert {layer.kind for layer in tiny.report.chosen.noise} > with_weights


def test_the_first_operator_has_nothing_before_it(tiny: BuildResult) -> None:
    first = tiny.report.chosen.noise[0]
    # x / 127.5 - 1 lies in the middle between two steps: a device takes the upper one, float values fall to both.
    assert first.snr_db == pytest.approx(first.alone_db, abs=1)
    assert sum(layer.snr_db < layer.alone_db for layer in tiny.report.chosen.noise) >= len(tiny.report.chosen.noise) - 2


def test_the_report_is_json_also_where_nothing_is_lost(tiny: BuildResult) -> None:
    lossless = LayerNoise("x", "RESHAPE", float("inf"), float("inf"), None, float("inf"), 0.0)
    assert json.loads(json.dumps(lossless.to_json(), allow_nan=False))["snr_db"] is None
    assert json.dumps(tiny.report.to_json(), allow_nan=False)


def test_of_very_many_operators_the_heads_noise_is_not_measured(
    tiny: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed precision is then not possible, and the build says why."""
    monkeypatch.setattr("builder.quantizing.rounding.MOST_OPERATORS", 2)
    config = replace(tiny.report.config, output=tmp_path / "x.tflite")
    with pytest.raises(ConversionError, match="operators are too many to measure"):
        build(replace(config, precision="mixed"))


def test_what_int8_costs_the_heads_is_not_measured_where_it_passes(tiny: BuildResult) -> None:
    assert all(noise.head_noise is None and noise.alone_db > 0 for noise in tiny.report.chosen.noise)
    assert tiny.report.to_json()["layers"][0]["head_noise"] is None
    page = (tiny.report.config.report_folder / "index.html").read_text("utf-8")
    assert "Operators with the most noise" in page
    assert "Operators that add most noise to the scores" not in page


@pytest.mark.parametrize(("factor", "expected"), [(1.1, 20.0), (1.01, 40.0)])
def test_signal_to_noise_is_in_decibel(factor: float, expected: float) -> None:
    x = np.random.default_rng(3).normal(size=1000)
    assert snr_db(x, factor * x) == pytest.approx(expected)
    assert snr_db(x, x) == np.inf


@pytest.mark.parametrize("number", [0.25, -3.0, [0.5, -2.0, 1.0, 3.0], [[[0.5, 1.0, 2.0, 4.0]]]], ids=str)
def test_constants_of_any_shape_are_weights(number: object) -> None:
    """One number for the whole tensor, one for each channel: each is what the device stores of it, zero point and all."""
    image = keras.Input((8, 8, 4), batch_size=1, name="image")
    x = keras.ops.multiply(keras.layers.Conv2D(4, 3)(image), keras.ops.convert_to_tensor(number, "float32"))
    model = keras.Model(image, keras.ops.add(x, 0.5 * keras.ops.abs(x)))
    floating = _convert({"backbone": _frozen(model, {"image": (8, 8, 4)}, ["features"])})
    ranges = measure_ranges(floating, np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype(np.float32), [])
    part, device = (read_parts(model)["backbone"] for model in (floating, quantize(floating, ranges, "int8")))
    weighted = [op for op in part.operators if len(op.inputs) > 1 and is_constant(part, op.inputs[1])]
    assert len(weighted) >= 2
    for op in weighted:
        rounded = _rounded_weights(part, op, device)
        assert rounded is not None
        meant, stored = (constant(one, op.inputs[1], np.float32) for one in (part, rounded))
        np.testing.assert_allclose(stored, meant, atol=float(np.abs(meant).max()) / 100)
