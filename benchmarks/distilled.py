"""Train an EfficientNet-B0 to measure int8 on: ``python -m benchmarks.distilled --pictures DIR [DIR ...]``.

No package has its ImageNet weights. EfficientNet-Lite0 has the same layers, but no squeeze-and-excitation, and ReLU6
instead of swish. Training therefore starts from Lite0's weights. All weights learn to give Lite0's answers to crops of
the pictures (Hinton et al. 2015, arXiv 1503.02531), and the outputs of each block of Lite0 (Romero et al. 2014, arXiv
1412.6550). Every fifth picture is held out; the share of equal answers on these is printed after each epoch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from builder.training.efficientnet_lite0 import STAGES, efficientnet_lite0

SIZE, BATCH, SEED = 224, 16, 20
LEAST_AREA, CROP = 0.35, 0.875
TEMPERATURE = 2.0
RATE, WARM_UP = 1e-3, 30
GATE = 0.5  # output of an untrained squeeze-and-excitation; the projection behind it compensates
SHARPNESS = 2.0  # swish(2 x) / 2 is nearer to ReLU, so activations are this much larger than Lite0's
MOMENTUM = 0.9  # of moving statistics, because there are few steps
HELD_OUT = 5


def student() -> keras.Model:
    """EfficientNet-B0 of pixels 0..255 with EfficientNet-Lite0's weights; probabilities of the 1000 classes."""
    teacher = efficientnet_lite0(SIZE, include_top=True)
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(SIZE, SIZE, 3))
    mean, variance = np.full(3, 127 / 255, np.float32), np.full(3, (128 / 255) ** 2, np.float32)
    pixels = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    pixels.set_weights([mean, variance, np.int64(0)])
    pixels.finalize_state()
    for theirs, ours in _pairs():
        weights = teacher.get_layer(theirs).get_weights()
        model.get_layer(ours).set_weights(_sharpened(ours, weights))
    for layer in model.layers:
        if layer.name.endswith("se_expand"):
            layer.set_weights([0.1 * weight for weight in layer.get_weights()])
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # the teacher has no dropout
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


