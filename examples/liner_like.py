"""Write two folders as liner.ai exports them, and the pictures that they were trained on.

    python examples/liner_like.py --output build/liner

Each folder has `model_keras.h5` of Keras 2 (EfficientNetB0 for pictures of any size, raw pixels 0..255, with Adam's
slots), `classes.json` (`{"name": index}`), `example.py` and `image.jpg`. Both begin with the same base; the last ten
layers of each were trained, its Dense among them. `--network` takes the base from `examples/train_swish_heads.py`
(`build/swish/animals.keras`, then with `--size 96`), else its weights are random. `--tiny` makes a network of seconds.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import tf_keras
from PIL import Image
from tf_keras import layers

TASKS = {
    "colours": ("blue", "green", "red", "white", "yellow"),
    "patterns": ("checks", "columns", "dots", "rows", "slopes"),
}
COLOURS = {
    "blue": (30, 40, 220),
    "green": (30, 190, 40),
    "red": (220, 30, 30),
    "white": (235, 235, 235),
    "yellow": (230, 220, 20),
}
TRAINED = 10  # last layers of each classifier, its Dense among them, and those without weights
TINY_SIZE, USUAL_SIZE = 32, 224  # pixels
BATCH = 16
SEED = 16
EXAMPLE = """import json
import numpy as np
from PIL import Image
from tensorflow import keras

model = keras.models.load_model("model_keras.h5")
image = Image.open("image.jpg").convert("RGB").resize(({size}, {size}))
scores = model.predict(np.asarray(image, np.float32)[None])[0]
print({{name: float(scores[index]) for name, index in json.load(open("classes.json")).items()}})
"""


def picture(label: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 (size, size, 3): a cloudy colour, or a pattern in grey."""
    if label in COLOURS:
        cloud = Image.fromarray(rng.normal(0, 25, (4, 4)).astype(np.float32)).resize((size, size))
        return np.clip(np.asarray(cloud)[..., None] + COLOURS[label], 0, 255).astype(np.uint8)
    period, shift = size / rng.integers(4, 7), rng.uniform(0, size, 2)
    y, x = (np.mgrid[:size, :size] + shift[:, None, None]) * 2 * np.pi / period
    waves = {
        "checks": np.sign(np.sin(x) * np.sin(y)),
        "columns": np.sign(np.sin(x)),
        "dots": 2.0 * (np.sin(x) + np.sin(y) > 1.2) - 1,
        "rows": np.sign(np.sin(y)),
        "slopes": np.sign(np.sin((x + y) / 2)),
    }
    grey = 128 + rng.uniform(60, 100) * waves[label] + rng.normal(0, 8, (size, size))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def tiny_base() -> tf_keras.Model:
    """The same kinds of layers in small: Normalization, swish, a depthwise block, squeeze-and-excitation."""
    image = tf_keras.Input((None, None, 3), name="image")
    x = layers.Normalization(name="normalization")(layers.Rescaling(1 / 255, name="rescaling")(image))
    for name, filters in (("stem", 12), ("middle", 16)):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.Activation("swish", name=f"{name}_swish")(layers.BatchNormalization(name=f"{name}_bn")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="block_dwconv")(x)
    y = layers.Activation("swish", name="block_swish")(layers.BatchNormalization(name="block_bn")(y))
    se = layers.GlobalAveragePooling2D(name="block_se_squeeze")(y)
    se = layers.Reshape((1, 1, 16), name="block_se_reshape")(se)
    se = layers.Conv2D(4, 1, activation="swish", name="block_se_reduce")(se)
    se = layers.Conv2D(16, 1, activation="sigmoid", name="block_se_expand")(se)
    y = layers.Conv2D(16, 1, use_bias=False, name="block_project_conv")(layers.multiply([y, se], name="block_se_excite"))
    x = layers.add([x, layers.BatchNormalization(name="block_project_bn")(y)], name="block_add")
    x = layers.BatchNormalization(name="top_bn")(layers.Conv2D(48, 1, use_bias=False, name="top_conv")(x))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(layers.Activation("swish", name="top_swish")(x))
    return tf_keras.Model(image, x, name="base")


def whole_base(network: Path | None) -> tf_keras.Model:
    base = tf_keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg"
    )
    if network is not None:
        from builder.reading.formats import read_model  # reads weights without building the model

        given = {path[-1]: values for path, values in read_model(network).weights.items()}
        for layer in base.layers:
            if layer.weights:
                layer.set_weights(given[layer.name])
    return base


def settle(base: tf_keras.Model, pixels: np.ndarray) -> None:
    """Means and variances of random layers as these pictures make them; activations would vanish otherwise."""
    normal = [layer for layer in base.layers if isinstance(layer, layers.BatchNormalization)]
    momentum = normal[0].momentum
    for layer in normal:
        layer.momentum = 0.0
    base(pixels, training=True)
    for layer in normal:
        layer.momentum = momentum


def classifier(base: tf_keras.Model, pixels: np.ndarray, classes: np.ndarray, epochs: int) -> tf_keras.Model:
    """A copy of ``base`` with a Dense, both trained from ``base``'s last layers on."""
    own = tf_keras.models.clone_model(base)
    own.set_weights(base.get_weights())
    for layer in own.layers:
        layer.trainable = False
    for layer in own.layers[1 - TRAINED :]:
        layer.trainable = True
    scores = layers.Dense(int(classes.max()) + 1, activation="softmax", name="scores")(own.output)
    model = tf_keras.Model(own.input, scores)
    model.compile(tf_keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(pixels, classes, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description="Write two classifiers as liner.ai exports them.")
    parser.add_argument("--output", type=Path, default=Path("build/liner"), help="folder for all that is written")
    parser.add_argument("--network", type=Path, help="a .keras file of examples/train_swish_heads.py, for the base")
    parser.add_argument("--size", type=int, help="pixels of the pictures")
    parser.add_argument("--count", type=int, default=20, help="pictures of each label")
    parser.add_argument("--tiny", action="store_true", help="a small network instead of EfficientNetB0")
    arguments = parser.parse_args()
    tf_keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    size = arguments.size or (TINY_SIZE if arguments.tiny else USUAL_SIZE)
    pictures = {
        name: np.stack([picture(label, rng, size) for label in labels for _ in range(arguments.count)])
        for name, labels in TASKS.items()
    }
    base = tiny_base() if arguments.tiny else whole_base(arguments.network)
    if arguments.network is None:
        settle(base, np.concatenate([images[::2] for images in pictures.values()]).astype(np.float32))
    for name, labels in TASKS.items():
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        classes = np.repeat(np.arange(len(labels)), arguments.count)
        model = classifier(base, pictures[name].astype(np.float32), classes, 8 if arguments.tiny else 3)
        model.save(folder / "model_keras.h5")
        (folder / "classes.json").write_text(json.dumps({label: index for index, label in enumerate(labels)}), "utf-8")
        (folder / "example.py").write_text(EXAMPLE.format(size=size), "utf-8")
        Image.fromarray(pictures[name][0]).save(folder / "image.jpg")
        for number, image in enumerate(pictures[name]):
            place = arguments.output / "pictures" / name / labels[classes[number]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:03d}.png")
        found = np.argmax(model(pictures[name].astype(np.float32), training=False), 1)
        print(f"{name}: {int(np.sum(found == classes))} of {len(classes)} pictures right, as it learnt them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
