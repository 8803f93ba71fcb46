"""Valid layers that need too many resources are recognised by their shapes, before anything is allocated."""

from __future__ import annotations

import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.layers import unallocated  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.config import BuildConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.settings.limits import Limits  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

layers = keras.layers


def classifier_with(*middle: Any) -> Any:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(3, 1)(image)
    for layer in middle:
        x = layer(x)
    return keras.Model(image, layers.Dense(2, activation="softmax")(x))


MEMORY: dict[str, Callable[[], list[Any]]] = {
    "padding": lambda: [layers.ZeroPadding2D(2000), *(layers.Conv2D(4, 3) for _ in [1] * 4), layers.GlobalMaxPooling2D()],
    "up-sampling": lambda: [layers.UpSampling2D(512), layers.GlobalMaxPooling2D()],
    "patches": lambda: [
        layers.UpSampling2D(32), layers.Conv2D(64, 1), layers.Conv2D(1, 15, padding="same"), layers.GlobalMaxPooling2D(),
    ],
    "repeated": lambda: [layers.Flatten(), layers.RepeatVector(1_000_000), layers.GlobalMaxPooling1D()],
    "many, none of them large": lambda: [
        layers.UpSampling2D(128), *(layers.Conv2D(8, 1) for _ in range(26)), layers.GlobalMaxPooling2D(),
    ],
}  # fmt: skip


def merged(path: Path, limits: Limits | None = None) -> Any:
    classifier = replace(Reader(limits=limits).read("a", path, PREPROCESSING["tf"]), labels=("a", "b"))
    return merge((classifier,), find_backbone((classifier,)))


@pytest.mark.parametrize("case", MEMORY)
def test_activations_beyond_the_limit_are_refused(tmp_path: Path, case: str) -> None:
    classifier_with(*MEMORY[case]()).save(tmp_path / "m.keras")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ModelFileError, match=r"m\.keras: up to layer .* GB for one picture; .* raise --max-memory"
    ) as error:
        merged(tmp_path / "m.keras")
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def recurrent(steps: int, wrap: Callable[[Any], Any] = lambda layer: layer, **options: Any) -> list[Any]:
    return [layers.Flatten(), layers.RepeatVector(steps), wrap(layers.LSTM(2, **options))]


STEPS: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: recurrent(2000),
    "both ways": lambda: recurrent(600, layers.Bidirectional),
    "two, one behind the other": lambda: [*recurrent(600, return_sequences=True), layers.GRU(2)],
}


@pytest.mark.parametrize("case", STEPS)
def test_steps_beyond_the_limit_are_refused(tmp_path: Path, case: str) -> None:
    classifier_with(*STEPS[case]()).save(tmp_path / "m.keras")
    with pytest.raises(ModelFileError, match=r"recurrent steps, .* at most 1,000: .* raise --max-steps"):
        merged(tmp_path / "m.keras")


def test_a_file_cannot_have_keras_unroll_while_it_is_read(tmp_path: Path) -> None:
    classifier_with(*recurrent(6, unroll=True)).save(tmp_path / "m.keras")
    read = Reader().read("a", tmp_path / "m.keras", PREPROCESSING["tf"])
    assert [node.config["unroll"] for node in read.graph.nodes if node.kind == "LSTM"] == [False]


def test_weights_larger_than_those_in_the_file_are_never_allocated(tmp_path: Path) -> None:
    classifier_with(layers.Flatten(), layers.Dense(5, name="wide")).save(tmp_path / "m.keras")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "bad.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"units": 5', b'"units": 1000000'))
    with pytest.raises(ModelFileError, match=r"'wide' .*: expected weights of shapes .*768, 1000000.*, found .*768, 5"):
        merged(tmp_path / "bad.keras")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_weights_without_values_are_forgotten() -> None:
    """Keras would allocate them at the end of the next scope of this thread."""

    def shapes() -> list[tuple[int, ...]]:
        layer = layers.Dense(1 << 24)
        layer(keras.Input((1 << 24,)))
        return [tuple(w.shape) for w in layer.weights]

    assert unallocated(shapes) == [(1 << 24, 1 << 24), (1 << 24,)]
    with keras.StatelessScope():
        pass


def test_limits_can_be_raised_and_lowered(tmp_path: Path) -> None:
    classifier_with(*recurrent(1100)).save(tmp_path / "long.keras")
    merged(tmp_path / "long.keras", Limits(max_steps=1100))
    tiny_classifier(tiny_base(size=16), 2).save(tmp_path / "tiny.keras")
    merged(tmp_path / "tiny.keras")
    with pytest.raises(ModelFileError, match="max-memory"):
        merged(tmp_path / "tiny.keras", Limits(max_memory=0.00001))


def test_limits_in_the_configuration(tmp_path: Path) -> None:
    text = 'output = "o.tflite"\ncalibration_data = "p"\n{}\n[heads.a]\nmodel = "a.keras"\n'
    (tmp_path / "c.toml").write_text(text.format("max_memory = 12.5\nmax_steps = 4000"))
    assert BuildConfig.from_toml(tmp_path / "c.toml").limits == Limits(12.5, 4000)
    for wrong in ("max_memory = -1", "max_memory = 'a'", "max_steps = 0", "max_steps = 1.5", "max_memory = nan"):
        (tmp_path / "c.toml").write_text(text.format(wrong))
        with pytest.raises(ConfigError, match=wrong.split()[0]):
            BuildConfig.from_toml(tmp_path / "c.toml")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, suffix: str, value: float) -> None:
    model = tiny_classifier(tiny_base(size=16), 3)
    kernel, bias = model.layers[-1].get_weights()
    kernel[3, 1] = value
    model.layers[-1].set_weights([kernel, bias])
    model.save(tmp_path / f"m{suffix}")
    with pytest.raises(ModelFileError, match=r"'scores' \(Dense\): 1 of 192 numbers of its kernel are NaN or infinite"):
        Reader().read("a", tmp_path / f"m{suffix}", PREPROCESSING["tf"])
