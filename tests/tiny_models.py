"""Seeded Keras classifiers of a few thousand parameters, pictures for them, and builds of both.

The module imports TensorFlow only when a model is made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from builder import BuildConfig, BuildResult

SIZE = 32  # height and width in pixels
FEATURES = 64
PREPROCESSING = "tf"  # the tiny base has no Rescaling: x / 127.5 - 1 is applied outside
THREE_HEADS = {"animals": 3, "garden": 4, "things": 2}  # labels; each head has another number


def tiny_base(
    seed: int = 0,
    size: int = SIZE,
    *,
    features: int = FEATURES,
    pooling: bool = True,
    name: str = "tiny_base",
    channels: int = 3,
) -> Any:
    """A small backbone from pictures (size, size, channels) to (features,): convolution, depthwise block,
    BatchNormalization, a skip.

    Without ``pooling`` it ends in a map (size / 4, size / 4, features), as with ``include_top=False``. Equal arguments
    give equal weights; ``seed`` also draws the moving statistics.
    """
    import keras
    from keras import layers

    image = keras.Input((size, size, channels), name=f"{name}_image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name=f"{name}_stem")(image)
    x = layers.BatchNormalization(name=f"{name}_stem_bn")(x)
    x = layers.ReLU(6.0, name=f"{name}_stem_relu")(x)
    skip = x
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = layers.BatchNormalization(name=f"{name}_depthwise_bn")(x)
    x = layers.Add(name=f"{name}_add")([skip, x])
    x = layers.Conv2D(features, 3, strides=2, padding="same", use_bias=False, name=f"{name}_top")(x)
    x = layers.BatchNormalization(name=f"{name}_top_bn")(x)
    x = layers.ReLU(name=f"{name}_top_relu")(x)
    if pooling:
        x = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    model = keras.Model(image, x, name=name)
    seed_weights(model, seed)
    model.trainable = False
    return model


def tiny_classifier(
    base: Any,
    labels: int = 3,
    seed: int = 1,
    *,
    activation: str | None = "softmax",
    hidden: int = 0,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
) -> Any:
    """``base`` with a new head of ``labels`` outputs. The base's weights are copied, as in a saved model.

    ``hidden``: units of a Dense layer between features and labels; ``activation=None`` gives bare logits. ``before``,
    ``after``: more Keras layers ahead of the base (Rescaling, augmentation) and behind it (pooling, Dropout).
    """
    import keras
    from keras import layers

    own = keras.models.clone_model(base)
    own.set_weights(base.get_weights())
    own.trainable = False
    x = image = keras.Input(base.input_shape[1:], name="image")
    for layer in (*before, own, *after):
        x = layer(x)
    if hidden:
        inner = layers.Dense(hidden, activation="relu", name="hidden")
        x = inner(x)
        seed_weights(inner, 1000 * seed + 1)
    scores = layers.Dense(labels, activation=activation, name="scores")
    model = keras.Model(image, scores(x), name=f"classifier_{seed}")
    seed_weights(scores, 1000 * seed)
    _spread_answers(scores, keras.Model(image, x), raw=bool(before))
    return model


def _spread_answers(scores: Any, trunk: Any, *, raw: bool) -> None:
    """Centre and widen the logits of a Dense layer on a few pictures. Otherwise all would have the same top label."""
    height, width, channels = trunk.input_shape[1:]
    pictures = [tiny_picture(900 + i, (width, height)).convert("RGB" if channels == 3 else "L") for i in range(24)]
    pixels = np.stack([np.asarray(picture, np.float32) for picture in pictures]).reshape(-1, height, width, channels)
    features = np.asarray(trunk(pixels if raw else pixels / 127.5 - 1, training=False))
    kernel = np.asarray(scores.kernel)
    logits = features @ kernel
    wider = 2 / logits.std(0)
    scores.kernel.assign(kernel * wider)
    scores.bias.assign(-logits.mean(0) * wider)


def difference_from_originals(
    classifiers: Sequence[Any], merged: Any, pixels: np.ndarray, *, apart: float = 0.0
) -> float:
    """The largest difference of a probability between the merged model and its originals, run by their frameworks."""
    from builder.merging.equivalence import check_equivalence

    asked = [(c, c.ask(list(pixels))) for c in classifiers]  # all are requested first; they run one after the other
    answered = [(c, answers()) for c, answers in asked]
    truth = {c.name: c.settled(raw).output.scores(raw) for c, raw in answered}
    return check_equivalence(classifiers, merged, pixels, truth, apart=apart).difference


def seed_weights(model: Any, seed: int) -> None:
    """Draw every variable of ``model`` from ``seed``. Kernels are scaled so that activations stay near 1."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name, shape = variable.path.split("/")[-1], tuple(variable.shape)
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.2, shape)
        else:
            fan_in = np.prod(shape[:2]) if "depthwise" in variable.path else np.prod(shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))


