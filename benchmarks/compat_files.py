"""Save classifiers on a base of ``keras.applications`` or ``tf_keras.applications`` as every kind of file.

``python -m benchmarks.compat_files ARCHITECTURE keras|tf_keras FOLDER`` is a process of its own, because the two
frameworks share TensorFlow's state. FOLDER holds ``pictures.npy``. The files, their inputs and answers are added to it.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Architecture:
    """``preprocessing``: the input scaling; ``raw`` where the model has layers for it."""

    constructor: str
    preprocessing: str
    size: int = 96  # pixels a side


ARCHITECTURES = {
    "EfficientNetB0": Architecture("EfficientNetB0", "raw", 224),
    "EfficientNetV2B0": Architecture("EfficientNetV2B0", "raw"),
    "MobileNet": Architecture("MobileNet", "tf"),
    "MobileNetV2": Architecture("MobileNetV2", "tf"),
    "MobileNetV3Small": Architecture("MobileNetV3Small", "raw"),
    "MobileNetV3Large": Architecture("MobileNetV3Large", "raw"),
    "ResNet50": Architecture("ResNet50", "tf"),
    "Xception": Architecture("Xception", "tf"),
    "DenseNet121": Architecture("DenseNet121", "tf"),
}
HEADS = {"five": 5, "three": 3}
WRITERS = {"keras": ("-nested.keras", "-flat.keras"), "tf_keras": (".h5", ".keras", "_saved")}


def size_of(architecture: str) -> int:
    return ARCHITECTURES[architecture].size


def main(architecture: str, framework: str, folder: Path) -> None:
    keras: Any = importlib.import_module(framework)
    what = ARCHITECTURES[architecture]
    pictures = np.load(folder / "pictures.npy")
    inputs = pictures / np.float32(127.5) - 1 if what.preprocessing == "tf" else pictures
    np.save(folder / "inputs.npy", inputs)
    shape = (what.size, what.size, 3)
    base = getattr(keras.applications, what.constructor)(include_top=False, weights=None, input_shape=shape)
    seed_weights(base, inputs)
    base.trainable = False
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    features = np.asarray(keras.Model(base.input, pooled)(inputs, training=False))
    for seed, (name, labels) in enumerate(HEADS.items()):
        values = head_weights(features, labels, seed)
        for file in WRITERS[framework]:
            model = classifier(keras, base, labels, nested="flat" not in file)
            model.layers[-1].set_weights(values)
            np.save(folder / f"{name}.npy", np.asarray(model(inputs, training=False)))
            model.save(folder / f"{name}{file}", **({"save_format": "tf"} if file == "_saved" else {}))


def classifier(keras: Any, base: Any, labels: int, *, nested: bool) -> Any:
    """``base`` with pooling and a softmax. A nested base is one layer; otherwise its layers are the model's own."""
    source = keras.Input(base.input_shape[1:]) if nested else base.input
    features = base(source, training=False) if nested else base.output
    x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.Model(source, keras.layers.Dense(labels, activation="softmax", name="scores")(x))


def seed_weights(model: Any, inputs: np.ndarray) -> None:
    """Draw every weight at random, so that an error in any layer, batch normalization included, shows.

    The moving statistics are then computed from ``inputs``, as in a trained network. With other statistics a deep network
    amplifies the rounding of float32, and two runs of Keras itself would differ by more than what is measured here.
    """
    rng = np.random.default_rng(0)
    values = []
    for value in model.get_weights():
        if value.ndim > 1:
            fan_in = np.prod(value.shape[:-1]) if value.shape[-1] > 1 else np.prod(value.shape[:2])
            values.append(rng.normal(0, np.sqrt(1.5 / fan_in), value.shape))
        elif value.ndim == 0:
            values.append(value)
        else:
            near_one = np.allclose(value, 1)  # the first values of scales and variances; those of shifts and means are 0
            values.append(rng.uniform(0.7, 1.3, value.shape) if near_one else rng.normal(0, 0.1, value.shape))
    model.set_weights([np.asarray(v, old.dtype) for v, old in zip(values, model.get_weights(), strict=True)])
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    for layer in model.layers:
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()  # derives what it computes with from its weights
    model(inputs, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def head_weights(features: np.ndarray, labels: int, seed: int) -> list[np.ndarray]:
    """Kernel and bias whose logits have mean 0 and standard deviation 2 over the pictures."""
    kernel = np.random.default_rng(seed + 1).normal(0, 1, (features.shape[1], labels))
    logits = features @ kernel
    wider = 2 / np.maximum(logits.std(0), 1e-12)
    return [(kernel * wider).astype(np.float32), (-logits.mean(0) * wider).astype(np.float32)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
