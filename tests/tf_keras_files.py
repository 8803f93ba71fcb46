"""Write small models with tf_keras, as every kind of file it has: ``python -m tests.tf_keras_files FOLDER``.

This is a process of its own, because two Keras in one process share TensorFlow's state. For each model there are
``NAME.h5``, ``NAME.keras``, the SavedModel ``NAME_saved``, and ``NAME.npz`` with pictures and its answers to them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.toolkit_models import write_toolkit_models

SIZE = 12


def main(folder: Path) -> None:
    import tf_keras

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = np.kron(rng.uniform(0, 255, (6, 3, 3, 3)), np.ones((1, SIZE // 3, SIZE // 3, 1))).astype(np.float32)
    for number, (name, make) in enumerate(MODELS.items()):
        shown = pictures / 127.5 - 1 if name == "stack" else pictures
        tf_keras.backend.clear_session()
        model = make(tf_keras)
        seed_weights(model, number)
        _spread_answers(model, shown)
        answers = np.asarray(model(shown, training=False), np.float32)
        np.savez(folder / f"{name}.npz", pictures=shown, answers=answers)
        model.save(folder / f"{name}.h5")
        model.save(folder / f"{name}.keras")
        if name not in NO_SAVED_MODEL:
            model.save(folder / f"{name}_saved", save_format="tf")
        if name == "stack":
            model.save_weights(folder / "weights_only.h5")
            model.export(folder / "exported")


def write_texts(folder: Path) -> None:
    """``text.keras``, ``text_saved``: a text layer that was adapted; ``given``: one whose vocabulary was given."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    for name, given in (("text", None), ("given", list(TEXT_WORDS))):
        tf_keras.backend.clear_session()
        words = layers.TextVectorization(output_sequence_length=6, vocabulary=given)
        if given is None:
            words.adapt(TEXTS)
        text = tf_keras.Input((1,), dtype=tf.string)
        inner = tf_keras.Sequential([layers.Embedding(20, 4), layers.GlobalAveragePooling1D()])
        model = tf_keras.Model(text, layers.Dense(3, activation="softmax")(inner(words(text))))
        for layer in model.layers[2:]:
            seed_weights(layer, 1)
        np.save(folder / f"{name}.npy", model(tf.constant([[one] for one in TEXTS])))
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}_saved", save_format="tf")


TEXT_WORDS = ("film", "a", "größe", "the")
TEXTS = ["A good film!", "the film", "größe", "a a bad the", "nothing known: Größe"]


def seed_weights(model: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = []
    for variable in model.weights:
        shape, last = tuple(variable.shape), variable.name.rpartition("/")[2]
        if last in ("mean:0", "variance:0", "count:0"):  # of a Normalization that was adapted
            values.append(np.asarray(variable))
        elif len(shape) > 1:
            values.append(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape))
        else:
            positive = any(word in last for word in ("variance", "gamma"))
            values.append(rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, 0.2, shape))
    model.set_weights(values)


def seeded(model: Any, pictures: np.ndarray) -> np.ndarray:
    """Give a model weights with which its answers differ. Returns the answers."""
    seed_weights(model, 11)
    _spread_answers(model, pictures)
    return np.asarray(model(pictures, training=False), np.float32)


def _spread_answers(model: Any, pictures: np.ndarray) -> None:
    """Widen and centre the logits: a model with one answer to all pictures would hide reading errors."""
    dense = [layer for layer in model.submodules if type(layer).__name__ == "Dense"]
    last = next(layer for layer in dense if layer.get_config()["activation"] == "softmax")
    logits = np.log(np.asarray(model(pictures, training=False), np.float64) + 1e-30)
    logits -= logits.mean(1, keepdims=True)
    kernel, *bias = last.get_weights()
    middle = logits.mean(0) if bias else 0 * logits.mean(0)
    wider = min(2 / logits.std(0).mean(), 6 / np.abs(logits - middle).max())
    last.set_weights([kernel * wider, *(wider * (b - middle) for b in bias)])


