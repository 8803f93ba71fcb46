"""Laws of learnt rounding, each on small matrices and on the tiny file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras

from builder import BuildResult, build
from builder.quantizing.bias import shift_behind
from builder.quantizing.gptq import gptq, inverse_factor, neighbours
from builder.quantizing.learn_layer import LEAST_RELEVANCE, Observed, _relevance
from builder.quantizing.patches import sample_patches
from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.refit import PULLS, OfProducts, OfRows, Refit, products
from builder.quantizing.rounding import round_parts
from builder.support.errors import ConversionError
from builder.tflite.batches import batch_of
from builder.tflite.flatbuffer import INT8, Part, dtype_of, operator_name, plain_tensor, read_parts
from builder.tflite.parts import constant, names
from builder.tflite.stepper import Stepper, run_operator
from builder.tflite.writer import write_parts
from edge_runtime import MultiHeadClassifier
from edge_runtime.metadata import BACKBONE
from tests.test_equalize import IMAGES, bottlenecks, float_model_of
from tests.tiny_models import seed_weights

RNG = np.random.default_rng(3)


def anywhere(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip to the range of int8 only."""
    return np.full(weights.shape, -127.0), np.full(weights.shape, 127.0)


def correlated(rows: int, taps: int) -> np.ndarray:
    """Correlated inputs, like the channels of a network: float32 (1, rows, taps)."""
    mix = RNG.normal(size=(taps, taps)) * np.linspace(2, 0.02, taps)
    return (RNG.normal(size=(rows, taps)) @ mix + RNG.normal(size=taps)).astype(np.float32)[None]


def layer(taps: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    weights = RNG.normal(size=(1, taps, outputs))
    return weights, np.abs(weights).max(1) / 127


def test_weights_that_lie_on_the_grid_stay_where_they_are() -> None:
    weights, steps = layer(12, 5)
    integers = np.clip(np.rint(weights / steps[:, None]), -127, 127)
    x = correlated(400, 12)
    seen = Observed(x, x, np.arange(400))
    found = seen.fit(integers * steps[:, None], steps)
    np.testing.assert_array_equal(found, integers)
    np.testing.assert_allclose(seen.shift(integers * steps[:, None], found, steps), 0, atol=1e-4)


def test_rounding_by_gptq_is_nearer_than_rounding_to_nearest_where_inputs_are_correlated() -> None:
    weights, steps = layer(24, 6)
    x = correlated(2000, 24)[0].astype(np.float64)
    hessian = (x.T @ x)[None]
    found = gptq(weights, steps, anywhere(weights), *inverse_factor(hessian + 1e-6 * np.eye(24)))
    nearest = np.clip(np.rint(weights / steps[:, None]), -127, 127)
    errors = [float(np.sum((x @ ((q * steps[:, None]) - weights)[0]) ** 2)) for q in (found, nearest)]
    assert errors[0] < 0.5 * errors[1]


def test_the_factor_is_that_of_the_inverse_in_the_order_of_rounding() -> None:
    x = np.stack([correlated(300, 9)[0] for _ in range(3)]).astype(np.float64)
    hessian = x.transpose(0, 2, 1) @ x
    order, upper = inverse_factor(hessian)
    for own, places, factor in zip(hessian, order, upper, strict=True):
        assert np.all(np.diff(np.diagonal(own)[places]) <= 0)
        np.testing.assert_array_equal(factor, np.triu(factor))
        np.testing.assert_allclose(factor.T @ factor @ own[np.ix_(places, places)], np.eye(9), atol=1e-6)


def test_integers_are_integers_within_127() -> None:
    weights, steps = layer(150, 4)  # more taps than one block
    found = gptq(weights * 3, steps, anywhere(weights), *inverse_factor(np.eye(150)[None]))
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found).max() == 127


