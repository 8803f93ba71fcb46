"""Models that share a backbone, and near-misses that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import SharedBackbone, early_difference, find_backbone  # noqa: E402
from builder.merging.difference import first_difference  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.merging.tolerance import align  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING, PixelTransform  # noqa: E402
from builder.support.errors import NoSharedBackboneError  # noqa: E402
from tests.tiny_models import (  # noqa: E402
    FEATURES,
    difference_from_originals,
    seed_weights,
    tiny_base,
    tiny_classifier,
)

layers = keras.layers
PIXELS = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def load(folder: Path, name: str, model: Any, preprocessing: str | PixelTransform | None = "tf") -> Classifier:
    path = folder / f"{name}.keras"
    model.save(path)
    transform = PREPROCESSING[preprocessing] if isinstance(preprocessing, str) else preprocessing
    labels = tuple(map(str, range(model.output_shape[-1])))
    return load_classifiers([HeadConfig(name, path, labels, transform)])[0]


def assert_shares(*classifiers: Classifier) -> None:
    """They share everything up to the features, and every head computes what its original does."""
    shared = find_backbone(classifiers)
    merged = merge(classifiers, shared)
    assert merged.seam_shapes["features"] == (FEATURES,)
    assert difference_from_originals(classifiers, merged, PIXELS) < 1e-5


def changed(base: Any, layer: str, weight: str, by: float = 1e-3) -> Any:
    other = keras.models.clone_model(base)
    other.set_weights(base.get_weights())
    variable = next(w for w in other.get_layer(f"tiny_base_{layer}").weights if w.name == weight)
    value = np.asarray(variable)
    value[(0,) * value.ndim] += by
    variable.assign(value)
    return other


def flat(base: Any, labels: int) -> Any:
    """The same classifier without nesting and under other names."""
    x = image = keras.Input((32, 32, 3), name="other_image")
    values = {base.input.name: image}
    for layer in base.layers[1:]:
        copy = type(layer).from_config({**layer.get_config(), "name": f"flat_{len(values)}"})
        x = copy([values["tiny_base_stem_relu"], x] if "add" in layer.name else x)
        copy.set_weights(layer.get_weights())
        values[layer.name] = x
    scores = layers.Dense(labels, activation="softmax")
    model = keras.Model(image, scores(x))
    seed_weights(scores, 3)
    return model


def test_two_heads_of_one_base_share_it(tmp_path: Path) -> None:
    base = tiny_base()
    assert_shares(load(tmp_path, "a", tiny_classifier(base, 3)), load(tmp_path, "b", tiny_classifier(base, 4, seed=2)))


def other_spelling(base: Any, labels: int) -> Any:
    """The base with other layers for its activations, and with noise and Dropout for training behind them."""
    x = image = keras.Input((32, 32, 3))
    values = {}
    for layer in base.layers[1:]:
        config = {**layer.get_config(), "name": f"own_{len(values)}"}
        if isinstance(layer, layers.ReLU):
            x = layers.Activation("relu6" if config["max_value"] == 6 else "relu")(x)
            x = layers.SpatialDropout2D(0.5)(layers.GaussianNoise(0.1)(x))  # inside the base, where it would part them
        else:
            copy = type(layer).from_config(config)
            x = copy([values["tiny_base_stem_relu"], x] if "add" in layer.name else x)
            copy.set_weights(layer.get_weights())
        values[layer.name] = x
    scores = layers.Dense(labels)
    model = keras.Model(image, layers.Softmax()(scores(x)))
    seed_weights(scores, 3)
    return model


SAME: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "flat layers under other names": lambda base: (flat(base, 4), "tf"),
    "activations spelt otherwise": lambda base: (other_spelling(base, 4), "tf"),
    "dropout before the head": lambda base: (tiny_classifier(base, 4, after=[layers.Dropout(0.5)]), "tf"),
    "a linear activation": lambda base: (tiny_classifier(base, 4, after=[layers.Activation("linear")]), "tf"),
    "augmentation before the base": lambda base: (
        tiny_classifier(base, 4, before=[layers.RandomFlip(), layers.RandomZoom(0.1), layers.Rescaling(1 / 127.5, -1)]),
        None,
    ),
    "preprocessing inside": lambda base: (tiny_classifier(base, 4, before=[layers.Rescaling(1 / 127.5, -1)]), None),
    "preprocessing half inside": lambda base: (tiny_classifier(base, 4, before=[layers.Rescaling(2, -1)]), "unit"),
    "normalization inside": lambda base: (
        tiny_classifier(base, 4, before=[layers.Normalization(mean=127.5, variance=127.5**2)]), None
    ),
    "a head with a hidden layer": lambda base: (tiny_classifier(base, 4, hidden=8), "tf"),
    "a head that gives logits": lambda base: (tiny_classifier(base, 4, activation=None), "tf"),
    "a trainable base": lambda base: (_trainable(tiny_classifier(base, 4)), "tf"),
}  # fmt: skip


def _trainable(model: Any) -> Any:
    model.trainable = True
    return model


@pytest.mark.parametrize("variant", SAME)
def test_the_same_function_in_another_shape_matches(tmp_path: Path, variant: str) -> None:
    base = tiny_base()
    model, preprocessing = SAME[variant](base)
    assert_shares(load(tmp_path, "a", tiny_classifier(base, 3)), load(tmp_path, "b", model, preprocessing))


@pytest.mark.parametrize(
    ("layer", "weight", "words"),
    [
        ("top", "kernel", "kernel differs by up to 0.001"),
        ("stem", "kernel", "kernel differs by up to 0.001"),
        ("depthwise_bn", "moving_mean", "moving_mean differs by up to 0.001 while gamma, beta, moving_variance agree"),
        ("depthwise_bn", "moving_variance", "moving_variance differs"),
        ("top_bn", "gamma", "gamma differs"),
    ],
)
def test_one_changed_weight_is_not_shared(tmp_path: Path, layer: str, weight: str, words: str) -> None:
    base = tiny_base()
    ours, theirs = (
        load(tmp_path, "a", tiny_classifier(base, 3)),
        load(tmp_path, "b", tiny_classifier(changed(base, layer, weight), 4)),
    )
    difference = first_difference(ours, theirs)
    assert difference is not None
    assert difference.layer.endswith(f"tiny_base_{layer}")
    assert words in difference.what
    seam = merge((ours, theirs), find_backbone((ours, theirs))).seam_shapes["features"] if layer != "stem" else None
    assert seam != (FEATURES,)  # what lies before the change may be shared, what lies behind it never


def test_weights_that_changed_places_are_not_shared(tmp_path: Path) -> None:
    base = tiny_base()
    swapped = keras.models.clone_model(base)
    swapped.set_weights(base.get_weights())
    norm = swapped.get_layer("tiny_base_top_bn")
    gamma, beta, *rest = norm.get_weights()
    norm.set_weights([beta, gamma, *rest])
    ours, theirs = (load(tmp_path, n, tiny_classifier(b, 3)) for n, b in (("a", base), ("b", swapped)))
    difference = first_difference(ours, theirs)
    assert difference is not None
    assert difference.layer.endswith("top_bn")
    assert "gamma differs" in difference.what


def test_a_base_that_differs_from_its_first_layer_on_is_refused(tmp_path: Path) -> None:
    ours, theirs = (load(tmp_path, n, tiny_classifier(tiny_base(seed=s), 3)) for n, s in (("a", 0), ("b", 1)))
    with pytest.raises(
        NoSharedBackboneError,
        match=r"a and b share no backbone; the first layer that differs is \S*tiny_base_stem: .* different checkpoints",
    ):
        find_backbone((ours, theirs))


@pytest.mark.parametrize(
    ("preprocessing", "words"),
    [("unit", "its input scaling is"), ("torch", "its input scaling is"), ("caffe", "channels BGR")],
)
def test_another_input_scaling_is_not_shared(tmp_path: Path, preprocessing: str, words: str) -> None:
    base = tiny_base()
    ours, theirs = (load(tmp_path, n, tiny_classifier(base, 3), p) for n, p in (("a", "tf"), ("b", preprocessing)))
    with pytest.raises(NoSharedBackboneError, match=words):
        find_backbone((ours, theirs))


def test_another_input_size_is_not_shared(tmp_path: Path) -> None:
    base = tiny_base()
    larger = tiny_base(size=48)
    larger.set_weights(base.get_weights())
    ours, theirs = (load(tmp_path, n, tiny_classifier(b, 3)) for n, b in (("a", base), ("b", larger)))
    with pytest.raises(NoSharedBackboneError, match="input is 48 x 48, that of a is 32 x 32"):
        find_backbone((ours, theirs))


def test_another_activation_setting_is_not_shared(tmp_path: Path) -> None:
    def base(limit: float) -> Any:
        x = image = keras.Input((32, 32, 3))
        for layer in (layers.Conv2D(4, 3), layers.ReLU(limit), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()):
            x = layer(x)
        model = keras.Model(image, x)
        seed_weights(model, 0)
        return model

    ours, theirs = (load(tmp_path, n, tiny_classifier(base(limit), 3)) for n, limit in (("a", 6.0), ("b", 5.0)))
    difference = first_difference(ours, theirs)
    assert difference is not None
    assert "relu(0, 5, 0) where the other has relu6" in difference.what


def test_an_activation_inside_a_layer_is_the_one_behind_it(tmp_path: Path) -> None:
    def base(fused: str | None, behind: Any) -> Any:
        x = image = keras.Input((32, 32, 3))
        for layer in (layers.Conv2D(4, 3, activation=fused), *behind, layers.GlobalAveragePooling2D()):
            x = layer(x)
        model = keras.Model(image, x)
        seed_weights(model, 0)
        return model

    fused = load(tmp_path, "a", tiny_classifier(base("relu6", []), 3))
    behind = load(tmp_path, "b", tiny_classifier(base(None, [layers.ReLU(6.0)]), 4))
    merged = merge((fused, behind), find_backbone((fused, behind)))
    assert merged.seam_shapes["features"] == (4,)
    assert difference_from_originals((fused, behind), merged, PIXELS) < 1e-5
    for other in (layers.ReLU(5.0), layers.LeakyReLU(), layers.ReLU(6.0, threshold=0.1)):
        near = load(tmp_path, "c", tiny_classifier(base(None, [other]), 4))
        assert first_difference(fused, near) is not None
        with pytest.raises(NoSharedBackboneError):
            find_backbone((fused, near))


def test_models_that_are_identical_still_have_a_head_each(tmp_path: Path) -> None:
    model = tiny_classifier(tiny_base(), 3)
    assert_shares(load(tmp_path, "a", model), load(tmp_path, "b", model))


def test_a_single_classifier_is_split_before_its_last_layer(tmp_path: Path) -> None:
    assert_shares(load(tmp_path, "a", tiny_classifier(tiny_base(), 3)))


def two_level(base: Any, labels: int, seed: int, *, early: bool = True) -> Any:
    """A head with a layer of its own on each of two layers of the base, or on the last one only."""
    inner = keras.Model(base.input, [base.output, base.get_layer("tiny_base_stem_relu").output])
    image = keras.Input((32, 32, 3))
    late, skip = inner(image)
    x = layers.GlobalAveragePooling2D()(late)
    if early:
        own = layers.Conv2D(4, 1, name="own")
        x = layers.Concatenate()([x, layers.GlobalAveragePooling2D()(own(skip))])
        seed_weights(own, seed + 100)
    scores = layers.Dense(labels, activation="softmax")
    model = keras.Model(image, scores(x))
    seed_weights(scores, seed)
    return model


def test_a_head_may_read_several_tensors_of_the_base(tmp_path: Path) -> None:
    base = tiny_base(pooling=False)
    ours, theirs, plain = (
        load(tmp_path, "a", two_level(base, 3, 1)),
        load(tmp_path, "b", two_level(base, 4, 2)),
        load(tmp_path, "c", two_level(base, 2, 3, early=False)),
    )
    shared = find_backbone((ours, theirs, plain))
    merged = merge((ours, theirs, plain), shared)
    assert merged.seam_shapes == {"features": (FEATURES,), "features_2": (16, 16, 8)}
    assert [[tensor.name for tensor in head.inputs] for head in merged.heads.values()] == [
        ["features", "features_2"], ["features", "features_2"], ["features"]
    ]  # fmt: skip
    assert difference_from_originals((ours, theirs, plain), merged, PIXELS) < 1e-5
    # What both compute alike is shared beyond the base: here the pooling of both tensors and the layer between.
    alike = two_level(base, 3, 1)
    merged = merge((ours, ours), find_backbone((ours, load(tmp_path, "d", alike))))
    assert merged.seam_shapes == {"features": (FEATURES + 4,)}


def test_a_base_whose_last_block_was_trained_on_is_shared_up_to_there(tmp_path: Path) -> None:
    base = tiny_base()
    models = tiny_classifier(base, 3), tiny_classifier(changed(base, "top", "kernel"), 4)
    pair = tuple(load(tmp_path, name, model) for name, model in zip("ab", models, strict=True))
    shared = find_backbone(pair)
    merged = merge(pair, shared)
    assert merged.seam_shapes == {"features": (16, 16, 8)}
    assert difference_from_originals(pair, merged, PIXELS) < 1e-5
    found = early_difference(pair, shared)
    assert found is not None
    assert found[2].layer.endswith("tiny_base_top")
    assert "fine-tuned from here on" in found[2].advice


@pytest.mark.parametrize(
    "head",
    [
        lambda base: tiny_classifier(base, 4, hidden=64),  # large, and dense layers alone
        lambda base: tiny_classifier(base, 4, after=[layers.Reshape((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten()]),
    ],
)
def test_a_large_head_or_one_with_many_layers_is_not_taken_for_a_trained_base(tmp_path: Path, head: Any) -> None:
    pair = load(tmp_path, "a", tiny_classifier(tiny_base(), 3)), load(tmp_path, "b", head(tiny_base()))
    shared = find_backbone(pair)
    assert merge(pair, shared).seam_shapes == {"features": (FEATURES,)}
    assert early_difference(pair, shared) is None


def test_the_digest_of_a_seam_is_that_of_its_tensor_or_of_all() -> None:
    one, two, turned = (
        SharedBackbone(digests, 0, ()).digest
        for digests in ({"features": "a"}, {"features": "a", "features_2": "b"}, {"features": "b", "features_2": "a"})
    )
    assert one == "a"
    assert len({one, two, turned, "b"}) == 4


def test_a_convolution_and_its_normalization_are_kept_together(tmp_path: Path) -> None:
    """In the file they are one operation, and the tensor between them would be a bad seam."""
    base = tiny_base()
    pair = tuple(
        load(tmp_path, name, tiny_classifier(other, 3))
        for name, other in (("a", base), ("b", changed(base, "top_bn", "moving_mean")))
    )
    assert merge(pair, find_backbone(pair)).seam_shapes == {"features": (16, 16, 8)}
    first = tuple(
        load(tmp_path, name, tiny_classifier(other, 3))
        for name, other in (("c", base), ("d", changed(base, "stem_bn", "moving_mean")))
    )
    with pytest.raises(NoSharedBackboneError, match="run in training mode"):
        find_backbone(first)


@pytest.mark.parametrize("following", [layers.ReLU, lambda: layers.DepthwiseConv2D(3), lambda: layers.Conv2D(5, 1)])
def test_a_convolution_with_no_normalization_behind_it_ends_the_shared_part(
    tmp_path: Path, following: Callable[[], Any]
) -> None:
    """Only a normalization belongs to the convolution before it; whatever else differs behind it leaves it shared."""
    image = keras.Input((32, 32, 3))
    base = keras.Model(image, layers.Conv2D(6, 3, strides=2, name="projection")(image), name="base")
    seed_weights(base, 1)
    pair = []
    for name, units in (("a", 3), ("b", 4)):
        keras.utils.set_random_seed(units)
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(units, 1)(following()(base(image))))
        model = keras.Model(image, layers.Dense(units, activation="softmax")(x))
        pair.append(load(tmp_path, name, model))
    seam = {"features": (15, 15, 6)}
    assert merge(pair, find_backbone(pair)).seam_shapes == seam


def padded(size: int, padding: Any, kernel: int = 3, strides: int = 2, seed: int = 0) -> Any:
    """A strided convolution with ``same`` padding, or with the zeros that are given in front of it."""
    image = keras.Input((size, size, 3))
    x = image if padding == "same" else layers.ZeroPadding2D(padding)(image)
    mode = "same" if padding == "same" else "valid"
    for layer in (
        layers.Conv2D(4, kernel, strides=strides, padding=mode, name="stem"),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.GlobalAveragePooling2D(),
    ):
        x = layer(x)
    model = keras.Model(image, x)
    seed_weights(model, seed)
    return model


@pytest.mark.parametrize(
    ("size", "zeros", "kernel", "strides"),
    [(32, ((0, 1), (0, 1)), 3, 2), (33, 1, 3, 2), (32, ((1, 2), (1, 2)), 5, 2), (31, 1, 3, 1), (32, 2, 5, 1)],
)
def test_padding_in_front_of_a_convolution_equals_padding_inside_it(
    tmp_path: Path, size: int, zeros: Any, kernel: int, strides: int
) -> None:
    inside, outside = (
        load(tmp_path, name, tiny_classifier(padded(size, padding, kernel, strides), 3))
        for name, padding in (("a", "same"), ("b", zeros))
    )
    for pair in ((inside, outside), (outside, inside)):
        merged = merge(pair, find_backbone(pair))
        assert merged.seam_shapes == {"features": (4,)}
        pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        assert difference_from_originals(pair, merged, pixels) < 1e-5


@pytest.mark.parametrize(("size", "zeros"), [(32, 1), (32, ((1, 0), (1, 0))), (33, ((0, 1), (0, 1)))])
def test_other_padding_is_another_function(tmp_path: Path, size: int, zeros: Any) -> None:
    pair = [
        load(tmp_path, name, tiny_classifier(padded(size, padding), 3)) for name, padding in (("a", "same"), ("b", zeros))
    ]
    with pytest.raises(NoSharedBackboneError):
        find_backbone(pair)


def through_float16(base: Any) -> Any:
    other = keras.models.clone_model(base)
    other.set_weights([w.astype(np.float16).astype(np.float32) for w in base.get_weights()])
    return other


def test_weights_that_were_float16_are_named_and_accepted_on_request(tmp_path: Path) -> None:
    base = tiny_base()
    pair = tuple(
        load(tmp_path, name, tiny_classifier(other, 3)) for name, other in (("a", base), ("b", through_float16(base)))
    )
    with pytest.raises(NoSharedBackboneError, match="one file was stored in float16; tolerance"):
        find_backbone(pair)
    near, apart = align(pair, 1e-3)
    merged = merge(near, find_backbone(near))
    assert merged.seam_shapes == {"features": (FEATURES,)}
    assert 1e-5 < apart < 2**-11
    assert difference_from_originals(near, merged, PIXELS, apart=0.02) > 1e-6
    assert align(pair, 0.0)[1] == 0


@pytest.mark.parametrize("by", [0.1, 1e-2])
def test_the_tolerance_does_not_take_other_weights(tmp_path: Path, by: float) -> None:
    base = tiny_base()
    pair = tuple(
        load(tmp_path, name, tiny_classifier(other, 3))
        for name, other in (("a", base), ("b", changed(base, "stem", "kernel", by=by)))
    )
    near, apart = align(pair, 1e-3)
    assert apart == 0
    with pytest.raises(NoSharedBackboneError):
        find_backbone(near)


CAUSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "training mode": (lambda base: moved_statistics(base), "All kernels agree: the base was run in training mode when"),
    "fine-tuned": (lambda base: changed(base, "top", "kernel"), "fine-tuned from here on"),
    "another checkpoint": (lambda base: tiny_base(seed=9), "the bases are different checkpoints"),
    "another architecture": (lambda base: tiny_base(features=48), "the architectures differ"),
}


def moved_statistics(base: Any) -> Any:
    other = keras.models.clone_model(base)
    other.set_weights(base.get_weights())
    for layer in other.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(layer.moving_mean + 0.01)
            layer.moving_variance.assign(layer.moving_variance * 1.1)
    return other


@pytest.mark.parametrize("cause", CAUSES)
def test_the_advice_names_the_cause(tmp_path: Path, cause: str) -> None:
    base, (change, words) = tiny_base(), CAUSES[cause]
    ours, theirs = (
        load(tmp_path, name, tiny_classifier(other, 3, seed=i))
        for i, (name, other) in enumerate((("a", base), ("b", change(base))))
    )
    difference = first_difference(ours, theirs)
    assert difference is not None
    assert words in difference.advice


def test_a_base_whose_backbone_holds_no_weights_is_no_backbone(tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(layers.AveragePooling2D(8)(image))))
    with pytest.raises(NoSharedBackboneError, match="no layer with weights before the last one"):
        find_backbone((load(tmp_path, "a", model),))


def test_comparing_answers_refuses_what_equal_weights_would_accept(tmp_path: Path) -> None:
    """Had the graphs been read wrongly, running the originals would tell."""
    base = tiny_base()
    ours = load(tmp_path, "a", tiny_classifier(base, 3))
    merged = merge((ours,), find_backbone((ours,)))
    merged.backbone.set_weights(changed(base, "top", "kernel", by=1.0).get_weights())
    with pytest.raises(NoSharedBackboneError, match="only a base that gives the same results is shared"):
        difference_from_originals((ours,), merged, PIXELS)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_base_that_is_called_twice_gives_the_right_one_of_its_outputs(tmp_path: Path, kind: str) -> None:
    """Keras counts the calls of a nested model in two ways."""
    tensor = keras.Input((32, 32, 3))
    stack = [layers.Conv2D(3, 3, padding="same", activation="tanh", name="inner")]
    inner = keras.Model(tensor, stack[0](tensor)) if kind == "functional" else keras.Sequential([tensor, *stack])
    seed_weights(inner, 2)
    image = keras.Input((32, 32, 3))
    once = inner(image)
    twice = inner(once)
    for name, nested in (("first", [once]), ("both", [layers.Add()([once, twice])]), ("second", [twice])):
        base = keras.Model(image, nested[0])
        x = own = keras.Input((32, 32, 3))
        model = keras.Model(own, layers.Dense(3, activation="softmax")(layers.Flatten()(base(x))))
        seed_weights(model.layers[-1], 1)
        classifier = load(tmp_path, f"{kind}_{name}", model)
        merged = merge((classifier,), find_backbone((classifier,)))
        assert difference_from_originals((classifier,), merged, PIXELS) < 1e-5, name