def base(keras: Any, name: str = "base", prefix: str = "") -> Any:
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name=f"{prefix}image")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{prefix}pad")(image)
    x = layers.Conv2D(4, 3, 2, use_bias=False, kernel_regularizer="l2", name=f"{prefix}conv1/conv")(x)
    x = layers.BatchNormalization(name=f"{prefix}conv1/bn")(x)
    x = layers.ReLU(6.0, name=f"{prefix}relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{prefix}depthwise")(x)
    y = layers.BatchNormalization(name=f"{prefix}depthwise_bn", epsilon=1e-2)(y)
    y = layers.Activation("swish", name=f"{prefix}swish")(y)
    return keras.Model(image, layers.Add(name=f"{prefix}add")([x, y]), name=name)


def head(keras: Any, x: Any, labels: int = 3) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.layers.Dense(labels, activation="softmax", name="scores")(x)


def flat(keras: Any) -> Any:
    inner = base(keras)
    return keras.Model(inner.input, head(keras, inner.output), name="flat")


def nested(keras: Any) -> Any:
    """A frozen base behind the arithmetic that ``preprocess_input`` leaves in a model, to pixels -1..1."""
    image = keras.Input((SIZE, SIZE, 3))
    x = image / 127.5
    inner = base(keras)
    inner.trainable = False
    return keras.Model(image, head(keras, inner(x - 1.0, training=False)))


def stack(keras: Any) -> Any:
    """A model with Teachable Machine's structure."""
    layers = keras.layers
    trunk = keras.Sequential([base(keras), layers.GlobalAveragePooling2D()])
    end = [layers.Dense(5, activation="relu"), layers.Dense(3, activation="softmax", use_bias=False)]
    model = keras.Sequential([trunk, keras.Sequential(end)])
    model.build((None, SIZE, SIZE, 3))
    model.compile("adam", "categorical_crossentropy")
    return model


def ops(keras: Any) -> Any:
    """TensorFlow's functions on Keras's tensors."""
    import tensorflow as tf

    image = keras.Input((SIZE, SIZE, 3))
    x = tf.cast(image, tf.float32)[:, :, :, ::-1]
    x = tf.nn.bias_add(x, [-103.939, -116.779, -123.68]) / 64.0
    x = 1.0 - tf.subtract(x, 0.5) * 0.5
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    y = tf.nn.silu(tf.nn.relu6(x)) + x
    y = y * tf.reduce_mean(tf.sigmoid(y), [1, 2], keepdims=True)
    y = tf.concat([tf.maximum(x, y), tf.nn.leaky_relu(y, 0.1)], -1)
    y = tf.clip_by_value(tf.transpose(y, (0, 2, 1, 3)), -2.0, 3.0)
    y = tf.reshape(tf.image.resize(y, (6, 6)), (-1, 6 * 6 * 8))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(tf.square(y)))


def composite(keras: Any) -> Any:
    """Layers that hold layers."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.TimeDistributed(layers.Dense(4, activation="tanh"))(layers.Reshape((SIZE, SIZE * 3))(image))
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.LSTM(4)(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


def shared(keras: Any) -> Any:
    """Two calls of one base and of one layer, and two bases whose layers have the same names."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    inner, dense = base(keras), layers.Dense(4, activation="relu")
    pool = layers.GlobalMaxPooling2D()
    counterparts = [dense(pool(inner(layers.Rescaling(scale)(image)))) for scale in (1 / 255, -1 / 255)]
    other = layers.GlobalAveragePooling2D()(base(keras, "other")(layers.Rescaling(1 / 127.5, -1)(image)))
    x = layers.Concatenate()([layers.Subtract()(counterparts), counterparts[0], other])
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


