"""Train EfficientNet-B0 (swish, squeeze-and-excitation) at 96 pixels, and three classifiers on it.

    python examples/train_swish_heads.py --output build/swish

The weights are trained, not seeded: the whole network learns to give the features of EfficientNet-Lite0 (Hinton et al.
2015, arXiv 1503.02531) and the labels of the demo's pictures together. Held-out pictures train nothing.
Writes `<task>.keras` and `<task>.txt` for each task, and `swish.toml` to build from.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from train_demo_heads import OFFSET, ROOT, SCALE

from builder.training.efficientnet_lite0 import efficientnet_lite0
from builder.training.samples import Samples, read_class_folders
from edge_runtime.image_input import ImageInput

SIZE, TEACHER_SIZE = 96, 224
TASKS = ("animals", "garden", "things")
VIEWS = 4  # of each training picture, changed at random; the teacher sees each of them once
EPOCHS = 12
BATCH = 32
LEARNING_RATE = 2e-3
SEED = 20
CONFIG = """output = "swish.tflite"
calibration_data = "{pictures}"
verification_data = "{pictures}/held_out"
"""


def labelled(folder: Path) -> Samples:
    return read_class_folders(folder, ImageInput(TEACHER_SIZE, TEACHER_SIZE))


def augment(images: tf.Tensor, seed: int) -> tf.Tensor:
    """Mirrored, cut to 70 % of their area or more, lighter or darker; float32 (n, 224, 224, 3), 0..255."""
    key = tf.constant([SEED, seed])
    count = len(images)
    corner = tf.random.stateless_uniform((count, 2), key) * 0.15
    boxes = tf.concat([corner, corner + 0.85], axis=1)
    images = tf.image.crop_and_resize(images, boxes, range(count), (TEACHER_SIZE, TEACHER_SIZE))
    mirrored = tf.random.stateless_uniform((count, 1, 1, 1), key + 1) < 0.5
    light = tf.random.stateless_uniform((count, 1, 1, 1), key + 2, 0.8, 1.2)
    return tf.clip_by_value(tf.where(mirrored, images[:, :, ::-1], images) * light, 0, 255)


def small(images: tf.Tensor) -> np.ndarray:
    """uint8 (n, 96, 96, 3)."""
    return tf.cast(tf.round(tf.image.resize(images, (SIZE, SIZE), antialias=True)), tf.uint8).numpy()


def lessons(pictures: dict[str, Samples]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 (n, 96, 96, 3), the teacher's features (n, 1280), and the class and the task of each."""
    base = efficientnet_lite0(TEACHER_SIZE)
    teacher = keras.Model(base.input, layers.GlobalAveragePooling2D()(base.output))
    images, features, classes, tasks = [], [], [], []
    for number, task in enumerate(pictures.values()):
        for view in range(VIEWS):
            seen = augment(tf.constant(task.inputs), view) if view else tf.constant(task.inputs)
            images.append(small(seen))
            features.append(teacher.predict(seen * SCALE + OFFSET, batch_size=BATCH, verbose=0))
            classes.append(task.classes)
            tasks.append(np.full(len(task.classes), number))
    return tuple(np.concatenate(column) for column in (images, features, classes, tasks))


def student(pictures: dict[str, Samples]) -> tuple[keras.Model, keras.Model]:
    """The backbone, pixels 0..255 -> features (1280,), and a model with the scores of every task beside them."""
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3), pooling="avg")
    outputs = {"features": layers.BatchNormalization(name="as_the_teachers")(base.output)}
    for name, task in pictures.items():
        outputs[name] = layers.Dense(len(task.labels), activation="softmax", name=name)(base.output)
    return base, keras.Model(base.input, outputs)


def train(whole: keras.Model, images: np.ndarray, features: np.ndarray, classes: np.ndarray, tasks: np.ndarray) -> None:
    """Adam with a rate that falls as a cosine; each picture counts for the task that it belongs to."""
    spread = features.std(0) + 0.1 * features.std()
    targets = {"features": (features - features.mean(0)) / spread}
    weights = {"features": np.ones(len(images)), **{name: (tasks == i) * 1.0 for i, name in enumerate(TASKS)}}
    # A class beyond the labels of a task would be an error even where it counts for nothing.
    targets.update((name, np.where(tasks == i, classes, 0)) for i, name in enumerate(TASKS))
    steps = EPOCHS * -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE / 10, steps, warmup_target=LEARNING_RATE, warmup_steps=60)
    losses = {"features": "mse", **dict.fromkeys(TASKS, "sparse_categorical_crossentropy")}
    whole.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), losses, jit_compile=False)
    whole.fit(
        images.astype(np.float32), targets, batch_size=BATCH, epochs=EPOCHS, sample_weight=weights,
        verbose=2 if sys.stdout.isatty() else 0,
    )  # fmt: skip


def save(base: keras.Model, whole: keras.Model, pictures: dict[str, Samples], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name, task in pictures.items():
        keras.Model(base.input, whole.get_layer(name)(base.output), name=name).save(output / f"{name}.keras")
        (output / f"{name}.txt").write_text("".join(f"{label}\n" for label in task.labels), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Train three classifiers on an EfficientNet-B0 of 96 pixels.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "swish", help="folder for the Keras files")
    parser.add_argument("--pictures", type=Path, default=ROOT / "calibration_data", help="the demo's pictures")
    arguments = parser.parse_args()
    start = time.monotonic()
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    pictures = {name: labelled(arguments.pictures / name) for name in TASKS}
    learnt = lessons(pictures)
    base, whole = student(pictures)
    train(whole, *learnt)
    save(base, whole, pictures, arguments.output)
    folder = Path(os.path.relpath(arguments.pictures.resolve(), arguments.output.resolve())).as_posix()
    heads = "".join(f'\n[heads.{name}]\nmodel = "{name}.keras"\n' for name in TASKS)
    (arguments.output / "swish.toml").write_text(CONFIG.format(pictures=folder) + heads, "utf-8")
    for name in TASKS:
        held_out = labelled(arguments.pictures / "held_out" / name)
        found = whole.predict(small(tf.constant(held_out.inputs)).astype(np.float32), verbose=0)[name].argmax(1)
        print(f"{name}: {int(np.sum(found == held_out.classes))} of {len(found)} held-out pictures right")
    print(f"{time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
