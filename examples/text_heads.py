"""Two hundred text classifiers on one frozen base, and one file of them: ``python examples/text_heads.py``.

The texts are WordNet's definitions (``calibration_data/glosses``). A base learns to tell 24 of the 36 labels apart and is
frozen; 200 tasks are pairs and triples of all labels, and each gets a classifier of its own, saved as its own ``.keras``
as 200 people would have made it. ``builder build`` then makes one ``.tflite`` of the 200 files. Writes them to
``build/text``, and the held-out accuracy of every head, float and int8, to ``accuracy.json`` and ``accuracy.png`` there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GLOSSES = ROOT / "calibration_data" / "glosses" / "glosses.tsv"
TASKS, BASE_LABELS = 200, 24
VOCABULARY, LENGTH, WIDTH, FEATURES = 5000, 32, 64, 64
EPOCHS, STEPS = 12, 400
CALIBRATION_TEXTS = 40  # of each label of a task
SEED = 7


@dataclass(frozen=True)
class Texts:
    """``held_out``: texts that neither train nor calibrate anything. Both by label."""

    train: dict[str, list[str]]
    held_out: dict[str, list[str]]


@dataclass(frozen=True)
class Task:
    """A classifier: its name, its labels, and its last layer."""

    name: str
    labels: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray


def read_texts(path: Path = GLOSSES) -> Texts:
    """A fifth of the texts of each label is held out, by what they say."""
    texts = Texts({}, {})
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            fifth = int(hashlib.sha256(row["gloss"].encode()).hexdigest()[:8], 16) % 5 == 0
            (texts.held_out if fifth else texts.train).setdefault(row["label"], []).append(row["gloss"])
    return texts


def draw_tasks(labels: list[str], count: int = TASKS) -> dict[str, tuple[str, ...]]:
    """Pairs and triples of labels in turn, none twice, by the name of their head."""
    rng, found = np.random.default_rng(SEED), set[tuple[str, ...]]()
    while len(found) < count:
        found.add(tuple(sorted(rng.choice(labels, 2 + len(found) % 2, replace=False))))
    return {"_or_".join(label.replace(".", "_") for label in task): task for task in sorted(found)}


def train_base(texts: Texts) -> Any:
    """Strings -> features, frozen: trained to tell the first ``BASE_LABELS`` labels apart."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(SEED)
    known = sorted(texts.train)[:BASE_LABELS]
    sentences = [text for label in known for text in texts.train[label]]
    classes = np.repeat(np.arange(len(known)), [len(texts.train[label]) for label in known])
    words = layers.TextVectorization(max_tokens=VOCABULARY, output_sequence_length=LENGTH)
    words.adapt([text for label in sorted(texts.train) for text in texts.train[label]])
    text = keras.Input((), dtype="string", name="text")
    x = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(words(text))
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(FEATURES, activation="relu")(x)
    base = keras.Model(text, x, name="base")
    scores = layers.Dense(len(known), activation="softmax")(layers.Dropout(0.4)(x))
    model = keras.Model(text, scores)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(tf.constant(sentences), classes, batch_size=32, epochs=EPOCHS, verbose=0)
    base.trainable = False
    return base


