"""If Keras refuses a model at any step, the error shows the last line of its message."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from builder.support.frameworks import LENGTH, innermost  # noqa: E402

layers = keras.layers


def small(path: Path) -> Path:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("relu", name="act")(layers.MaxPooling2D(2, name="pool")(x))
    x = layers.TimeDistributed(layers.Dense(5, name="each"), name="td")(layers.Reshape((7, 28), name="reshape")(x))
    x = layers.Dense(3, activation="softmax", name="scores")(layers.Flatten(name="flat")(x))
    keras.Model(image, x).save(path)
    return path


def edited(path: Path, change: Callable[[dict[str, dict[str, Any]]], None]) -> Path:
    """The file with other settings; ``change`` is given those of each layer by its name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    definition = json.loads(members["config.json"])
    change({layer["config"]["name"]: layer["config"] for layer in definition["config"]["layers"]})
    members["config.json"] = json.dumps(definition).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    path.write_bytes(stream.getvalue())
    return path


def said_by(make: Callable[[], Any]) -> str:
    """The last line of what Keras itself says, asked for that layer alone."""
    with pytest.raises(Exception) as error:
        make()
    text = str(error.value).partition("\n\nArguments received by")[0]
    return " ".join(text.rpartition("\x1b[1m")[2].replace("\x1b[0m", "").split())


# Of a layer and a setting: what Keras says of it.
REFUSALS: dict[str, tuple[str, str, Any, Callable[[], Any]]] = {
    "unknown setting": ("conv", "foo", 1, lambda: layers.Conv2D(4, 3, foo=1)),
    "no filters": ("conv", "filters", -1, lambda: layers.Conv2D(-1, 3)),
    "format": ("pool", "data_format", "sideways", lambda: layers.MaxPooling2D(2, data_format="sideways")),
    "momentum of what": ("bn", "moment", 1.5, lambda: layers.BatchNormalization(moment=1.5)),
    "activation": ("act", "activation", "no_such", lambda: layers.Activation("no_such")),
    "units": ("scores", "units", -3, lambda: layers.Dense(-3)),
    "units of text": ("scores", "units", "many", lambda: layers.Dense("many")),
    "shape": ("reshape", "target_shape", [5, 5], lambda: layers.Reshape((5, 5))(keras.Input((7, 7, 4)))),
    "within a wrapper": ("td", "layer.units", -5, lambda: layers.Dense(-5)),
    "unknown in a wrapper": ("td", "layer.foo", 2, lambda: layers.Dense(5, foo=2)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_the_last_line_of_keras_error_is_shown(tmp_path: Path, name: str) -> None:
    layer, key, value, make = REFUSALS[name]

    def change(found: dict[str, dict[str, Any]]) -> None:
        config = found[layer]
        if key.startswith("layer."):
            config["layer"]["config"][key.removeprefix("layer.")] = value
        else:
            config[key] = value

    path = edited(small(tmp_path / "a.keras"), change)
    with pytest.raises(ModelFileError) as error:
        classifier = Reader().read("a", path, PREPROCESSING["raw"]).with_labels(("a", "b", "c"), None)
        merged = merge([classifier], find_backbone([classifier]))
        merged.head_scores("a", merged.features(np.zeros((1, 16, 16, 3), np.uint8)))
    told = str(error.value)
    print(told)
    assert "\n" not in told
    assert str(path) in told
    assert said_by(make)[:150] in told


def test_what_keras_wraps_a_reason_in_is_left_out() -> None:
    why = "the reason\nin two lines"
    for text in (
        why,
        f"Could not deserialize\n\nconfig={'x' * 5000}.\n\nException encountered: {why}",
        f"A.\n\nException encountered: B.\n\nException encountered: {why}",
        f"Exception encountered when calling D.call().\n\n\x1b[1m{why}\x1b[0m\n\nArguments received by D.call():\n x",
    ):
        assert innermost(text) == "the reason in two lines"
    assert len(innermost("x" * 5000)) == LENGTH
