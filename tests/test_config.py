"""TOML and options become one config, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.settings.config import BuildConfig, HeadConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import ConfigError

GOOD = """
output = "out/all.tflite"
calibration_data = "pictures"
[heads.cats]
model = "cats.keras"
preprocessing = "tf"
[heads.dogs]
model = "../dogs.h5"
labels = ["a", "b"]
"""


def read(tmp_path: Path, text: str) -> BuildConfig:
    (tmp_path / "mine.toml").write_text(text)
    return BuildConfig.from_toml(tmp_path / "mine.toml")


def test_paths_are_relative_to_the_file_and_heads_keep_their_order(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.output == tmp_path / "out/all.tflite"
    assert [h.name for h in config.heads] == ["cats", "dogs"]
    assert config.heads[0] == HeadConfig("cats", tmp_path / "cats.keras", None, PREPROCESSING["tf"])
    assert config.heads[1].model == tmp_path.parent / "dogs.h5"
    assert config.heads[1].labels == ("a", "b")
    assert (config.min_agreement, config.rounding, config.report_folder) == (0.97, "learnt", tmp_path / "out/all.report")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('output = "out/all.tflite"', "", "output: expected a path, found 'nothing'"),
        ('calibration_data = "pictures"', "", "calibration_data: expected a path"),
        ("calibration_data", "calibration_dta", "unknown key 'calibration_dta'; did you mean 'calibration_data'?"),
        ('preprocessing = "tf"', 'preprocesing = "tf"', r"unknown key 'heads\.cats\.preprocesing'; did you mean"),
        ('preprocessing = "tf"', 'preprocessing = "imagenet"', r"heads\.cats: expected preprocessing as one of raw"),
        ("[heads.dogs]", "[heads.Dogs]", "head name 'Dogs': expected small letters"),
        ("[heads.dogs]", "[heads.joint]", "head name 'joint' is taken"),
        ("[heads.dogs]", "[heads.backbone]", "head name 'backbone' is taken"),
        ("[heads.dogs]", "[heads.serving_default]", "is taken"),
        ("[heads.dogs]", "[heads.cats]", "not a TOML file"),
        ('labels = ["a", "b"]', "labels = 3", r"heads\.dogs\.labels: expected a file's name or a list"),
        ('labels = ["a", "b"]', 'labels = ["a", 1]', r"heads\.dogs\.labels"),
        ('model = "cats.keras"', "model = 3", r"heads\.cats\.model: expected a path, found 3"),
        ('output = "out/all.tflite"', 'output = "o"\nmin_agreement = 97', "expected a number from 0 to 1"),
        ('output = "out/all.tflite"', 'output = "o"\nmin_agreement = "high"', "min_agreement"),
        ('output = "out/all.tflite"', 'output = "o"\nrounding = "best"', "rounding: expected one of learnt, bias"),
        ('output = "out/all.tflite"', 'output = "o"\nprecision = "int4"', "precision: expected one of auto, int8"),
        ('output = "out/all.tflite"', 'output = "o"\nalgorithm = "best"', "algorithm: expected one of polyhead,"),
        (
            'output = "out/all.tflite"',
            'output = "o"\nalgorithm = "tensorflow"\nprecision = "int16"',
            "algorithm tensorflow makes int8 alone, found precision 'int16'",
        ),
        ('output = "out/all.tflite"', 'output = "o"\nrefit = "no"', "refit: expected true or false, found 'no'"),
        ('output = "out/all.tflite"', 'output = "o"\nranges = "all"', "ranges: expected one of minmax, percentile"),
        ('output = "out/all.tflite"', 'output = "o"\nequalize = "yes"', "equalize: expected true or false"),
        ('output = "out/all.tflite"', 'output = "o"\nresize = {fit = "zoom"}', "resize.fit: expected one of"),
        ('output = "out/all.tflite"', 'output = "o"\nresize = 3', "resize: expected a table"),
        (
            'output = "out/all.tflite"',
            'output = "o"\nresize = {method = "bicubic", antialias = false}',
            "bicubic without antialiasing",
        ),
        ('output = "out/all.tflite"', 'output = "o', "not a TOML file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=words) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "mine.toml" in str(error.value)


def test_no_heads_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads"):
        read(tmp_path, 'output = "a"\ncalibration_data = "b"')
    with pytest.raises(ConfigError, match="no heads"):
        read(tmp_path, 'output = "a"\ncalibration_data = "b"\n[heads]')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        BuildConfig.from_toml(tmp_path / "none.toml")


def test_a_precision_keeps_its_former_name(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('output = "o"\ncalibration_data = "d"\nprecision = "islands"\n[heads.a]\nmodel = "a.keras"\n')
    assert BuildConfig.from_toml(path).precision == "mixed"