def label_names(head: str, count: int) -> tuple[str, ...]:
    return tuple(f"{head} {i}" for i in range(count))


def tiny_picture(seed: int, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """An RGB picture of ``size`` (width, height): a gradient with a few shapes, so that pictures differ in content."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.uint8)
    image = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 6))):
        (x0, x1), (y0, y1) = (np.sort(rng.integers(0, edge, 2)).tolist() for edge in size)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x0, y0, x1, y1), fill=colour)
    return image


def save_pictures(folder: Path, counts: Mapping[str, int] | Iterable[str], seed: int = 0) -> list[Path]:
    """Write picture files, ``counts[sub-folder]`` of them in each sub-folder (``animals`` or ``animals/bird``).

    They differ in content, size, aspect and format (JPEG and PNG). A list of sub-folders means 8 pictures in each.
    Returns the paths in the order of writing.
    """
    counts = dict(counts) if isinstance(counts, Mapping) else dict.fromkeys(counts, 8)
    sizes, paths = ((48, 48), (80, 60), (40, 64), (32, 32), (97, 33)), []
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            suffix = ".png" if number % 3 == 2 else ".jpg"
            path = folder / name / f"{number:03d}{suffix}"
            tiny_picture(seed * 1_000_003 + place * 1009 + number, sizes[number % len(sizes)]).save(path)
            paths.append(path)
    return paths


def tiny_config(
    folder: Path, heads: Mapping[str, Any] | None = None, *, pictures: int = 8, seed: int = 0, **overrides: Any
) -> BuildConfig:
    """Write models and pictures into ``folder``. Returns the configuration that builds ``folder / "tiny.tflite"``.

    ``heads``: a number of labels, or a Keras classifier, for each head's name. ``overrides``: fields of ``BuildConfig``.
    About 25 pictures are too few to prove agreement and to fit a joint list. So no agreement is required unless
    ``min_agreement`` is given, and there is no joint list unless ``joint`` is given.
    """
    from builder import BuildConfig, HeadConfig
    from builder.settings.config import JointConfig
    from builder.settings.input_scaling import parse_preprocessing

    base, configs = None, []
    heads = THREE_HEADS if heads is None else heads
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, head) in enumerate(heads.items()):
        if isinstance(head, int):
            base = base or tiny_base(seed)
            head = tiny_classifier(base, head, seed + number + 1)
        path = folder / f"{name}.keras"
        head.save(path)
        labels = label_names(name, head.output_shape[-1])
        configs.append(HeadConfig(name, path, labels, parse_preprocessing(PREPROCESSING, f"heads.{name}")))
    # A folder for each head would be 160 pictures for 20 heads. With more than five heads, the folders are not theirs.
    save_pictures(
        folder / "pictures", dict.fromkeys(heads if len(heads) <= 5 else ["any", "other", "more"], pictures), seed
    )
    fields: dict[str, Any] = {
        "output": folder / "tiny.tflite",
        "calibration_data": folder / "pictures",
        "heads": tuple(configs),
        "min_agreement": 0.0,
        "joint": JointConfig(enabled=False),
        **overrides,
    }
    return BuildConfig(**fields)


def elsewhere(built: BuildResult, folder: Path) -> BuildConfig:
    """The configuration of the same build from copies of its inputs, which are all beside its output, in ``folder``."""
    config, here = built.report.config, built.output.parent
    shutil.copytree(here, folder / "there", ignore=shutil.ignore_patterns("*.tflite", "*.report"))

    def moved(path: Path) -> Path:
        return folder / "there" / path.relative_to(here)

    heads = tuple(replace(head, model=moved(head.model)) for head in config.heads)
    data = moved(config.calibration_data)
    return replace(config, heads=heads, output=folder / "there" / "again.tflite", calibration_data=data)


def build_tiny(folder: Path, heads: Mapping[str, Any] | None = None, **overrides: Any) -> BuildResult:
    """Run a whole build in ``folder``. Arguments as of ``tiny_config``."""
    from builder import build

    return build(tiny_config(folder, heads, **overrides))