def _sharpened(name: str, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Scale the output of a normalization in front of a swish by ``SHARPNESS``, and undo it in the layer behind."""
    if name.endswith("_bn") and not name.endswith("project_bn"):
        gamma, beta, mean, variance = weights
        return [SHARPNESS * gamma, SHARPNESS * beta, mean, variance]
    if name in ("stem_conv", "top_conv") or name.endswith(("expand_conv", "project_bn")):
        return weights  # their input is linear
    kernel, *bias = weights
    return [kernel / SHARPNESS / (GATE if name.endswith("project_conv") else 1), *bias]


def _pairs() -> Iterator[tuple[str, str]]:
    """The names of each layer with weights, in Lite0 and in Keras's B0."""
    yield from (("stem", "stem_conv"), ("stem_bn", "stem_bn"), ("top", "top_conv"), ("top_bn", "top_bn"))
    yield "predictions", "predictions"
    blocks = ((number, repeat) for number, stage in enumerate(STAGES) for repeat in range(stage.repeats))
    for index, (number, repeat) in enumerate(blocks):
        theirs, ours = f"block{index}", f"block{number + 1}{'abcd'[repeat]}"
        if STAGES[number].expansion != 1:
            yield from ((f"{theirs}_expand", f"{ours}_expand_conv"), (f"{theirs}_expand_bn", f"{ours}_expand_bn"))
        yield from ((f"{theirs}_depthwise", f"{ours}_dwconv"), (f"{theirs}_depthwise_bn", f"{ours}_bn"))
        yield from ((f"{theirs}_project", f"{ours}_project_conv"), (f"{theirs}_project_bn", f"{ours}_project_bn"))


def without_softmax(model: keras.Model) -> keras.Model:
    """The model up to its logits, with copied weights of its last layer."""
    last = model.layers[-1]
    dense = keras.layers.Dense(last.units, name="logits")
    logits = keras.Model(model.input, dense(last.input))
    dense.set_weights(last.get_weights())
    return logits


def opened_pictures(paths: Sequence[Path]) -> list[np.ndarray]:
    """The pictures, each uint8 (height, width, 3)."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def crops(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A random square of each picture, half of them mirrored: float32 (pictures, 224, 224, 3), 0..255."""
    views = []
    for picture in pictures:
        view = _square(picture, np.sqrt(rng.uniform(LEAST_AREA, 1)), tuple(rng.random(2)))
        views.append(view[:, ::-1] if rng.random() < 0.5 else view)
    return np.stack(views)


def middles(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The square in the middle of each picture; otherwise as ``crops``."""
    return np.stack([_square(picture, CROP, (0.5, 0.5)) for picture in pictures])


def _square(picture: np.ndarray, share: float, place: Sequence[float]) -> np.ndarray:
    height, width = picture.shape[:2]
    side = share * min(height, width)
    left, top = place[0] * (width - side), place[1] * (height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box), np.float32)


class Lesson:
    """A teacher and a student, both models from pictures to logits."""

    def __init__(self, steps: int) -> None:
        self.student = without_softmax(student())
        teacher = without_softmax(efficientnet_lite0(SIZE, include_top=True))
        blocks = [(theirs, ours) for theirs, ours in _pairs() if ours.endswith("project_bn")]
        self._theirs, self._ours = (
            keras.Model(model.input, [*(model.get_layer(pair[side]).output for pair in blocks), model.output])
            for side, model in enumerate((teacher, self.student))
        )
        rate = keras.optimizers.schedules.CosineDecay(RATE / 10, steps, warmup_target=RATE, warmup_steps=WARM_UP)
        self._optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-5, clipnorm=1.0)
        self.step = tf.function(self._step)

    def _step(self, images: Any) -> Any:
        *wanted, logits = self._truth(images)
        aim = tf.nn.softmax(logits / TEMPERATURE)
        with tf.GradientTape() as tape:
            *found, logits = self._ours(images, training=True)
            answers = tf.nn.log_softmax(logits / TEMPERATURE)
            loss = tf.reduce_mean(tf.reduce_sum(aim * (tf.math.log(aim + 1e-9) - answers), 1))
            for truth, block in zip(wanted, found, strict=True):
                loss += tf.reduce_mean((truth - block) ** 2) / tf.math.reduce_variance(truth) / len(wanted)
        variables = self.student.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _truth(self, images: Any) -> Any:
        return self._theirs((images - 127.0) / 128.0, training=False)

    def agreement(self, pictures: Sequence[np.ndarray]) -> float:
        """The share of pictures on which both have the same top label."""
        same = 0
        for i in range(0, len(pictures), BATCH):
            images = middles(pictures[i : i + BATCH])
            found = self.student(images, training=False)
            same += int(np.sum(np.argmax(found, 1) == np.argmax(self._truth(images)[-1], 1)))
        return same / len(pictures)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.Model(self.student.input, keras.layers.Softmax(name="classes")(self.student.output)).save(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, nargs="+", required=True, metavar="DIR", help="folders of pictures")
    parser.add_argument("--output", type=Path, default=Path("build/distilled/b0.keras"), help="the Keras file")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    start = time.monotonic()
    keras.utils.set_random_seed(SEED)
    paths = [path for folder in options.pictures for path in sorted(folder.rglob("*.[jp][pn]g"))]
    pictures = opened_pictures(paths)
    held_out, taught = pictures[::HELD_OUT], [p for i, p in enumerate(pictures) if i % HELD_OUT]
    batches, rng = len(taught) // BATCH, np.random.default_rng(SEED)
    lesson = Lesson(options.epochs * batches)
    for epoch in range(options.epochs):
        order = rng.permutation(len(taught))[: batches * BATCH].reshape(batches, BATCH)
        loss = np.mean([lesson.step(crops([taught[i] for i in batch], rng)) for batch in order])
        same = lesson.agreement(held_out)
        print(
            f"epoch {epoch + 1}: loss {loss:.3f}, {same:.3f} agreement with Lite0, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        lesson.save(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
