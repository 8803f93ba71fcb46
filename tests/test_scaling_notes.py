"""Pixels are scaled once: a build warns of a preprocessing that is done twice or only half."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers, ops  # noqa: E402

from builder.reading.formats.stored import live_weights  # noqa: E402
from builder.reading.graph import Graph, WeightPool  # noqa: E402
from builder.reading.keras_graph import read_graph  # noqa: E402
from builder.reading.layers import canonical_layers  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.reading.picture_input import PictureSourceInput  # noqa: E402
from builder.reading.scaling_notes import scales_pixels, scaling_notes  # noqa: E402
from builder.reading.simplify import simplify  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING, PixelTransform  # noqa: E402
from builder.support.errors import ConfigError  # noqa: E402
from builder.support.naming import as_options  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

SIZE = 8
WEIGHTS = np.array([0.3, 0.6, 0.1], np.float32)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Step = Callable[[Any], Any]
# Each brings pixels 0..255 to what networks are trained on.
WHOLE: dict[str, Step] = {
    "rescaling to 0..1": lambda x: layers.Rescaling(1 / 255)(x),
    "rescaling to -1..1": lambda x: layers.Rescaling(1 / 127.5, offset=-1)(x),
    "rescaling by other numbers": lambda x: layers.Rescaling(1 / 128, offset=-0.99)(x),
    "operations": lambda x: x / 127.5 - 1.0,
    "torch in operations": keras.applications.densenet.preprocess_input,
    "caffe in operations": keras.applications.resnet50.preprocess_input,
    "normalization of pixels": lambda x: layers.Normalization(mean=255 * MEAN, variance=(255 * DEVIATION) ** 2)(x),
    "normalization of these pictures": lambda x: layers.Normalization(mean=[117.0, 101, 99], variance=[3900.0] * 3)(x),
    "as EfficientNet": lambda x: layers.Rescaling(1 / DEVIATION**0.5)(
        layers.Normalization(mean=MEAN, variance=DEVIATION**2)(layers.Rescaling(1 / 255)(x))
    ),
}
# Each is the second part of one, of pixels 0..1.
HALF: dict[str, Step] = {
    "rescaling of 0..1": lambda x: layers.Rescaling(2.0, offset=-1.0)(x),
    "operations of 0..1": lambda x: (x - 0.5) * 2.0,
    "normalization of 0..1": lambda x: layers.Normalization(mean=MEAN, variance=DEVIATION**2)(x),
}
PLACES: dict[str, Callable[[Step], list[Step]]] = {
    "alone": lambda step: [step],
    "before Resizing": lambda step: [step, lambda x: layers.Resizing(6, 6)(x)],
    "behind Resizing": lambda step: [lambda x: layers.Resizing(6, 6)(x), step],
    "behind Resizing with a margin": lambda step: [lambda x: layers.Resizing(6, 9, pad_to_aspect_ratio=True)(x), step],
    "behind a crop": lambda step: [lambda x: layers.CenterCrop(6, 6)(x), step],
    "behind padding": lambda step: [lambda x: layers.ZeroPadding2D(1)(x), step],
    "behind padding as an operation": lambda step: [lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), step],
    "behind a turn": lambda step: [lambda x: ops.transpose(x, (0, 2, 1, 3)), step],
    "behind pooling": lambda step: [lambda x: layers.AveragePooling2D(2)(x), step],
    "behind augmentation": lambda step: [lambda x: layers.RandomFlip()(x), step],
}
# Values stay those of pixels, or all but.
HARDLY_CHANGED: dict[str, Step] = {
    "behind a crop that stays at inference": lambda x: layers.RandomCrop(6, 6)(x),
    "behind clipping": lambda x: ops.clip(x, 0, 255),
    "behind clipping from both sides": lambda x: ops.minimum(ops.maximum(x, 0.0), 255.0),
    "behind rounding": lambda x: ops.round(x),
    "behind reshaping": lambda x: layers.Reshape((SIZE * 2, SIZE // 2, 3))(x),
    "behind repeating": lambda x: ops.repeat(x, 2, axis=1),
    "behind rolling": lambda x: ops.roll(x, 2, axis=1),
    "as half precision": lambda x: ops.cast(x, "float16"),
}
# Grey pictures, made inside.
GREY: dict[str, Step] = {
    "by Keras": lambda x: ops.image.rgb_to_grayscale(x),
    "as a mean": lambda x: ops.mean(x, axis=-1, keepdims=True),
    "as a mean without its axis": lambda x: ops.expand_dims(ops.mean(x, axis=-1), axis=-1),
    "of weights": lambda x: ops.sum(x * WEIGHTS, axis=-1, keepdims=True),
    "of a product": lambda x: ops.matmul(x, WEIGHTS[:, None]),
    "of a product without its axis": lambda x: ops.expand_dims(ops.tensordot(x, WEIGHTS, axes=1), axis=3),
    "of green alone": lambda x: x[..., 1:2],
    "of green without its axis": lambda x: ops.expand_dims(x[..., 1], axis=3),
    "three times": lambda x: layers.Concatenate()([ops.image.rgb_to_grayscale(x)] * 3),
    "three times, of green": lambda x: ops.stack([x[..., 1]] * 3, axis=-1),
}
AS_UNIT, AS_TF = (WHOLE[f"rescaling to {words}"] for words in ("0..1", "-1..1"))
# Networks with several branches, each of which scales pixels itself.
BRANCHES: dict[str, list[list[Step]]] = {
    "alike": [[AS_UNIT], [AS_UNIT]],
    "each its own way": [[AS_UNIT], [AS_TF]],
    "behind padding": [[lambda x: layers.ZeroPadding2D(1)(x), AS_UNIT], [lambda x: layers.ZeroPadding2D(1)(x), AS_TF]],
    "one of them grey": [[AS_UNIT], [GREY["by Keras"], AS_TF]],
    "by normalization": [[WHOLE["normalization of pixels"]], [WHOLE["as EfficientNet"]]],
}


def joined(branches: list[list[Step]], *, convolved: bool = True) -> Step:
    def step(x: Any) -> Any:
        ends = [functools.reduce(lambda y, one: one(y), steps, x) for steps in branches]
        return layers.Concatenate()([layers.Conv2D(2, 1)(end) if convolved else end for end in ends])

    return step


def network(steps: list[Step]) -> Graph:
    """A model of these steps and a convolution, as it is read."""
    image = x = keras.Input((SIZE, SIZE, 3))
    for step in steps:
        x = step(x)
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    definition = keras.saving.serialize_keras_object(model)
    return read_graph(definition, live_weights(model), pool=WeightPool(), canonical=canonical_layers())


def notes(graph: Graph, outside: str | None) -> tuple[str, ...]:
    declared = PREPROCESSING[outside or "raw"]
    simple, pixels = simplify(graph, declared)
    settled = outside is not None or scales_pixels(simple, pixels)
    return scaling_notes("h", PictureSourceInput((SIZE, SIZE), pixels, declared, settled=settled), simple)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("inside", WHOLE)
def test_a_preprocessing_inside_is_enough_and_one_outside_too_many(inside: str, place: str) -> None:
    graph = network(PLACES[place](WHOLE[inside]))
    assert notes(graph, None) == notes(graph, "raw") == ()
    for outside in ("unit", "tf", "torch", "caffe"):
        # what subtracts means of pixels in front of a division by 255 might be meant, and is told all the same
        (told,) = notes(graph, outside)
        assert "done twice" in told and 'preprocessing = "raw"' in told, outside


@pytest.mark.parametrize("inside", ["operations", "normalization of pixels"])
@pytest.mark.parametrize("before", HARDLY_CHANGED)
def test_one_inside_is_seen_behind_what_hardly_changes_pixels(before: str, inside: str) -> None:
    graph = network([HARDLY_CHANGED[before], WHOLE[inside]])
    assert notes(graph, None) == ()
    (told,) = notes(graph, "tf")
    assert "done twice" in told


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("inside", HALF)
def test_half_of_one_inside_wants_the_other_outside(inside: str, place: str) -> None:
    graph = network(PLACES[place](HALF[inside]))
    assert notes(graph, "unit") == ()
    assert notes(graph, "raw") == ()  # the user has the last word


@pytest.mark.parametrize("inside", HALF)
def test_half_of_one_alone_is_told(inside: str) -> None:
    (told,) = notes(network([HALF[inside]]), None)
    assert "second part" in told and 'preprocessing = "unit"' in told


@pytest.mark.parametrize("inside", ["rescaling to 0..1", "operations", "normalization of these pictures"])
@pytest.mark.parametrize("grey", GREY)
def test_a_preprocessing_of_grey_pictures_made_inside_is_seen(grey: str, inside: str) -> None:
    whole = (
        WHOLE[inside] if "normalization" not in inside else lambda x: layers.Normalization(mean=109.0, variance=3900.0)(x)
    )
    for steps in ([GREY[grey], whole], [whole, GREY[grey]], [layers.ZeroPadding2D(1), GREY[grey], whole]):
        graph = network(steps)
        assert notes(graph, None) == notes(graph, "raw") == ()
        (told,) = notes(graph, "tf")
        assert "done twice" in told
    (told,) = notes(network([GREY[grey], HALF["operations of 0..1"]]), None)
    assert "second part" in told


@pytest.mark.parametrize("inside", ["rescaling to 0..1", "operations"])
def test_a_preprocessing_is_seen_in_front_of_what_makes_nothing_of_grey(inside: str) -> None:
    """The differences of colours are 0 for every grey pixel."""
    differences = np.array([[1, 0], [-1, 1], [0, -1]], np.float32)
    graph = network([layers.ZeroPadding2D(1), WHOLE[inside], lambda x: ops.matmul(x, differences)])
    assert notes(graph, None) == notes(graph, "raw") == ()
    (told,) = notes(graph, "tf")
    assert "done twice" in told


@pytest.mark.parametrize("branches", BRANCHES)
def test_branches_that_each_scale_pixels_scale_them_all(branches: str) -> None:
    for convolved in {True, branches == "one of them grey"}:
        graph = network([joined(BRANCHES[branches], convolved=convolved)])
        assert notes(graph, None) == notes(graph, "raw") == ()
        (told,) = notes(graph, "tf")
        assert "done twice" in told


NOT_SCALED: dict[str, list[Step]] = {
    "nothing": [],
    "one branch of two": [joined([[AS_UNIT], []])],
    "one branch of two, the other grey": [joined([[AS_UNIT], [GREY["by Keras"]]])],
    "colour beside grey": [joined([[], [GREY["of weights"]]], convolved=False)],
    "half a branch": [joined([[AS_UNIT], [HALF["operations of 0..1"]]])],
    "colours in another order": [lambda x: x[..., ::-1]],
    "a difference of colours": [lambda x: x[..., :1] - x[..., 1:2]],
    "a product of other channels": [lambda x: ops.matmul(ops.transpose(x, (0, 3, 1, 2)), np.ones((SIZE, 1), np.float32))],
    **{f"grey {how}": [step] for how, step in GREY.items()},
}


@pytest.mark.parametrize("steps", NOT_SCALED)
def test_pixels_that_no_layer_scales_are_asked_for_in_true_words(tmp_path: Path, steps: str) -> None:
    x = image = keras.Input((SIZE, SIZE, 3))
    for step in NOT_SCALED[steps]:
        x = step(x)
    end = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(x)))
    keras.Model(image, end).save(tmp_path / "h.keras")
    expected = "no layer was found in it that scales all pixels 0..255; add preprocessing"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_classifiers([HeadConfig("h", tmp_path / "h.keras", ("a", "b", "c"), None)])
    for outside in ("unit", "tf"):
        (classifier,) = load_classifiers([HeadConfig("h", tmp_path / "h.keras", ("a", "b", "c"), PREPROCESSING[outside])])
        assert classifier.notes == ()


def test_a_model_that_scales_nothing_is_told_nothing() -> None:
    for steps in ([], [lambda x: layers.ZeroPadding2D(1)(x)], [lambda x: layers.Resizing(6, 6)(x)]):
        graph = network(steps)
        assert {outside: notes(graph, outside) for outside in (None, *PREPROCESSING) if notes(graph, outside)} == {}
        for declared in (PixelTransform().then(0.01, -1), PixelTransform().then(2, [3, 4, 5])):  # numbers of their own
            assert scaling_notes("h", PictureSourceInput((SIZE, SIZE), declared, declared), graph) == ()


@pytest.mark.parametrize(
    ("outside", "step"),
    [
        ("caffe", lambda x: layers.Rescaling(1 / 127.5)(x)),
        ("tf", lambda x: layers.Rescaling(0.5, offset=0.5)(x)),
        ("tf", lambda x: layers.Normalization(mean=[-0.1, -0.2, -0.2], variance=[0.3, 0.3, 0.3])(x)),
        ("unit", lambda x: layers.Rescaling(255.0)(x)),
        ("torch", lambda x: layers.Normalization(mean=[0.1, 0.1, 0.2], variance=[1.1, 1.2, 0.9])(x)),
    ],
)
def test_what_goes_together_is_told_nothing(outside: str, step: Step) -> None:
    assert notes(network([step]), outside) == ()


def test_what_follows_a_transform_in_a_whole() -> None:
    for first in PREPROCESSING.values():
        for other in (*PREPROCESSING.values(), PixelTransform((1.0, 2.0, 3.0), (0.5, 0.0, -1.0), (1, 2, 0))):
            assert first.before(first.followed_by(other)).identity == other.identity


def test_the_note_is_of_the_loaded_model_and_calls_settings_as_the_user_does(tmp_path: Path) -> None:
    inside = [layers.Resizing(32, 32), layers.Rescaling(1 / 127.5, offset=-1)]
    tiny_classifier(tiny_base(), 3, before=inside).save(tmp_path / "h.keras")
    head = HeadConfig("h", tmp_path / "h.keras", ("a", "b", "c"), PREPROCESSING["tf"])
    with as_options():
        (classifier,) = load_classifiers([head])
    assert [note for note in classifier.notes if "done twice" in note and "--preprocessing h=raw" in note]
    (classifier,) = load_classifiers([HeadConfig("h", tmp_path / "h.keras", ("a", "b", "c"), None)])
    assert classifier.notes == ()


def test_a_scaling_behind_padding_is_not_asked_for(tmp_path: Path) -> None:
    inside = [layers.ZeroPadding2D(2), layers.Rescaling(1 / 127.5, offset=-1), layers.CenterCrop(32, 32)]
    tiny_classifier(tiny_base(), 3, before=inside).save(tmp_path / "h.keras")
    (classifier,) = load_classifiers([HeadConfig("h", tmp_path / "h.keras", ("a", "b", "c"), None)])
    assert classifier.notes == ()


def test_a_scaling_found_later_stands_in_front_of_what_the_model_does_itself() -> None:
    swapped, outside = PixelTransform(order=(2, 1, 0)), PREPROCESSING["torch"]
    entry = PictureSourceInput((SIZE, SIZE), swapped, PREPROCESSING["raw"])
    assert entry.unsaid
    entered = entry.entered(outside)
    assert (entered.declared, entered.pixels) == (outside, outside.followed_by(swapped)) and not entered.unsaid
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3))
    np.testing.assert_allclose(entered.pixels.apply(pixels), outside.apply(pixels)[..., ::-1], rtol=1e-5)
