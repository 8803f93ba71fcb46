"""Layers that give nothing, or next to nothing, run in int8 and change no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from builder.quantizing.quantize import quantize
from builder.quantizing.ranges import measure_ranges
from builder.tflite.flatbuffer import read_parts
from builder.tflite.parts import as_held, dequantized
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE
from tests.test_equalize import IMAGES, float_model_of
from tests.tiny_models import seed_weights

# What of a little tensor ``y``, made from ``x``, and ``x`` follows; the shape is that of ``x``.
BEHIND: dict[str, Callable[[Any, Any], Any]] = {
    "a convolution": lambda x, y: layers.Conv2D(12, 1)(y),
    "a depthwise one": lambda x, y: layers.DepthwiseConv2D(3, padding="same")(y),
    "a sum": lambda x, y: layers.Add()([x, y]),
    "a sum, the other way": lambda x, y: layers.Add()([y, x]),
    "a difference": lambda x, y: layers.Subtract()([y, x]),
    "a sum that cancels": lambda x, y: layers.Add()([x, -1.0 * x]),
    "a difference that cancels": lambda x, y: layers.Subtract()([1.0 * x, x]),
    "a product that is 0": lambda x, y: layers.Multiply()([layers.ReLU()(x - 1.0), layers.ReLU()(1.0 - x)]),
    "a product": lambda x, y: layers.Multiply()([x, y]),
    "a square": lambda x, y: layers.Multiply()([y, y]),
    "a sigmoid": lambda x, y: layers.Activation("sigmoid")(y),
    "a tanh": lambda x, y: layers.Activation("tanh")(y),
    "a swish": lambda x, y: layers.Activation("silu")(y),
    "a hard swish": lambda x, y: layers.Activation("hard_silu")(y),
    "a leaky relu": lambda x, y: layers.LeakyReLU(0.1)(y),
    "a concatenation": lambda x, y: layers.Concatenate()([x, y]),
    "pools": lambda x, y: layers.MaxPooling2D(2)(layers.AveragePooling2D(2)(y)),
    "padding": lambda x, y: layers.Conv2D(12, 3)(layers.ZeroPadding2D()(y)),
    "resizing": lambda x, y: layers.UpSampling2D(2, interpolation="bilinear")(y),
    "a hard swish below -3": lambda x, y: layers.Activation("hard_silu")(-10 * x - 10 + y),
    "a mean that cancels": lambda x, y: layers.GlobalAveragePooling2D(keepdims=True)(
        layers.Concatenate(1)([x, -1.0 * x])
    ),
    "a mean": lambda x, y: layers.GlobalAveragePooling2D(keepdims=True)(y),
    "nothing": lambda x, y: y,
}


def model_with(most: float) -> bytes:
    """All of ``BEHIND`` behind a layer that gives at most ``most``."""
    image = keras.Input(IMAGES.shape[1:])
    x = layers.Conv2D(12, 3, strides=2, activation="relu6", name="first")(image)
    little = layers.Conv2D(12, 1, name="little")
    y = little(x)
    found = [layers.Conv2D(5, 1)(behind(x, layers.ReLU()(y))) for behind in BEHIND.values()]
    model = keras.Model(image, layers.Concatenate()([layers.GlobalAveragePooling2D()(z) for z in found]))
    seed_weights(model, 5)
    kernel, bias = little.get_weights()
    given = np.asarray(keras.Model(image, y)(IMAGES)).max((0, 1, 2))
    little.set_weights([kernel, bias - given + most])
    return float_model_of(model)


def answers(model: bytes) -> np.ndarray:
    """The features of ``IMAGES`` in float, by the interpreter as a device has it."""
    _, factory = find_interpreter("ai_edge_litert")
    runner, part = factory(model_content=model, num_threads=1).get_signature_runner(BACKBONE), read_parts(model)[BACKBONE]
    (source,), (result,) = part.inputs.values(), part.outputs.values()
    found = [runner(image=as_held(part.tensors[source], image[None]))["features"] for image in IMAGES]
    return dequantized(part, result, np.concatenate(found))


@pytest.mark.parametrize("most", [1.0, 1e-6, 0.0, -1.0])
def test_a_layer_that_gives_next_to_nothing(most: float) -> None:
    floating = model_with(most)
    made = quantize(floating, measure_ranges(floating, IMAGES, ["scores"]))
    wanted = answers(floating)
    wrong = np.abs(answers(made) - wanted).reshape(len(IMAGES), len(BEHIND), -1).max((0, 2))
    sizes = np.abs(wanted).reshape(len(IMAGES), len(BEHIND), -1).max((0, 2))
    assert (wrong < 0.03 * sizes + 0.005 * sizes.max()).all()
