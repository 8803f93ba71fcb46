"""Operations that treat every pixel alike become part of the input scaling, and no others do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers, ops  # noqa: E402

from builder.reading.formats.stored import live_weights  # noqa: E402
from builder.reading.graph import INPUT, Graph, Ref, WeightPool  # noqa: E402
from builder.reading.keras_graph import read_graph  # noqa: E402
from builder.reading.layers import canonical_layers  # noqa: E402
from builder.reading.simplify import simplify  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING, PixelTransform  # noqa: E402

SIZE = 4
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
Step = Callable[[Any], Any]
STEPS: dict[str, Step] = {
    "scaled": lambda x: x / 127.5,
    "shifted": lambda x: x - 1.0,
    "from the other side": lambda x: 3.0 - x,
    "times": lambda x: 0.5 * x,
    "by channel": lambda x: x * ops.convert_to_tensor([1.0, 2.0, -3.0]) + ops.convert_to_tensor([0.5, 0.25, 0.125]),
    "rescaling": lambda x: layers.Rescaling(2.0, offset=-1.0)(x),
    "rescaling by channel": lambda x: layers.Rescaling([1.0, 2.0, 4.0], offset=[1.0, 2.0, 3.0])(x),
    "rescaling by arrays": lambda x: layers.Rescaling(np.array([1.0, 2.0, 4.0]), offset=np.ones(3))(x),
    "normalization": lambda x: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0])(x),
    "inverse": lambda x: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0], invert=True)(x),
    "cast": lambda x: ops.cast(x, "float32"),
    "swapped": lambda x: x[..., ::-1],
    "swapped by four": lambda x: x[:, :, :, ::-1],
    "flipped": lambda x: ops.flip(x, axis=-1),
    "taken": lambda x: ops.take(x, [1, 2, 0], axis=-1),
    "stacked": lambda x: ops.stack([x[..., 2], x[..., 0], x[..., -2]], axis=-1),
    "concatenated": lambda x: layers.Concatenate()([x[..., 1:], x[..., :1]]),
    "red thrice": lambda x: ops.stack([x[..., 0]] * 3, axis=-1),
    "augmented": lambda x: layers.RandomRotation(0.2)(layers.RandomFlip()(x)),
    "caffe": keras.applications.resnet50.preprocess_input,
    "torch": keras.applications.densenet.preprocess_input,
}
OTHER: dict[str, Step] = {
    "mirrored": lambda x: ops.flip(x, axis=2),
    "other axes": lambda x: ops.flip(x),
    "resized with a margin": lambda x: layers.Resizing(6, 3, pad_to_aspect_ratio=True)(x),
    "turned": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "cropped": lambda x: x[:, :, 1:, ::-1],
    "mixed": lambda x: x + x[..., ::-1],
    "squared": lambda x: x * x,
    "inverted": lambda x: 1.0 / x,
    "in integers": lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
    "along the rows": lambda x: x * ops.reshape(ops.arange(1.0, SIZE + 1), (SIZE, 1)),
    "a product from the left": lambda x: ops.matmul(np.eye(SIZE, dtype=np.float32), x),
    "a product for each row": lambda x: ops.matmul(x, np.ones((SIZE, 3, 3), np.float32)),
    "a product of what has no channels": lambda x: ops.expand_dims(
        ops.matmul(x[..., 0], np.eye(SIZE, dtype=np.float32)), 3
    ),
    "of rows": lambda x: layers.Normalization(axis=1, mean=[1.0] * SIZE, variance=[4.0] * SIZE)(x),
    "padded": lambda x: layers.ZeroPadding2D(1)(x),
    "stacked in front": lambda x: ops.stack([x[..., 0], x[..., 1], x[..., 2]], axis=1)[:, 0][..., None],
    "two ways": lambda x: layers.Concatenate()([x / 2.0, x]),
    "a channel less": lambda x: x[..., 1:],
}


def graph_of(steps: list[Step]) -> tuple[Any, Graph]:
    """A model of ``steps`` and a convolution, and its graph."""
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    for step in steps:
        x = step(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="first")(x))
    definition = keras.saving.serialize_keras_object(model)
    return model, read_graph(definition, live_weights(model), pool=WeightPool(), canonical=canonical_layers())


@pytest.mark.parametrize("seed", range(12))
def test_any_chain_of_them_is_the_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(list(STEPS), 3 if seed else len(STEPS), replace=False)]
    declared = list(PREPROCESSING.values())[seed % len(PREPROCESSING)]
    model, graph = graph_of([STEPS[name] for name in names])
    simple, transform = simplify(graph, declared)
    assert [node.layer for node in simple.nodes] == ["first"], names
    before = keras.Model(model.input, model.get_layer("first").input)
    expected = np.asarray(before(declared.apply(PIXELS), training=False))
    np.testing.assert_allclose(transform.apply(PIXELS), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", STEPS)
def test_each_step_alone_becomes_the_transform(name: str) -> None:
    model, graph = graph_of([STEPS[name]])
    simple, transform = simplify(graph, PixelTransform())
    assert [node.layer for node in simple.nodes] == ["first"]
    before = keras.Model(model.input, model.get_layer("first").input)
    expected = np.asarray(before(PIXELS, training=False))
    np.testing.assert_allclose(transform.apply(PIXELS), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_such_function_stays(name: str) -> None:
    _, graph = graph_of([STEPS["scaled"], OTHER[name]])
    simple, transform = simplify(graph, PixelTransform())
    assert simple.nodes[-1].layer == "first"
    assert len(simple.nodes) > 1
    assert transform.identity == PixelTransform().then(1 / 127.5, 0).identity  # what stands before it is taken in


@pytest.mark.parametrize("value", [{"class_name": "odd", "config": {}}, "2", None, True])
@pytest.mark.parametrize("key", ["scale", "offset"])
def test_numbers_that_cannot_be_read_leave_their_layer_where_it_is(key: str, value: Any) -> None:
    _, graph = graph_of([STEPS["rescaling"]])
    first, *others = graph.nodes
    changed = replace(first, definition={**first.definition, "config": {**first.config, key: value}})
    simple, transform = simplify(replace(graph, nodes=(changed, *others)), PixelTransform())
    assert len(simple.nodes) == 2
    assert transform == PixelTransform()


MOVING: dict[str, Step] = {
    "resized": lambda x: layers.Resizing(6, 3)(x),
    "resized otherwise": lambda x: layers.Resizing(3, 6, interpolation="bicubic", antialias=True)(x),
    "resized and cut": lambda x: layers.Resizing(6, 3, crop_to_aspect_ratio=True)(x),
    "middle": lambda x: layers.CenterCrop(2, 3)(x),
    "cut": lambda x: layers.Cropping2D(((1, 0), (0, 1)))(x),
    "magnified": lambda x: layers.UpSampling2D(2)(x),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("several", [False, True])
def test_what_moves_pixels_stays_and_what_scales_them_is_the_transform(seed: int, several: bool) -> None:
    """A Resizing in front or in the middle hides no scaling, and the whole is the same function of the pixels."""
    rng = np.random.default_rng(seed)
    moves = [str(name) for name in rng.choice(list(MOVING), 1 + several, replace=False)]
    steps = [MOVING[name] for name in moves] + [STEPS[str(name)] for name in rng.choice(list(STEPS), 2, replace=False)]
    model, graph = graph_of([steps[i] for i in rng.permutation(len(steps))])
    simple, transform = simplify(graph, PREPROCESSING["unit"])
    assert [node.layer for node in simple.nodes[:-1]] == [layer.name for layer in model.layers if moving(layer)]
    assert [list(node.inputs()) for node in simple.nodes] == [[Ref(i - 1, 0)] for i in range(len(simple.nodes))]
    x = transform.apply(PIXELS)
    for node in simple.nodes[:-1]:
        x = model.get_layer(node.layer)(x)
    expected = keras.Model(model.input, model.get_layer("first").input)(
        PREPROCESSING["unit"].apply(PIXELS), training=False
    )
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def moving(layer: Any) -> bool:
    return isinstance(layer, (layers.Resizing, layers.CenterCrop, layers.Cropping2D, layers.UpSampling2D))


def test_channels_that_were_moved_apart_are_not_one_picture() -> None:
    image = keras.Input((SIZE, SIZE, 3))
    halves = [layers.Resizing(3, 3)(image)[..., :2], layers.CenterCrop(3, 3)(image)[..., 2:]]
    x = layers.Conv2D(2, 1, name="first")(layers.Concatenate()(halves) / 2.0)
    definition = keras.saving.serialize_keras_object(keras.Model(image, x))
    model = keras.Model(image, x)
    graph = read_graph(definition, live_weights(model), pool=WeightPool(), canonical=canonical_layers())
    simple, transform = simplify(graph, PixelTransform())
    assert transform == PixelTransform()
    assert len(simple.nodes) == len(graph.nodes)


def test_a_model_that_returns_its_input_has_nothing_in_front() -> None:
    """It is refused later, in words."""
    nothing = Graph((), Ref(INPUT, 0))
    assert simplify(nothing, PREPROCESSING["tf"]) == (nothing, PREPROCESSING["tf"])


def test_a_model_that_is_nothing_else_keeps_a_layer() -> None:
    image = keras.Input((SIZE, SIZE, 3))
    definition = keras.saving.serialize_keras_object(keras.Model(image, layers.Rescaling(2.0)(image)))
    graph = read_graph(definition, {}, pool=WeightPool(), canonical=canonical_layers())
    assert len(simplify(graph, PixelTransform())[0].nodes) == 1


def test_one_transform_after_another_is_both() -> None:
    for first in PREPROCESSING.values():
        for other in (*PREPROCESSING.values(), PixelTransform((1.0, 2.0, 3.0), (0.5, 0.0, -1.0), (1, 2, 0))):
            found = first.followed_by(other).apply(PIXELS)
            np.testing.assert_allclose(found, other.apply(first.apply(PIXELS)), rtol=1e-4, atol=1e-3)
