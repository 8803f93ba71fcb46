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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np

from builder.settings.input_scaling import PixelTransform
from builder.support.errors import BuilderError
from builder.training.samples import Samples, read_class_folders, validating
from edge_runtime.image_input import ImageInput

if TYPE_CHECKING:  # Keras takes seconds to import: only the processes that train do so
    import keras

ROOT = Path(__file__).resolve().parent.parent
SIZE = 224
SEED = 20
VIEWS = 3  # of each training picture: as it is, and twice as the model's own augmentation changes it
EPOCHS = 40
LEARNING_RATE = 1e-3
WEIGHT_PENALTY = 0.01  # L2; chosen by cross-validation on training stamps: the log loss of `garden` and `things` falls
STAMP = "(.+)__"  # what comes before it in a picture's name is the stamp that it shows
SCALE, OFFSET = 1 / 128, -127 / 128  # the backbone's normalisation, (p - 127) / 128
PIXELS = PixelTransform().then(SCALE, OFFSET)


def animals_classifier(classes: int) -> keras.Model:
    """Flips and turns, the normalisation inside, one dense layer."""
    import keras
    from keras import layers

    from builder.training.efficientnet_lite0 import efficientnet_lite0

    base = efficientnet_lite0(SIZE)
    base.trainable = False
    x = image = keras.Input((SIZE, SIZE, 3))
    x = layers.RandomFlip("horizontal", seed=SEED)(x)
    x = layers.RandomRotation(0.05, seed=SEED)(x)
    x = layers.Rescaling(SCALE, OFFSET)(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, seed=SEED)(x)
    penalty = keras.regularizers.L2(WEIGHT_PENALTY)
    scores = layers.Dense(classes, activation="softmax", kernel_regularizer=penalty)(x)
    return keras.Model(image, scores, name="animals")


def garden_classifier(classes: int) -> keras.Model:
    """The augmentation as a model of its own, the normalisation inside, a hidden layer."""
    import keras
    from keras import layers

    from builder.training.efficientnet_lite0 import efficientnet_lite0

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
    penalty = keras.regularizers.L2(WEIGHT_PENALTY)
    x = layers.Dense(64, activation="relu", kernel_regularizer=penalty)(x)
    x = layers.Dropout(0.3, seed=SEED)(x)
    scores = layers.Dense(classes, activation="softmax", kernel_regularizer=penalty)(x)
    return keras.Model(image, scores, name="garden")


def things_classifier(classes: int) -> keras.Model:
    """No normalisation inside: who uses the model must know it. A BatchNormalization in the head.

    `base.trainable = False` is what keeps the base's BatchNormalization at rest here: a Sequential model
    cannot say `training=False` for one of its layers.
    """
    import keras
    from keras import layers

    from builder.training.efficientnet_lite0 import efficientnet_lite0

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
            # 1 beside variances of about 0.1: channels that hardly vary stay quiet. Few steps, so a short memory.
            layers.BatchNormalization(momentum=0.9, epsilon=1.0),
            layers.Dense(classes, activation="softmax", kernel_regularizer=keras.regularizers.L2(WEIGHT_PENALTY)),
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


def divide(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The model up to the pooled features, and its head; both share the layers of `model`."""
    import keras

    pooled = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)).output
    return keras.Model(model.inputs, pooled), keras.Model(pooled, model.outputs[0])


def train(task: Task, pictures: Samples) -> keras.Model:
    """The fitted Keras model, its base as it was.

    The frozen base is nearly all of the work and always gives the same features for the same picture: so it
    runs a few times for each picture, and the head is trained on what it gave.
    """
    import keras
    import tensorflow as tf

    from builder.training.fit import fit_head, views

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model = task.build(len(pictures.labels))
    extractor, head = divide(model)
    features = views(extractor, pictures.inputs, VIEWS)
    fit_head(
        head,
        features,
        pictures.classes,
        validating(pictures),
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        seed=SEED,
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

    def load(folder: Path) -> Samples:
        loaded = read_class_folders(folder, ImageInput(SIZE, SIZE), group_by=STAMP)
        return replace(loaded, inputs=PIXELS.apply(loaded.inputs)) if task.normalise_outside else loaded

    training = load(pictures / name)
    model = train(task, training)
    held_out = load(pictures / "held_out" / name)
    if held_out.labels != training.labels:
        raise ValueError(f"expected the held-out classes {training.labels}, found {held_out.labels}")
    correct = int(np.sum(model.predict(held_out.inputs, verbose=0).argmax(axis=1) == held_out.classes))
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
    parser = argparse.ArgumentParser(description="Train the three demo classifiers on the same frozen backbone.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "demo", help="folder for the Keras files")
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
    except (OSError, ImportError, ValueError, BuilderError) as error:
        print(f"train_demo_heads: {error}", file=sys.stderr)
        return 2
    counts = f"{result['held_out_correct']} of {result['held_out_pictures']} held-out pictures right"
    seconds = time.monotonic() - start
    print(f"{result['task']}: {counts} ({result['held_out_accuracy']:.3f}), {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
