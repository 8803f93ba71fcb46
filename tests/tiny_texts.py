"""Seeded text classifiers of a few hundred parameters, and texts for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.tiny_models import label_names, seed_weights

if TYPE_CHECKING:
    from builder import BuildConfig

WORDS = tuple(f"w{i}" for i in range(40))
LENGTH, ROWS, WIDTH = 12, 48, 16  # tokens; rows of the embedding, more than there are words; its columns


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 15 words, some of them unknown to the models, with several spellings."""
    rng = np.random.default_rng(seed)
    known = [*WORDS, *(word.upper() for word in WORDS[:5]), "unknown", "w3!", "(w4)"]
    return [" ".join(rng.choice(known, rng.integers(1, 16))) for _ in range(count)]


def text_base(
    seed: int = 0,
    *,
    body: Callable[[Any], Any] | None = None,
    words: Sequence[str] | None = WORDS,
    mask_zero: bool = False,
    **settings: Any,
) -> Any:
    """A base from texts to features: TextVectorization with ``words``, Embedding, ``body`` (default: pooling), Dense.

    ``words``: None for a model that takes the numbers of tokens. ``settings``: of the TextVectorization.
    """
    import keras
    from keras import layers

    if words is None:
        x = source = keras.Input((LENGTH,), dtype="int32")
    else:
        source = keras.Input((), dtype="string")
        settings = {"output_sequence_length": LENGTH, "vocabulary": list(words), **settings}
        x = layers.TextVectorization(name="words", **settings)(source)
    x = layers.Embedding(ROWS, WIDTH, mask_zero=mask_zero, name="embedding")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x) if body is None else body(x)
    model = keras.Model(source, layers.Dense(16, activation="relu", name="features")(x), name="base")
    seed_weights(model, seed)
    model.get_layer("embedding").embeddings.assign(np.random.default_rng(seed).normal(0, 1, (ROWS, WIDTH)))
    return model


def text_classifier(base: Any, labels: int, seed: int = 1) -> Any:
    import keras
    from keras import layers

    source = keras.Input(base.input.shape[1:], dtype=base.input.dtype)
    scores = layers.Dense(labels, activation="softmax", name="scores")
    model = keras.Model(source, scores(base(source)))
    seed_weights(scores, 1000 * seed)
    scores.kernel.assign(2 * scores.kernel)
    return model


def save_texts(folder: Path, heads: Sequence[str], count: int = 30) -> None:
    for number, name in enumerate(heads):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "texts.txt").write_text("\n".join(sentences(count, seed=number + 1)) + "\n", "utf-8")


def text_config(
    folder: Path, heads: Mapping[str, Any], *, base: Any = None, texts: int = 30, **overrides: Any
) -> BuildConfig:
    """As ``tiny_models.tiny_config``, for texts. ``heads``: a number of labels or a Keras model for each name."""
    from builder import BuildConfig, HeadConfig
    from builder.settings.config import JointConfig

    configs = []
    for number, (name, head) in enumerate(heads.items()):
        if isinstance(head, int):
            base = text_base() if base is None else base
            head = text_classifier(base, head, number + 1)
        head.save(folder / f"{name}.keras")
        configs.append(HeadConfig(name, folder / f"{name}.keras", label_names(name, head.output_shape[-1])))
    save_texts(folder / "texts", list(heads), texts)
    fields = {"min_agreement": 0.0, "joint": JointConfig(enabled=False), **overrides}
    return BuildConfig(output=folder / "tiny.tflite", calibration_data=folder / "texts", heads=tuple(configs), **fields)