def deep(keras: Any) -> Any:
    """Models within models; in each group of weights the trainable ones come first."""
    image = keras.Input((SIZE, SIZE, 3))
    inner = base(keras, "inner")
    inner.layers[2].trainable = False
    middle = keras.Sequential([inner, base_of_four(keras)], name="middle")
    outer = keras.Model(image, middle(keras.layers.Rescaling(1 / 255)(image)), name="outer")
    second = keras.Input((SIZE, SIZE, 3))
    return keras.Model(second, head(keras, outer(second)))


def base_of_four(keras: Any) -> Any:
    layers = [keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization(), keras.layers.Conv2D(4, 1)]
    return keras.Sequential([keras.Input((6, 6, 4)), *layers], name="four")


def settings(keras: Any) -> Any:
    """Settings and layers that Keras 3 spells differently or does not have."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    normal = layers.Normalization(axis=-1)
    normal.adapt(np.random.default_rng(1).uniform(0, 255, (4, SIZE, SIZE, 3)))
    x = layers.RandomHeight(0.1)(layers.RandomFlip()(normal(image)))
    x = layers.Resizing(SIZE, SIZE)(x)
    x = layers.LeakyReLU(0.1)(layers.SeparableConv2D(4, 3)(x))
    x = layers.experimental.SyncBatchNormalization()(layers.ThresholdedReLU(0.3)(x) + layers.ELU()(x))
    x = layers.Conv2DTranspose(3, 2, activation="hard_sigmoid", name="transposed")(x)
    x = layers.LayerNormalization()(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.Activation("hard_sigmoid", name="sigmoid_of_old")(layers.UpSampling2D()(x))
    return keras.Model(image, head(keras, layers.SpatialDropout2D(0.1)(layers.AveragePooling2D()(x))))


def mixed(keras: Any) -> Any:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        image = keras.Input((SIZE, SIZE, 3))
        x = head(keras, base(keras)(keras.layers.Rescaling(1 / 255)(image)))
        return keras.Model(image, keras.layers.Activation("linear", dtype="float32")(x))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def long_names(keras: Any) -> Any:
    """A model whose names of weights do not fit into one attribute of 64 KB."""
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    source = y = keras.Input((SIZE, SIZE, 3))
    for number in range(60):
        y = keras.layers.BatchNormalization(name=f"{'long_' * 70}{number}")(y)
    x = keras.Model(source, y, name="inner")(x)
    return keras.Model(image, head(keras, x))


def gates(keras: Any) -> Any:
    """Recurrent layers with the hard sigmoid, which was their default."""
    layers, hard = keras.layers, {"recurrent_activation": "hard_sigmoid"}
    image = keras.Input((SIZE, SIZE, 3))
    rows = layers.Reshape((SIZE, SIZE * 3))(layers.Rescaling(1 / 255)(image))
    back = layers.LSTM(3, go_backwards=True)
    found = [
        layers.LSTM(4, **hard)(rows),
        layers.GRU(4, **hard)(rows),
        layers.GRU(4, reset_after=False, use_bias=False, **hard)(rows),
        layers.Bidirectional(layers.LSTM(3, **hard), backward_layer=back)(rows),
        layers.Bidirectional(layers.LSTM(3, use_bias=False, **hard))(rows),
        layers.Flatten()(layers.ConvLSTM2D(1, 3, **hard)(layers.Reshape((3, 4, SIZE, 3))(image / 255))),
    ]
    return keras.Model(image, layers.Dense(5, activation="softmax")(layers.Concatenate()(found)))


MODELS = {
    "flat": flat,
    "nested": nested,
    "stack": stack,
    "ops": ops,
    "composite": composite,
    "shared": shared,
    "deep": deep,
    "settings": settings,
    "mixed": mixed,
    "long_names": long_names,
    "gates": gates,
}

NO_SAVED_MODEL = ("gates", "long_names", "mixed")  # a SavedModel of these tests nothing more, and takes time

if __name__ == "__main__":
    import tf_keras

    main(Path(sys.argv[1]))
    write_texts(Path(sys.argv[1]))
    write_toolkit_models(tf_keras, Path(sys.argv[1]), seeded)