@pytest.mark.parametrize("refit", [True, False])
def test_no_weight_moves_by_more_than_one_step(refit: bool) -> None:
    """This holds for any inputs on the device."""
    weights, steps = layer(40, 6)
    signal = correlated(800, 40)
    device = 0.7 * signal + RNG.normal(0.2, 0.5, signal.shape).astype(np.float32)
    found = Observed(signal, device, np.arange(800) // 10).fit(weights, steps, refit=refit)
    moved = np.abs(found - weights / steps[:, None])
    assert 0.5 < moved.max() < 1  # not all are the nearest


def test_no_weight_of_a_built_file_has_moved_by_more_than_one_step(tiny: BuildResult, tmp_path: Path) -> None:
    """A file rounded to nearest is at most half a step from float, and has the same scales."""
    learnt = read_parts(tiny.output.read_bytes())
    nearest = build(replace(tiny.report.config, rounding="nearest", output=tmp_path / "nearest.tflite"))
    moved = []
    for name, part in read_parts(nearest.output.read_bytes()).items():
        theirs = dict(names(learnt[name]))
        for tensor, i in names(part):
            old = constant(part, i, np.int8) if part.tensors[i].type == INT8 else None
            if old is not None and tensor.endswith("kernel"):
                new = constant(learnt[name], theirs[tensor], np.int8)
                assert new is not None
                moved.append(int(np.abs(new.astype(int) - old).max()))
    assert set(moved) == {1}


def test_a_refit_that_would_not_hold_elsewhere_is_not_taken() -> None:
    """With more taps than samples, a fit to them is worse on others. With many samples the same refit is used."""
    weights, _ = layer(30, 4)
    x = correlated(4000, 30)
    noisy = x + RNG.normal(0, 0.3 * x.std(), x.shape).astype(np.float32)
    x, noisy = x - x.mean(1, keepdims=True), noisy - noisy.mean(1, keepdims=True)
    few, many = (Refit(x[:, :n], noisy[:, :n], np.arange(n))(weights) for n in (24, 3000))

    def error(found: np.ndarray) -> float:
        return float(np.sum((x[:, 3000:] @ weights - noisy[:, 3000:] @ found) ** 2))

    seen, there = x[:, :24], noisy[:, :24]
    rows = OfRows(there, seen, products(there, there))
    loose = rows.ridge(weights, np.array([PULLS[0]]), np.arange(1))
    assert error(many) < 0.9 * error(weights)
    assert error(few) < error(loose)


@pytest.mark.parametrize(("groups", "rows", "taps"), [(1, 20, 30), (1, 30, 20), (4, 12, 9), (4, 9, 12), (1, 1, 5)])
def test_a_refit_of_rows_is_that_of_products(groups: int, rows: int, taps: int) -> None:
    """Solving the equations of the rows or those of the taps differs in time only."""
    signal = np.concatenate([correlated(rows, taps) for _ in range(groups)])
    device = signal + RNG.normal(0, 0.2, signal.shape).astype(np.float32)
    weights, pulls, chosen = RNG.normal(size=(groups, taps, 3)), RNG.uniform(0.1, 9, groups), np.arange(groups)[::-1]
    gram = products(device, device)
    forms = OfRows(device, signal, gram), OfProducts(gram, products(device, signal))
    found = [form.ridge(weights[chosen], pulls[chosen], chosen) for form in forms]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_too_few_samples_to_hold_some_out_are_not_fitted() -> None:
    weights, _ = layer(6, 2)
    x = correlated(50, 6)
    np.testing.assert_array_equal(Refit(x, 2 * x, np.repeat([0, 1], 25))(weights), weights)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, steps = layer(40, 3)
    x = correlated(500, 40)[0].astype(np.float64)
    factor = inverse_factor((x.T @ x + 5 * np.eye(40))[None])
    whole = gptq(weights, steps, neighbours(weights, steps), *factor)
    monkeypatch.setattr("builder.quantizing.gptq.BLOCK", 7)
    np.testing.assert_array_equal(gptq(weights, steps, neighbours(weights, steps), *factor), whole)


def test_the_bias_makes_the_mean_error_zero() -> None:
    weights, steps = layer(10, 4)
    signal = correlated(600, 10)
    device = signal + RNG.normal(0.1, 0.2, signal.shape).astype(np.float32)
    seen = Observed(signal, device, np.arange(600))
    integers = seen.fit(weights, steps)
    shift = seen.shift(weights, integers, steps)
    error = signal[0] @ weights[0] - (device[0] @ (integers * steps[:, None])[0] + shift)
    np.testing.assert_allclose(error.mean(0), 0, atol=1e-5)


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    weights, steps = layer(8, 3)
    x = correlated(300, 8)
    x[..., 2] = 0
    seen = Observed(x, x, np.arange(300))
    integers = seen.fit(weights, steps)
    assert np.isfinite(integers).all()
    assert np.isfinite(seen.shift(weights, integers, steps)).all()
    all_zero = Observed(np.zeros_like(x), np.zeros_like(x), np.arange(300)).fit(weights, steps)
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
        (patches,), owners = sample_patches("DEPTHWISE_CONV_2D", options, kernel.shape, [(x, 0.0)], 10**6)
        found = np.einsum("grt,gt->rg", patches, kernel.reshape(9, 4).T)
    else:
        kernel = RNG.normal(size=(5, 3, 3, 4)).astype(np.float32)
        expected = tf.nn.conv2d(x, kernel.transpose(1, 2, 3, 0), stride, name, dilations=dilation)
        (patches,), owners = sample_patches("CONV_2D", options, kernel.shape, [(x, 0.0)], 10**6)
        found = patches[0] @ kernel.reshape(5, -1).T
    np.testing.assert_allclose(found, np.asarray(expected).reshape(found.shape), atol=1e-4)
    np.testing.assert_array_equal(owners, np.repeat([0, 1], len(found) // 2))


def test_places_are_drawn_alike_in_both_views_and_no_more_than_asked_for() -> None:
    options = SimpleNamespace(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1, padding=0)
    x = RNG.normal(size=(3, 9, 9, 2)).astype(np.float32)
    (a, b), owners = sample_patches("CONV_2D", options, (1, 3, 3, 2), [(x, 0.0), (2 * x, 0.0)], 50)
    assert a.shape == (1, 50, 18)
    assert owners.shape == (50,)
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


@pytest.mark.parametrize("size", [1, 2, 5])
def test_elementwise_results_overwrite_what_nothing_reads_after_them(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else: not what was given, not what a view shows, not what is read later."""
    monkeypatch.setattr("builder.tflite.stepper.batch_of", lambda *_: size)
    wide, flat = [1, 2, 3], [1, 6]
    names = ["image", "x", "gate", "y", "seen", "minus", "its", "features"]
    shapes = [wide, wide, wide, wide, flat, wide, flat, flat]
    tensors = [plain_tensor(name, shape, np.float32) for name, shape in zip(names, shapes, strict=True)]
    part = Part("main", 0, tensors, [], {"image": 0}, {"features": 7}, [], [None])
    part.operators += [
        part.operator("TANH", [0], [1], None),
        part.operator("LOGISTIC", [1], [2], None),
        part.operator("MUL", [2, 1], [3], ("MulOptions", {})),
        part.operator("RESHAPE", [3], [4], ("ReshapeOptions", {"newShape": flat})),
        part.operator("NEG", [3], [5], None),
        part.operator("RESHAPE", [5], [6], ("ReshapeOptions", {"newShape": flat})),
        part.operator("SUB", [4, 6], [7], ("SubOptions", {})),
    ]
    image = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    given, stepper = image.copy(), Stepper(part, {0: image})
    x, gate = stepper.until(1), stepper.until(2)
    y, seen, minus = (stepper.until(i) for i in (3, 4, 5))
    swish = np.tanh(given) / (1 + np.exp(-np.tanh(given)))
    np.testing.assert_allclose(y, swish, atol=1e-6)
    np.testing.assert_allclose(stepper.until(7), 2 * swish.reshape(5, 6), atol=1e-6)
    np.testing.assert_array_equal(image, given)
    shared = [np.shares_memory(a, b) for a, b in ((image, x), (x, gate), (gate, y), (y, seen), (y, minus))]
    assert shared == [False, False, True, True, False]

    stepper = Stepper(part, {0: image})
    stepper.until(2)
    put = np.full_like(gate, 0.5)
    stepper.put(2, put)
    stepper.put(1, put)
    np.testing.assert_array_equal(stepper.until(3), 0.25)
    np.testing.assert_array_equal(put, 0.5)


class Late:
    """An executor that does its work where the result is asked for."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Late:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Any, *given: Any) -> Any:
        return SimpleNamespace(result=cache(lambda: work(*given)))


def test_noise_that_is_measured_late_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float an operator would otherwise overwrite what is still compared."""
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="swish")(image)
    x = keras.layers.Conv2D(8, 3, activation="swish")(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    seed_weights(model, 3)
    floating = float_model_of(model)
    made = quantize(floating, measure_ranges(floating, IMAGES, ["scores"]), "weights")
    at_once = round_parts(read_parts(floating), read_parts(made), IMAGES)
    monkeypatch.setattr("builder.quantizing.rounding.ThreadPoolExecutor", Late)
    late = round_parts(read_parts(floating), read_parts(made), IMAGES)
    assert len(late) > 6
    assert late == at_once


def operators(part: Part) -> list[tuple[Any, list[int]]]:
    """Each operator runs with the activations that it reads."""
    made = set(part.inputs.values()).union(*(op.outputs for op in part.operators))
    return [(op, [i for i in op.inputs if i in made]) for op in part.operators]


@pytest.mark.parametrize("precision", ["int8", "float"])
def test_a_batch_of_samples_is_the_samples_one_by_one(
    tiny: BuildResult, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for every operator, also if the batches do not divide the samples."""
    parts = read_parts(tiny.output.read_bytes() if precision == "int8" else float_model())
    wide = 0
    for part in parts.values():
        for op, reads in operators(part):
            values = [random_of(part.tensors[i], 7) for i in reads]
            for size in (3, 7):
                monkeypatch.setattr("builder.tflite.stepper.batch_of", lambda *_, n=size: min(n, batch_of(*_)))
                found = run_operator(part, op, values, reads)
                wide += batch_of(part, op, reads, 7) > 1
                monkeypatch.setattr("builder.tflite.stepper.batch_of", lambda *_: 1)
                for one, other in zip(found, run_operator(part, op, values, reads), strict=True):
                    np.testing.assert_allclose(one, other, rtol=0, atol=0 if precision == "int8" else 1e-5)
    assert wide > 10


def random_of(tensor: Any, samples: int) -> np.ndarray:
    shape, dtype = (samples, *tensor.shape[1:]), dtype_of(tensor)
    return RNG.normal(size=shape).astype(dtype) if dtype == np.float32 else RNG.integers(0, 100, shape).astype(dtype)


def float_model() -> bytes:
    part = Part("main", 0, [plain_tensor("x", [1, 4, 5], np.float32)], [], {"x": 0}, {}, [], [None])
    for kind, options in (("LOGISTIC", None), ("SOFTMAX", ("SoftmaxOptions", {"beta": 1.0}))):
        part.tensors.append(plain_tensor(kind, [1, 4, 5], np.float32))
        part.operators.append(part.operator(kind, [len(part.tensors) - 2], [len(part.tensors) - 1], options))
    for axis in (1, -1):
        part.tensors.append(plain_tensor(f"joined {axis}", [1, 8, 5] if axis == 1 else [1, 4, 10], np.float32))
        options = "ConcatenationOptions", {"axis": axis}
        part.operators.append(part.operator("CONCATENATION", [1, 2], [len(part.tensors) - 1], options))
    for axes, shape in (([1], [1, 5]), ([2], [1, 4])):
        part.tensors += [plain_tensor(f"axes {axes}", [1], np.int32), plain_tensor(f"mean {axes}", shape, np.float32)]
        part.set_constant(len(part.tensors) - 2, np.array(axes, np.int32))
        part.operators.append(part.operator("MEAN", [1, len(part.tensors) - 2], [len(part.tensors) - 1], MEAN_OPTIONS))
    part.tensors.append(plain_tensor("flat", [1, 20], np.float32))
    part.operators.append(
        part.operator("RESHAPE", [1], [len(part.tensors) - 1], ("ReshapeOptions", {"newShape": [1, 20]}))
    )
    part.outputs = {"y": len(part.tensors) - 1}
    return write_parts({"main": part})


MEAN_OPTIONS = "ReducerOptions", {"keepDims": False}


@pytest.mark.parametrize(
    "kind", ["CONCATENATION", "CONCATENATION from behind", "MEAN", "PAD", "TRANSPOSE", "one sample is a row"]
)
def test_what_may_mix_samples_is_given_them_one_by_one(kind: str) -> None:
    shape = [1, 4] if kind != "one sample is a row" else [4]
    part = Part("x", 0, [plain_tensor(name, shape, np.float32) for name in "abc"], [], {"a": 0, "b": 1}, {}, [], [None])
    part.tensors.append(plain_tensor("constant", [1] if kind == "MEAN" else [2, 2], np.int32))
    part.set_constant(3, np.zeros(1, np.int32) if kind == "MEAN" else np.array([[1, 0], [0, 0]], np.int32))
    op = {
        "CONCATENATION": lambda: part.operator("CONCATENATION", [0, 1], [2], ("ConcatenationOptions", {"axis": 0})),
        "CONCATENATION from behind": lambda: part.operator(
            "CONCATENATION", [0, 1], [2], ("ConcatenationOptions", {"axis": -2})
        ),
        "one sample is a row": lambda: part.operator("LOGISTIC", [0], [2]),
    }.get(kind, lambda: part.operator(kind, [0, 3], [2]))()
    reads = [i for i in op.inputs if i < 2]
    assert batch_of(part, op, reads, 8) == 1
    allowed = part.operator("LOGISTIC", [0], [2])
    assert batch_of(part, allowed, [0], 8) == (1 if kind == "one sample is a row" else 8)


def test_learnt_rounding_is_nearer_to_float_at_equal_size(tiny: BuildResult, tmp_path: Path) -> None:
    nearest = build(replace(tiny.report.config, rounding="nearest", output=tmp_path / "nearest.tflite"))
    assert tiny.quality.features_snr_db > nearest.quality.features_snr_db
    assert tiny.report.linked.backbone_bytes == nearest.report.linked.backbone_bytes
    assert not nearest.report.chosen.noise


def swish(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / (1 + np.exp(-values)))


@pytest.mark.parametrize("flat", [-8.0, -20.0])
def test_errors_where_a_swish_is_flat_do_not_move_the_bias(flat: float) -> None:
    truth = np.random.default_rng(4).uniform(-40, 4, (2, 800, 3))
    found = truth + np.where(truth < flat, 3.0, 0.0)
    assert np.all(np.mean(found - truth, axis=1) > 1)  # so much the mean would move it
    assert np.abs(shift_behind(truth, found, swish)).max() < 0.02


@pytest.mark.parametrize("error", [0.3, -0.7])
def test_a_constant_error_in_front_of_a_swish_is_taken_back(error: float) -> None:
    truth = np.random.default_rng(5).uniform(-12, 6, (2, 800, 3))
    np.testing.assert_allclose(shift_behind(truth, truth + error, swish), -error, atol=0.03)


def test_a_row_counts_by_its_slopes_and_never_less_than_a_little() -> None:
    """Where every output is flat too, so that the sum of all rows is never 0."""
    signal = np.stack([np.full((4, 1), value, np.float32) for value in (-40.0, 40.0)])
    device = signal + np.float32(0.1)
    found = _relevance(signal, device, np.ones((2, 1, 3)), np.zeros((2, 3)), swish)
    np.testing.assert_allclose(found, [[LEAST_RELEVANCE] * 4, [1 + LEAST_RELEVANCE] * 4], atol=1e-4)
    half = _relevance(signal, device, np.ones((2, 1, 3)), np.zeros((2, 3)), lambda values: values / 2)
    np.testing.assert_allclose(half, np.full((2, 4), 0.25 + LEAST_RELEVANCE), rtol=1e-3)  # the square of the slope


def test_rows_that_do_not_count_do_not_move_the_weights() -> None:
    """Half of the rows see another function on the device; with no relevance the fit is that of the others alone."""
    rng = np.random.default_rng(6)
    signal = rng.normal(size=(1, 800, 6)).astype(np.float32)
    device, lost = signal.copy(), np.arange(800) % 2 == 0
    device[:, lost] *= 0.5
    weights, owners = rng.normal(size=(1, 6, 4)), np.arange(800) // 10
    alike, told = (
        Observed(signal, device, owners, relevance)._refit(weights) for relevance in (None, (~lost + 1e-6)[None])
    )
    np.testing.assert_allclose(told, weights, atol=1e-3)
    assert np.abs(alike - weights).max() > 0.05


def test_an_operator_that_the_interpreter_refuses_is_named() -> None:
    floating = float_model_of(bottlenecks())
    part = read_parts(quantize(floating, measure_ranges(floating, IMAGES, ["scores"])))[BACKBONE]
    op = next(op for op in part.operators if operator_name(part, op) == "CONV_2D")
    part.tensors[op.outputs[0]].quantization.scale = [1e-12]
    with pytest.raises(ConversionError, match=r"^the interpreter refuses CONV_2D: "):
        run_operator(part, op, [np.zeros((2, *part.tensors[op.inputs[0]].shape[1:]), np.int8)], [op.inputs[0]])
