"""An omitted input of an operator is no tensor: it is not taken for the last one, and the operator still counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers, ops  # noqa: E402

from builder.merging.convert import _convert, _frozen  # noqa: E402
from builder.quantizing.equalize import equalized  # noqa: E402
from builder.quantizing.learn_layer import Learning, Observed  # noqa: E402
from builder.quantizing.quantize import pin, quantize  # noqa: E402
from builder.quantizing.ranges import measure_ranges  # noqa: E402
from builder.quantizing.rounding import learn_rounding, round_parts  # noqa: E402
from builder.tflite.flatbuffer import NO_TENSOR, Part, operator_name, quantization, read_parts  # noqa: E402
from builder.tflite.parts import as_held, constant, is_constant  # noqa: E402
from builder.tflite.writer import write_parts  # noqa: E402
from edge_runtime.interpreter import find_interpreter  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

RNG = np.random.default_rng(0)


def converted(model: Any, shape: tuple[int, ...]) -> tuple[bytes, Part]:
    floating = _convert({"backbone": _frozen(model, {"image": shape}, ["features"])})
    return floating, read_parts(floating)["backbone"]


@pytest.fixture(scope="module")
def dense() -> tuple[bytes, np.ndarray]:
    """Three dense layers, of which the middle one has a bias."""
    x = image = keras.Input((32,), batch_size=1, name="image")
    for units, bias in ((48, False), (24, True), (16, False)):
        x = layers.Dense(units, use_bias=bias, activation="relu" if units > 16 else None)(x)
    model = keras.Model(image, x)
    seed_weights(model, 1)
    return converted(model, (32,))[0], RNG.normal(size=(64, 32)).astype(np.float32)


def kernels(part: Part) -> list[np.ndarray]:
    found = [
        constant(part, op.inputs[1], np.int8) for op in part.operators if operator_name(part, op) == "FULLY_CONNECTED"
    ]
    return [values.copy() for values in found if values is not None]


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_layers_without_a_bias_are_rounded_as_others_are(dense: tuple[bytes, np.ndarray], precision: str) -> None:
    floating, inputs = dense
    parts = read_parts(quantize(floating, measure_ranges(floating, inputs, []), precision))
    assert any(NO_TENSOR in list(op.inputs) or len(op.inputs) == 2 for op in parts["backbone"].operators)
    before, untouched = kernels(parts["backbone"]), set(map(id, parts["backbone"].buffers))
    round_parts(read_parts(floating), parts, inputs, learning=Learning())
    after = kernels(parts["backbone"])
    assert len(before) == 3
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    new = [buffer for buffer in parts["backbone"].buffers if id(buffer) not in untouched]
    assert len(new) == 4  # three kernels, and the one bias that there is


def test_a_kernel_that_two_layers_share_is_rounded_for_neither_alone() -> None:
    """Rounding for the inputs of one call of a layer does not suit those of another."""
    image = keras.Input((32,), batch_size=1, name="image")
    twice, once = layers.Dense(32, activation="relu"), layers.Dense(16)
    model = keras.Model(image, once(twice(twice(image))))
    seed_weights(model, 1)
    floating = converted(model, (32,))[0]
    inputs = RNG.normal(size=(64, 32)).astype(np.float32)
    parts = read_parts(quantize(floating, measure_ranges(floating, inputs, []), "int8"))
    read = [
        op.inputs[1] for op in parts["backbone"].operators if operator_name(parts["backbone"], op) == "FULLY_CONNECTED"
    ]
    before = kernels(parts["backbone"])
    round_parts(read_parts(floating), parts, inputs, learning=Learning())
    moved = [(a != b).any() for a, b in zip(before, kernels(parts["backbone"]), strict=True)]
    assert read[0] == read[1]
    assert moved == [False, False, True]


@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D", "Dense"])
def test_what_was_observed_for_one_head_is_right_for_the_next(kind: str) -> None:
    """Dense layers of one input see the same rows; windows of other sizes do not."""
    shape = (12,) if kind == "Dense" else (6, 6, 4)
    inputs = RNG.normal(size=(40, *shape)).astype(np.float32)
    observed: dict[tuple[str, str], Observed] = {}
    for size in (1, 3, 5):
        image = keras.Input(shape, batch_size=1, name="image")
        one = {"Dense": layers.Dense, "Conv2D": lambda n: layers.Conv2D(3, n)}.get(kind, layers.DepthwiseConv2D)
        model = keras.Model(image, one(size)(image))
        seed_weights(model, size)
        floating, float_part = converted(model, shape)
        small = quantize(floating, measure_ranges(floating, inputs, []), "int8")
        alone, after = (read_parts(small)["backbone"] for _ in range(2))
        held = as_held(alone.tensors[alone.inputs["image"]], inputs)
        for part, known in ((alone, {}), (after, observed)):
            learn_rounding(float_part, part, {"image": inputs}, {"image": held}, known, learning=Learning())
        assert [b if b is None else bytes(b) for b in after.buffers] == [
            b if b is None else bytes(b) for b in alone.buffers
        ]
    assert list(observed) == ([("FULLY_CONNECTED", "image")] if kind == "Dense" else [])


@pytest.mark.parametrize("precision", ["int8", "int16", "weights"])
def test_the_bias_makes_the_mean_of_the_answers_that_of_the_float_network(precision: str) -> None:
    """The bias may be int32, int64 or float; the mean of the inputs is not 0."""
    image = keras.Input((32,), batch_size=1, name="image")
    model = keras.Model(image, layers.Dense(16)(layers.Dense(24, activation="relu")(image)))
    seed_weights(model, 1)
    floating = converted(model, (32,))[0]
    inputs = RNG.uniform(1, 3, size=(64, 32)).astype(np.float32)
    small = quantize(floating, measure_ranges(floating, inputs, []), precision)
    parts = read_parts(small)
    round_parts(read_parts(floating), parts, inputs, learning=Learning())
    truth, nearest, learnt = (means(file, inputs) for file in (floating, small, write_parts(parts)))
    assert np.abs(learnt - truth).mean() < 0.5 * np.abs(nearest - truth).mean()


def means(file: bytes, inputs: np.ndarray) -> np.ndarray:
    """The mean of each feature over the inputs."""
    interpreter = find_interpreter("ai_edge_litert")[1](model_content=file)
    runner = interpreter.get_signature_runner("backbone")
    given, found = runner.get_input_details()["image"], runner.get_output_details()["features"]
    answers = []
    for x in inputs:
        (scale, zero), value = given["quantization"], x[None]
        if scale:
            limits = np.iinfo(given["dtype"])
            value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(given["dtype"])
        answers.append(runner(image=value)["features"].astype(np.float64))
    scale, zero = found["quantization"]
    result: np.ndarray = np.concatenate(answers).mean(0)
    return result if not scale else (result - zero) * scale


def test_what_is_left_out_is_no_constant(dense: tuple[bytes, np.ndarray]) -> None:
    part = read_parts(dense[0])["backbone"]
    assert not is_constant(part, NO_TENSOR)
    assert constant(part, NO_TENSOR, np.float32) is None


def test_equalization_keeps_the_function_of_layers_without_a_bias(dense: tuple[bytes, np.ndarray]) -> None:
    floating, inputs = dense
    _, factory = find_interpreter("ai_edge_litert")
    answers = []
    for model in (floating, equalized(floating, inputs)):
        runner = factory(model_content=model).get_signature_runner("backbone")
        answers.append(np.concatenate([runner(image=x[None])["features"].copy() for x in inputs[:8]]))
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_outputs_that_nobody_reads_have_the_type_of_the_others(precision: str) -> None:
    image = keras.Input((8, 8, 4), batch_size=1, name="image")
    one, _ = ops.split(layers.Conv2D(8, 3)(image), 2, axis=-1)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(one))
    floating, _ = converted(model, (8, 8, 4))
    inputs = RNG.normal(size=(4, 8, 8, 4)).astype(np.float32)
    small = quantize(floating, measure_ranges(floating, inputs, []), precision)
    part = read_parts(small)["backbone"]
    several = [[part.tensors[i].type for i in op.outputs] for op in part.operators if len(op.outputs) > 1]
    assert several
    assert all(len(set(types)) == 1 for types in several)
    noise = round_parts(read_parts(floating), read_parts(small), inputs, learning=Learning())
    one_output = [operator_name(part, op) for op in part.operators if len(op.outputs) == 1]
    assert [layer.kind for layer in noise] == one_output  # what has several is not measured


@pytest.mark.parametrize("precision", ["int8", "int16"])
@pytest.mark.parametrize("end", ["softmax", "sigmoid", "tanh", "relu"])
def test_heads_read_what_the_backbone_gives_whatever_its_last_operator_makes_of_its_range(
    end: str, precision: str
) -> None:
    """A softmax has a scale of its own; a seam behind it is read with that, not with one from the values seen."""
    image, features = keras.Input((8,), batch_size=1, name="image"), keras.Input((4,), batch_size=1, name="features")
    floating = _convert(
        {
            "backbone": _frozen(
                keras.Model(image, layers.Dense(4, activation=end)(image)), {"image": (8,)}, ["features"]
            ),
            "one": _frozen(keras.Model(features, layers.Dense(3)(features)), {"features": (4,)}, ["scores"]),
        }
    )
    inputs = RNG.normal(size=(16, 8)).astype(np.float32)
    ranges = pin(floating, measure_ranges(floating, inputs, ["one"]), None)
    parts = read_parts(quantize(floating, ranges, precision))
    backbone, head = parts["backbone"], parts["one"]
    given = quantization(backbone.tensors[backbone.outputs["features"]])
    assert quantization(head.tensors[head.inputs["features"]]) == given
    if precision == "int8" and end in ("softmax", "sigmoid", "tanh"):
        assert given.scale == (1 / 128 if end == "tanh" else 1 / 256)