def softmax_regression(features: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a dense layer for ``features`` (samples, n), by gradient descent with momentum."""
    count = int(classes.max()) + 1
    scale = features.std(0) + 1e-3
    x, truth = features / scale, np.eye(count)[classes]
    weights, bias, speed = np.zeros((x.shape[1], count)), np.zeros(count), np.zeros((x.shape[1] + 1, count))
    for _ in range(STEPS):
        logits = x @ weights + bias
        error = softmax(logits) - truth
        slope = np.vstack([x.T @ error / len(x) + 1e-3 * weights, error.mean(0)])
        speed = 0.9 * speed - 0.1 * slope
        weights, bias = weights + speed[:-1], bias + speed[-1]
    return (weights / scale[:, None]).astype(np.float32), bias.astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: np.ndarray = powers / powers.sum(1, keepdims=True)
    return result


def train_tasks(base: Any, texts: Texts, count: int) -> Iterator[Task]:
    """The base does not change, so what it makes of each text is computed once."""
    import tensorflow as tf

    features = {label: base.predict(tf.constant(some), verbose=0) for label, some in texts.train.items()}
    for name, labels in draw_tasks(sorted(texts.train), count).items():
        classes = np.repeat(np.arange(len(labels)), [len(features[label]) for label in labels])
        yield Task(name, labels, *softmax_regression(np.concatenate([features[n] for n in labels]), classes))


def write_task(base: Any, task: Task, texts: Texts, folder: Path) -> str:
    """The classifier as a file of its own, its texts, and its table in the TOML."""
    import keras

    text = keras.Input((), dtype="string", name="text")
    scores = keras.layers.Dense(len(task.labels), activation="softmax")
    model = keras.Model(text, scores(base(text)))
    scores.set_weights([task.kernel, task.bias])
    model.save(folder / f"{task.name}.keras")
    for kind, some in (("texts", texts.train), ("held_out", texts.held_out)):
        (folder / kind / task.name).mkdir(parents=True, exist_ok=True)
        for label in task.labels:
            chosen = some[label][:CALIBRATION_TEXTS] if kind == "texts" else some[label]
            (folder / kind / task.name / f"{label}.txt").write_text("\n".join(chosen) + "\n", "utf-8")
    return f'[heads.{task.name}]\nmodel = "{task.name}.keras"\nlabels = {json.dumps(list(task.labels))}\n'


def prepare(folder: Path, count: int) -> tuple[Any, list[Task], Texts]:
    """Everything that a build needs, in ``folder``; the configuration is ``text_heads.toml``."""
    texts = read_texts()
    folder.mkdir(parents=True, exist_ok=True)
    base = train_base(texts)
    tasks = list(train_tasks(base, texts, count))
    tables = [write_task(base, task, texts, folder) for task in tasks]
    top = 'output = "text_heads.tflite"\ncalibration_data = "texts"\nverification_data = "held_out"\njoint = false\n'
    (folder / "text_heads.toml").write_text("\n".join([top, *tables]), "utf-8")
    return base, tasks, texts


def accuracies(file: Path, base: Any, tasks: list[Task], texts: Texts) -> dict[str, dict[str, float]]:
    """Of each head on the held-out texts of its labels: float as trained, int8 as the file answers; and how often both
    say the same.
    """
    import tensorflow as tf

    from edge_runtime import MultiHeadClassifier

    floats = {label: base.predict(tf.constant(some), verbose=0) for label, some in texts.held_out.items()}
    found = {}
    with MultiHeadClassifier(file) as classifier:
        int8 = {label: [classifier.features(text) for text in some] for label, some in texts.held_out.items()}
        for task in tasks:
            truth = np.repeat(np.arange(len(task.labels)), [len(floats[label]) for label in task.labels])
            ours = np.concatenate([floats[label] for label in task.labels]) @ task.kernel + task.bias
            rows = [features for label in task.labels for features in int8[label]]
            theirs = np.stack([classifier.head_scores(row, task.name) for row in rows])
            found[task.name] = {
                "float": float(np.mean(ours.argmax(1) == truth)),
                "int8": float(np.mean(theirs.argmax(1) == truth)),
                "agreement": float(np.mean(ours.argmax(1) == theirs.argmax(1))),
                "texts": len(truth),
            }
    return found


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    """Accuracy of every head, float against int8, and how often both agree."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    heads = sorted(found.values(), key=lambda head: head["float"])
    places = np.arange(len(heads))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(2, 1))
    left.plot(places, [head["float"] for head in heads], color="0.6", lw=3, label="float, 200 files")
    left.plot(places, [head["int8"] for head in heads], ".", ms=4, color="tab:blue", label="int8, one file")
    left.set(xlabel="head, by the accuracy of its float model", ylabel="accuracy on held-out texts")
    left.legend(frameon=False)
    right.hist([head["agreement"] for head in heads], bins=20, color="tab:blue")
    right.set(xlabel="int8 agrees with float", ylabel="heads")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "text")
    parser.add_argument("--tasks", type=int, default=TASKS)
    options = parser.parse_args()
    base, tasks, texts = prepare(options.output, options.tasks)

    from builder import BuildConfig, build

    result = build(BuildConfig.from_toml(options.output / "text_heads.toml"))
    found = accuracies(result.output, base, tasks, texts)
    (options.output / "accuracy.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    plot(found, options.output / "accuracy.png")
    numbers = {key: np.array([head[key] for head in found.values()]) for key in ("float", "int8", "agreement")}
    print(f"{result.output}: {result.output.stat().st_size:,} bytes, {len(tasks)} heads")
    print(f"accuracy on held-out texts: float {numbers['float'].mean():.4f}, int8 {numbers['int8'].mean():.4f}")
    print(f"agreement: mean {numbers['agreement'].mean():.4f}, worst {numbers['agreement'].min():.4f}")
    print(f"seconds: { {stage: round(s, 1) for stage, s in result.report.seconds.items()} }")


if __name__ == "__main__":
    main()
