"""The most common Keras models, made small, as tutorials write them: with Keras 3, Keras 2 or tf_keras.

``python -m tests.tutorial_models FOLDER`` writes them with tf_keras, in a process of its own, with pictures and answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 32


def small_base(keras: Any, name: str = "base", *, inside: bool = False) -> Any:
    """A stand-in for an application without its top. ``inside``: it scales pixels itself, as EfficientNet does."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    if inside:
        x = layers.Rescaling(1 / 255.0)(x)
        x = layers.Normalization(axis=-1, mean=[0.485, 0.456, 0.406], variance=[0.05, 0.05, 0.05])(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    x = layers.Conv2D(6, 3, 2, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    x = layers.Activation("swish" if inside else "relu", name=f"{name}_act")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", use_bias=False, name=f"{name}_separable")(x)
    return keras.Model(image, layers.BatchNormalization(name=f"{name}_bn2")(x), name=name)


def transfer_learning(keras: Any, *, activation: str | None = None) -> Any:
    """tensorflow.org/tutorials/images/transfer_learning: augmentation, preprocess_input, a frozen base, one output."""
    layers = keras.layers
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])
    base = small_base(keras)
    base.trainable = False
    inputs = keras.Input(shape=(SIZE, SIZE, 3))
    x = augmentation(inputs)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(1, activation=activation)(x))


def keras_guide(keras: Any) -> Any:
    """keras.io/guides/transfer_learning: Xception behind a Rescaling, one output of bare logits."""
    layers = keras.layers
    base = small_base(keras, "xception")
    base.trainable = False
    inputs = keras.Input(shape=(SIZE, SIZE, 3))
    x = layers.Rescaling(scale=1 / 127.5, offset=-1)(layers.RandomFlip("horizontal")(inputs))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(inputs, layers.Dense(1)(x))


def efficientnet_guide(keras: Any) -> Any:
    """keras.io/examples/vision/image_classification_efficientnet_fine_tuning: its top has a normalization of its own."""
    layers = keras.layers
    inputs = keras.Input(shape=(SIZE, SIZE, 3))
    x = inputs
    for layer in (layers.RandomRotation(factor=0.15), layers.RandomTranslation(0.1, 0.1), layers.RandomContrast(0.1)):
        x = layer(x)
    x = small_base(keras, "efficientnet", inside=True)(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(0.2, name="top_dropout")(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="pred")(x), name="EfficientNet")


def from_scratch(keras: Any) -> Any:
    """tensorflow.org/tutorials/images/classification: a Sequential with augmentation and Rescaling, bare logits."""
    layers = keras.layers
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomZoom(0.1)])
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 3)), augmentation, layers.Rescaling(1.0 / 255),
        layers.Conv2D(6, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.2),
        layers.Flatten(), layers.Dense(8, activation="relu"), layers.Dense(5, name="outputs"),
    ])  # fmt: skip


def resized_inside(keras: Any) -> Any:
    """A Resizing in front of the base, for pictures of one size: it stays in the file."""
    layers = keras.layers
    inputs = keras.Input(shape=(40, 48, 3))
    x = layers.Rescaling(1.0 / 255)(layers.Resizing(SIZE, SIZE)(inputs))
    x = layers.GlobalAveragePooling2D()(small_base(keras)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def caffe(keras: Any) -> Any:
    """ResNet50 with its preprocess_input inside: channels in another order."""
    layers = keras.layers
    inputs = keras.Input(shape=(SIZE, SIZE, 3))
    x = keras.applications.resnet50.preprocess_input(inputs)
    x = layers.Flatten()(layers.GlobalAveragePooling2D()(small_base(keras)(x)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dense(8, activation="relu")(x)))


def half_precision(keras: Any) -> Any:
    """Trained under mixed_float16, as every Colab advises; its last layer in float32."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = keras.layers
        inputs = keras.Input(shape=(SIZE, SIZE, 3))
        x = small_base(keras)(layers.Rescaling(1 / 255.0)(inputs))
        x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, layers.Activation("softmax", dtype="float32")(x))
    finally:
        keras.mixed_precision.set_global_policy("float32")


MODELS: dict[str, Callable[[Any], Any]] = {
    "transfer_learning": transfer_learning,
    "transfer_learning_sigmoid": lambda keras: transfer_learning(keras, activation="sigmoid"),
    "keras_guide": keras_guide,
    "efficientnet_guide": efficientnet_guide,
    "from_scratch": from_scratch,
    "resized_inside": resized_inside,
    "caffe": caffe,
    "half_precision": half_precision,
}


ONLY_HDF5 = ("caffe",)  # tf_keras cannot write a slice of all channels into a .keras


def seeded(model: Any, pictures: np.ndarray) -> np.ndarray:
    """Give a model weights with which its answers to ``pictures`` differ. Returns the answers, float32."""
    rng = np.random.default_rng(3)
    for layer in {id(one): one for one in _leaves(model)}.values():
        values = []
        for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
            name = getattr(variable, "path", variable.name)
            kind = type(layer).__name__
            if kind == "Normalization":
                values.append(value)
            elif any(word in name for word in ("variance", "gamma")):
                values.append(rng.uniform(0.5, 1.5, value.shape))
            elif value.ndim > 1:
                values.append(rng.normal(0, np.sqrt(2 / np.prod(value.shape[:-1])), value.shape))
            else:
                values.append(rng.normal(0, 0.2, value.shape))
        if values:
            layer.set_weights(values)
    dense = [layer for layer in _leaves(model) if type(layer).__name__ == "Dense"][-1]
    kernel, bias = dense.get_weights()
    answers = np.asarray(model(pictures, training=False), np.float64)
    if answers.shape[1] > 1 and np.all(np.abs(answers.sum(1) - 1) < 1e-2):
        logits = np.log(np.clip(answers, 1e-12, 1))
    else:
        logits = answers if answers.min() < 0 or answers.max() > 1 else np.log(answers / (1 - answers))
    wide = 1.5 / max(float((logits - logits.mean(0)).std()), 1e-6)
    dense.set_weights([kernel * wide, wide * (bias - logits.mean(0))])
    return np.asarray(model(pictures, training=False), np.float32)


def _leaves(model: Any) -> list[Any]:
    return [leaf for layer in model.layers for leaf in (_leaves(layer) if hasattr(layer, "layers") else [layer])]


def pictures_for(model: Any) -> np.ndarray:
    height, width = model.input_shape[1:3]
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (5, 4, 4, 3)), np.ones((1, height // 4, width // 4, 1))).astype(np.uint8)


def main(folder: Path) -> None:
    import tf_keras

    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        tf_keras.backend.clear_session()
        model = make(tf_keras)
        pictures = pictures_for(model)
        answers = seeded(model, pictures.astype(np.float32))
        np.savez(folder / f"{name}.npz", pictures=pictures, answers=answers)
        model.save(folder / f"{name}.h5")
        if name not in ONLY_HDF5:
            model.save(folder / f"{name}.keras")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
