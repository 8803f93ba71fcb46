"""Every family of ``keras.applications``, made small: the graph that is read answers as the model does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from benchmarks.compat_files import head_weights, seed_weights  # noqa: E402
from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402

pytestmark = pytest.mark.slow
Make = Callable[..., Any]
LAYERS = 70  # from the input on: each kind of block is among them


def module(name: str) -> Any:
    return importlib.import_module(f"keras.src.applications.{name}")


def narrow(name: str, constructor: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """A network of fixed widths, with a sixteenth of each (what is no multiple was counted from an input), and of each
    repetition the first alone.
    """
    source = module(name)

    def thin(kind: str) -> Any:
        layer = getattr(keras.layers, kind)
        return lambda filters, *args, **kwargs: layer(filters if filters % 16 else filters // 16, *args, **kwargs)

    kinds = {kind: thin(kind) for kind in ("Conv2D", "SeparableConv2D")}
    monkeypatch.setattr(source, "layers", SimpleNamespace(**{**vars(keras.layers), **kinds}))
    monkeypatch.setattr(source, "range", lambda *ends: range(*ends)[:1], raising=False)
    return getattr(source, constructor)(**settings)


def residual(version: int, **settings: Any) -> Any:
    resnet = module("resnet")
    stack = getattr(resnet, f"stack_residual_blocks_v{version}")

    def layers(x: Any) -> Any:
        return stack(stack(x, 8, 2, stride1=1, name="conv2"), 16, 2, name="conv3")

    return resnet.ResNet(layers, version == 2, True, name="resnet", weights_name="none", **settings)


FAMILIES: dict[str, Make] = {
    "ConvNeXt": lambda m, **s: module("convnext").ConvNeXt([1, 1, 2, 1], [8, 8, 16, 16], weights_name="", **s),
    "DenseNet": lambda m, **s: module("densenet").DenseNet([2, 2, 1, 1], **s),
    "EfficientNet": lambda m, **s: module("efficientnet").EfficientNet(0.2, 0.3, 32, weights_name="", **s),
    "EfficientNetV2": lambda m, **s: module("efficientnet_v2").EfficientNetV2(
        0.2, 0.3, 32, name="efficientnetv2-b0", **s
    ),
    "InceptionResNetV2": lambda m, **s: narrow("inception_resnet_v2", "InceptionResNetV2", m, **s),
    "InceptionV3": lambda m, **s: narrow("inception_v3", "InceptionV3", m, **s),
    "MobileNet": lambda m, **s: keras.applications.MobileNet(alpha=0.25, **s),
    "MobileNetV2": lambda m, **s: keras.applications.MobileNetV2(alpha=0.35, **s),
    "MobileNetV3": lambda m, **s: keras.applications.MobileNetV3Small(alpha=0.25, **s),
    "NASNet": lambda m, **s: module("nasnet").NASNet(
        penultimate_filters=96, num_blocks=1, stem_block_filters=4, skip_reduction=False, filter_multiplier=2, **s
    ),
    "ResNet": lambda m, **s: residual(1, **s),
    "ResNetV2": lambda m, **s: residual(2, **s),
    "VGG": lambda m, **s: narrow("vgg16", "VGG16", m, **s),
    "Xception": lambda m, **s: narrow("xception", "Xception", m, **s),
}


def test_no_family_is_left_out() -> None:
    made = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {name for name in made if not name.startswith(tuple(FAMILIES))} == set()


def trained(base: Any, pictures: np.ndarray) -> Any:
    """With a head whose answers differ, on weights none of which is as it began."""
    seed_weights(base, pictures)
    features = np.asarray(base(pictures, training=False)).mean((1, 2))
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(base.input, dense(keras.layers.GlobalAveragePooling2D()(base.output)))
    dense.set_weights(head_weights(features, 3, 0))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_a_family_answers_as_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    size = 80 if "ception" in name else 32
    whole = FAMILIES[name](monkeypatch, include_top=False, weights=None, input_shape=(size, size, 3))
    ends = [layer for layer in whole.layers[:LAYERS] if len(layer.output.shape) == 4 and layer.output.shape[1] > 1]
    base = keras.Model(whole.input, ends[-1].output)
    rng = np.random.default_rng(0)
    pictures = np.kron(rng.integers(0, 256, (6, 4, 4, 3)), np.ones((1, size // 4, size // 4, 1))).astype(np.uint8)
    shown = pictures / np.float32(255)
    model = trained(base, shown)
    expected = np.asarray(model(shown, training=False))
    assert np.ptp(expected, axis=0).max() > 0.1
    model.save(tmp_path / "a.keras")
    classifier = Reader().read("a", tmp_path / "a.keras", PREPROCESSING["unit"]).with_labels(("a", "b", "c"), None)
    merged = merge([classifier], find_backbone([classifier]))
    np.testing.assert_allclose(merged.head_scores("a", merged.features(pictures)), expected, atol=2e-3)


def test_a_layer_of_the_same_name_that_is_not_keras_own_is_refused(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    class LayerScale(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(LayerScale()(keras.layers.Conv2D(4, 3)(image)))
    keras.Model(image, keras.layers.Dense(3, activation="softmax")(x)).save(tmp_path / "a.keras")
    with pytest.raises(ModelFileError, match="mine>LayerScale"):
        Reader().read("a", tmp_path / "a.keras", PREPROCESSING["unit"])
