"""Train the three demo classifiers, each by itself on the same frozen EfficientNet-Lite0, and save them.

    python examples/train_demo_heads.py --output build/demo
    python examples/train_demo_heads.py --output build/demo --task garden

Each task runs in a process of its own and knows nothing of the others, as three people would do it. For each
there are afterwards `<task>.keras`, `<task>.txt` (one label a line) and `<task>.json` (accuracy on the
held-out pictures).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # Keras takes seconds to import: only the processes that train do so
    import keras

ROOT = Path(__file__).resolve().parent.parent
SIZE = 224
SEED = 20
EPOCHS = 10
BATCH = 16
LEARNING_RATE = 3e-3
VALIDATION_EVERY = 6  # each sixth training picture of a class decides when to stop
SCALE, OFFSET = 1 / 128, -127 / 128  # the backbone's normalisation, (p - 127) / 128


@dataclass(frozen=True)
class Pictures:
    """`images` float32 (n, 224, 224, 3), RGB, 0..255; `classes` int (n,), indices into `labels`."""

    images: np.ndarray
    classes: np.ndarray
    labels: tuple[str, ...]

    def pick(self, where: np.ndarray) -> Pictures:
        return Pictures(self.images[where], self.classes[where], self.labels)


def load_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)


def load_pictures(folder: Path) -> Pictures:
    """Every `<class>/*.jpg` of one task; the labels are the sub-folders' names in alphabetical order."""
    labels = sorted(path.name for path in folder.glob("*/") if path.is_dir())
    paths = [
        (path, index) for index, label in enumerate(labels) for path in sorted((folder / label).glob("*.jpg"))
    ]
    if not paths:
        raise FileNotFoundError(f"expected pictures <class>/*.jpg in {folder}, found none")
    return Pictures(
        np.stack([load_picture(path) for path, _ in paths]),
        np.array([index for _, index in paths]),
        tuple(labels),
    )


def split(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Training and validation, each with every class."""
    rank = np.concatenate(
        [np.arange(np.sum(pictures.classes == index)) for index in range(len(pictures.labels))]
    )
    validation = rank % VALIDATION_EVERY == 0
    return pictures.pick(~validation), pictures.pick(validation)


def animals_classifier(classes: int) -> keras.Model:
    """Flips and turns, the normalisation inside, one dense layer."""
    import keras
    from efficientnet_lite0 import efficientnet_lite0
    from keras import layers

    base = efficientnet_lite0(SIZE)
    base.trainable = False
    x = image = keras.Input((SIZE, SIZE, 3))
    x = layers.RandomFlip("horizontal", seed=SEED)(x)
    x = layers.RandomRotation(0.05, seed=SEED)(x)
    x = layers.Rescaling(SCALE, OFFSET)(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, seed=SEED)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x), name="animals")


def garden_classifier(classes: int) -> keras.Model:
    """The augmentation as a model of its own, the normalisation inside, a hidden layer."""
    import keras
    from efficientnet_lite0 import efficientnet_lite0
    from keras import layers

    base = efficientnet_lite0(SIZE)
    base.trainable = False
    augmentation = keras.Sequential(
        [
            layers.RandomFlip(seed=SEED),
            layers.RandomZoom(0.1, seed=SEED),
            layers.RandomContrast(0.2, seed=SEED),
        ],
        name="augmentation",
    )
    image = keras.Input((SIZE, SIZE, 3))
    x = base(layers.Rescaling(SCALE, OFFSET)(augmentation(image)), training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.3, seed=SEED)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x), name="garden")


def things_classifier(classes: int) -> keras.Model:
    """No normalisation inside: who uses the model must know it. A BatchNormalization in the head.

    `base.trainable = False` is what keeps the base's BatchNormalization at rest here: a Sequential model
    cannot say `training=False` for one of its layers.
    """
    import keras
    from efficientnet_lite0 import efficientnet_lite0
    from keras import layers

    base = efficientnet_lite0(SIZE)
    base.trainable = False
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.RandomTranslation(0.1, 0.1, seed=SEED),
            layers.RandomRotation(0.05, seed=SEED),
            base,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3, seed=SEED),
            layers.BatchNormalization(),
            layers.Dense(classes, activation="softmax"),
        ],
        name="things",
    )


@dataclass(frozen=True)
class Task:
    """How to build one classifier, and whether its pixels must be normalised before they enter it."""

    build: Callable[[int], keras.Model]
    normalise_outside: bool = False


TASKS = {
    "animals": Task(animals_classifier),
    "garden": Task(garden_classifier),
    "things": Task(things_classifier, normalise_outside=True),
}


def class_weights(classes: np.ndarray) -> dict[int, float]:
    """Each class counts the same in sum, however many pictures it has."""
    counts = np.bincount(classes)
    return {index: len(classes) / (len(counts) * count) for index, count in enumerate(counts)}


def train(task: Task, pictures: Pictures) -> keras.Model:
    """The fitted Keras model: the frozen base as it was, the head where the validation loss was lowest."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    training, validation = split(pictures)
    model = task.build(len(pictures.labels))
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        training.images,
        training.classes,
        batch_size=BATCH,
        epochs=EPOCHS,
        validation_data=(validation.images, validation.classes),
        class_weight=class_weights(training.classes),
        callbacks=[keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)],
        verbose=2 if sys.stdout.isatty() else 0,
    )
    return model


