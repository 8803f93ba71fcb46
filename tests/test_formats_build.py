"""Files of other tools, the whole way: read, found to share their base, compared, built, run."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildConfig, HeadConfig, build
from builder.merging.backbone import find_backbone
from builder.merging.merge import merge
from builder.reading.formats.reading import read_model
from builder.reading.loading import load_classifiers
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import ConfigError
from edge_runtime import MultiHeadClassifier
from tests.tiny_models import difference_from_originals, save_pictures

LABELS = ("a", "b", "c")
KINDS = (".h5", ".keras", "_saved")


@pytest.mark.parametrize("name", ["flat", "nested", "deep", "settings"])
def test_one_model_in_every_kind_of_file_is_one_base(tf_keras_files: Path, name: str) -> None:
    """And the merged model answers as tf_keras itself did in a process of its own."""
    saved = np.load(tf_keras_files / f"{name}.npz")
    raw = PREPROCESSING["raw"]
    heads = [HeadConfig(kind.strip("._"), tf_keras_files / f"{name}{kind}", LABELS, raw) for kind in KINDS]
    classifiers = load_classifiers(heads)
    assert len({c.digests[-1] for c in classifiers}) == 1
    merged = merge(classifiers, find_backbone(classifiers))
    pictures = saved["pictures"].astype(np.uint8)
    assert difference_from_originals(classifiers, merged, pictures) < 1e-5
    features = merged.features(saved["pictures"])
    for head in heads:
        assert np.max(np.abs(merged.head_scores(head.name, features) - saved["answers"])) < 1e-4


def test_a_teachable_machine_download_needs_nothing_told(tf_keras_files: Path, tmp_path: Path) -> None:
    """Its labels, its pixel range and its crop come with it; the other head is the same network as a plain file."""
    with zipfile.ZipFile(tmp_path / "converted_keras.zip", "w") as archive:
        archive.write(tf_keras_files / "stack.h5", "keras_model.h5")
        archive.writestr("labels.txt", "0 Cat\n1 Big dog\n2 Nothing\n")
    shutil.copy(tf_keras_files / "stack.keras", tmp_path / "plain.keras")
    save_pictures(tmp_path / "pictures", ["any", "other"], seed=3)
    config = BuildConfig(
        output=tmp_path / "out.tflite",
        calibration_data=tmp_path / "pictures",
        heads=(
            HeadConfig("taught", tmp_path / "converted_keras.zip"),
            HeadConfig("plain", tmp_path / "plain.keras", LABELS, PREPROCESSING["tf"]),
        ),
        min_agreement=0.0,
        rounding="nearest",
    )
    result = build(config)
    assert [head.labels for head in result.metadata.heads] == [("Cat", "Big dog", "Nothing"), LABELS]
    assert result.metadata.input.fit == "crop"
    assert result.report.equivalence.difference < 1e-5
    with MultiHeadClassifier(result.output) as opened:
        one, other = opened.classify(next((tmp_path / "pictures").rglob("*.jpg"))).classifications
        assert [c.score for c in one.categories] == [c.score for c in other.categories]


def test_pixels_of_a_plain_file_are_still_not_guessed(tf_keras_files: Path, tmp_path: Path) -> None:
    shutil.copy(tf_keras_files / "flat.h5", tmp_path / "model.h5")
    with pytest.raises(ConfigError, match=r"input scaling of .* is unknown"):
        load_classifiers([HeadConfig("a", tmp_path / "model.h5", LABELS)])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_half_precision_is_told_by_every_kind_of_file(tmp_path: Path, policy: str, suffix: str) -> None:
    import keras

    layers = [keras.layers.Flatten(dtype=policy), keras.layers.Dense(2, dtype=policy)]
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers, keras.layers.Activation("softmax", dtype="float32")])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert read_model(path).notes == (() if policy == "float32" else (f"{policy} is read as float32",))
