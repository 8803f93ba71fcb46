"""Sums of an int8 layer stay within int32, however small its weights and however large its biases are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing.accumulators import LAYERS, ROOM, fit_accumulators
from builder.quantizing.learn_layer import Learning
from builder.quantizing.quantize import pin, quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.rounding import round_parts
from builder.tflite.flatbuffer import Part, operator_name, quantization, read_parts, tensor_name
from builder.tflite.parts import as_held, constant
from builder.tflite.stepper import Stepper
from edge_runtime.metadata import BACKBONE
from tests.test_equalize import IMAGES, float_model_of

SIZES = (1.0, 1e-2, 1e-5, 1e-7, 1e-9, 0.0)  # of the weights of a channel; of ordinary ones nothing may change


def convolution() -> Any:
    return layers.Conv2D(len(SIZES), 3, padding="same", activation="relu6")


def depthwise() -> Any:
    return layers.DepthwiseConv2D(3, padding="same")


@pytest.fixture(scope="module", params=["convolution", "depthwise", "dense"])
def model(request: pytest.FixtureRequest) -> bytes:
    """A layer whose channels have weights of all sizes, its biases from -4 to 4."""
    rng = np.random.default_rng(4)
    image = keras.Input(IMAGES.shape[1:])
    z = layers.Conv2D(len(SIZES), 1, activation="relu6")(image)
    layer = {"convolution": convolution, "depthwise": depthwise, "dense": lambda: layers.Dense(len(SIZES))}[
        request.param
    ]()
    z = layers.GlobalAveragePooling2D()(z) if request.param == "dense" else z
    z = layer(z)
    whole = keras.Model(image, z if request.param == "dense" else layers.GlobalAveragePooling2D()(z))
    kernel = rng.normal(size=layer.weights[0].shape)
    sizes = np.reshape(SIZES, (-1, 1) if request.param == "depthwise" else (-1,))
    layer.set_weights([kernel * sizes, np.linspace(-4, 4, len(SIZES))])
    return float_model_of(whole)


def layer_and_bias(part: Part) -> tuple[Any, np.ndarray]:
    """The last layer of a part, and its bias."""
    op = [op for op in part.operators if operator_name(part, op) in LAYERS][-1]
    bias = constant(part, op.inputs[2], np.int32)
    assert bias is not None
    return op, bias


def answers_of(part: Part) -> np.ndarray:
    """The answers to ``IMAGES``, in float."""
    (source,), (result,) = part.inputs.values(), part.outputs.values()
    held = as_held(part.tensors[source], IMAGES)
    found: np.ndarray = quantization(part.tensors[result]).dequantize(Stepper(part, {source: held}).until(result))
    return found


@pytest.mark.parametrize("learnt", [False, True])
def test_channels_without_weights_to_speak_of_give_their_bias(model: bytes, *, learnt: bool) -> None:
    ranges = pin(model, measure_ranges(model, IMAGES, ["scores"]), None)
    floating, parts = read_parts(model), read_parts(quantize(model, ranges))
    if learnt:
        round_parts(floating, parts, IMAGES, learning=Learning())
    part = parts[BACKBONE]
    _, bias = layer_and_bias(part)
    assert np.abs(bias.astype(np.int64)).max() <= ROOM * 1.01
    answers = [answers_of(one) for one in (floating[BACKBONE], part)]
    steps = quantization(part.tensors[next(iter(part.outputs.values()))]).scale
    dead = [i for i, size in enumerate(SIZES) if size <= 1e-5]
    np.testing.assert_allclose(answers[1][..., dead], answers[0][..., dead], atol=3 * steps)


def test_scales_that_are_large_enough_stay(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = pin(model, measure_ranges(model, IMAGES, ["scores"]), None)
    found = read_parts(quantize(model, ranges))[BACKBONE]
    monkeypatch.setattr("builder.quantizing.quantize.fit_accumulators", lambda *_: False)
    before = read_parts(quantize(model, ranges))[BACKBONE]
    scales = [np.asarray(p.tensors[layer_and_bias(p)[0].inputs[1]].quantization.scale) for p in (found, before)]
    if len(scales[0]) > 1:
        assert np.array_equal(scales[0][:2], scales[1][:2])
        assert (scales[0] >= scales[1]).all() and (scales[0] > scales[1]).any()


@pytest.mark.parametrize("precision", ["int16", "dynamic", "weights"])
def test_biases_that_are_no_int32_are_left_alone(model: bytes, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = pin(model, measure_ranges(model, IMAGES, ["scores"]), None)
    found = quantize(model, ranges, precision)
    monkeypatch.setattr("builder.quantizing.quantize.fit_accumulators", lambda *_: False)
    assert found == quantize(model, ranges, precision)


def test_a_layer_of_which_something_is_not_known_is_left_alone(model: bytes) -> None:
    """Its weights may be computed, or its output may have another name."""
    ranges = pin(model, measure_ranges(model, IMAGES, ["scores"]), None)
    for unknown in (1, 2, "stored", "name"):
        floating, part = read_parts(model)[BACKBONE], read_parts(quantize(model, ranges))[BACKBONE]
        op, _ = layer_and_bias(part)
        (theirs,) = [o for o in floating.operators if names_of(floating, o) == names_of(part, op)]
        if unknown == "name":
            floating.tensors[theirs.outputs[0]].name = b"another"
        else:
            where, index = (part, op.inputs[2]) if unknown == "stored" else (floating, theirs.inputs[unknown])
            where.buffers[where.tensors[index].buffer] = None
        part.tensors[op.inputs[1]].quantization.scale = [1e-12] * len(SIZES)  # which would want to be raised
        assert not fit_accumulators({BACKBONE: floating}, {BACKBONE: part}), unknown


def names_of(part: Part, op: Any) -> list[str]:
    return [tensor_name(part.tensors[i]) for i in op.outputs]


@pytest.mark.parametrize("between", ["pooled", "scaled"])
def test_a_layer_called_twice_gives_its_bias_both_times(between: str) -> None:
    """Inputs of two scales: one kernel with two biases, or, where a factor is folded in, two kernels of one bias."""
    image = keras.Input(IMAGES.shape[1:])
    z = layers.Conv2D(len(SIZES), 1, activation="relu")(image)
    small = layers.Rescaling(0.01)(z) if between == "scaled" else layers.Softmax()(z)
    shared = layers.Conv2D(len(SIZES), 3, padding="same")
    each = [layers.GlobalAveragePooling2D()(shared(x)) for x in (z, small)]
    kernel = np.random.default_rng(4).normal(size=shared.weights[0].shape)
    shared.set_weights([kernel * SIZES, np.linspace(-4, 4, len(SIZES))])
    model = float_model_of(keras.Model(image, layers.Concatenate()(each)))
    ranges = pin(model, measure_ranges(model, IMAGES, ["scores"]), None)
    floating, part = read_parts(model)[BACKBONE], read_parts(quantize(model, ranges))[BACKBONE]
    steps = quantization(part.tensors[next(iter(part.outputs.values()))]).scale
    dead = [i for i, size in enumerate(SIZES * 2) if size <= 1e-5]
    exact, found = (answers_of(one)[..., dead] for one in (floating, part))
    np.testing.assert_allclose(found, exact, atol=3 * steps)