def save(model: keras.Model, labels: tuple[str, ...], result: dict, output: Path) -> None:
    """All three files are complete before the first takes its place: an interrupt leaves no half file."""
    name = result["task"]
    output.mkdir(parents=True, exist_ok=True)
    new = {ending: output / f".{name}.new.{ending}" for ending in ("txt", "json", "keras")}
    try:
        new["txt"].write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        new["json"].write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        model.save(new["keras"])
        for ending, path in new.items():
            path.replace(output / f"{name}.{ending}")
    finally:
        for path in new.values():
            path.unlink(missing_ok=True)


def run_task(name: str, *, pictures: Path, output: Path) -> dict:
    """Train one classifier, and only then look at the held-out pictures and count what it gets right."""
    task = TASKS[name]

    def load(folder: Path) -> Pictures:
        loaded = load_pictures(folder)
        if not task.normalise_outside:
            return loaded
        return Pictures(loaded.images * np.float32(SCALE) + np.float32(OFFSET), loaded.classes, loaded.labels)

    training = load(pictures / name)
    model = train(task, training)
    held_out = load(pictures / "held_out" / name)
    if held_out.labels != training.labels:
        raise ValueError(f"expected the held-out classes {training.labels}, found {held_out.labels}")
    correct = int(np.sum(model.predict(held_out.images, verbose=0).argmax(axis=1) == held_out.classes))
    count = len(held_out.classes)
    result = {"task": name, "training_pictures": len(training.classes), "held_out_pictures": count,
              "held_out_correct": correct, "held_out_accuracy": round(correct / count, 4)}  # fmt: skip
    save(model, training.labels, result, output)
    return result


def run_all(arguments: argparse.Namespace) -> int:
    for name in TASKS:
        command = [sys.executable, __file__, "--task", name]
        command += ["--output", str(arguments.output), "--pictures", str(arguments.pictures)]
        # TensorFlow greets on stderr whatever its log level is; it matters only when the training fails.
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, errors="replace")
        if done.returncode:
            sys.stderr.write(done.stderr)
            return done.returncode
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train the three demo classifiers on the same frozen backbone."
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "demo", help="folder for the Keras files"
    )
    parser.add_argument(
        "--pictures", type=Path, default=ROOT / "calibration_data", help="folder with the tasks' pictures"
    )
    parser.add_argument("--task", choices=TASKS, help="train this one only, in this process")
    arguments = parser.parse_args()
    try:
        if arguments.task is None:
            return run_all(arguments)
        start = time.monotonic()
        result = run_task(arguments.task, pictures=arguments.pictures, output=arguments.output)
    except KeyboardInterrupt:
        return 130
    except (OSError, ImportError, ValueError) as error:
        print(f"train_demo_heads: {error}", file=sys.stderr)
        return 2
    counts = f"{result['held_out_correct']} of {result['held_out_pictures']} held-out pictures right"
    seconds = time.monotonic() - start
    print(f"{result['task']}: {counts} ({result['held_out_accuracy']:.3f}), {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
