"""A build without pictures: precisions that need none, verified on noise, which the output says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("keras")

from builder import BuildResult, build
from builder.commands.cli import main
from builder.judging.verify import Expected
from builder.reporting.summary import print_summary
from builder.samples.calibration import MIN_SAMPLES
from builder.samples.noise import noise_sets
from builder.settings.config import SAMPLE_FREE, BuildConfig
from builder.support.errors import QualityError, SamplesError
from edge_runtime.cli import main as edge_runtime_main
from edge_runtime.image_input import ImageInput
from edge_runtime.text import TextInput
from tests.test_docs import complaints
from tests.tiny_models import tiny_config


def without(folder: Path) -> BuildConfig:
    """Two heads with the default settings, without calibration_data."""
    config = tiny_config(folder, {"a": 2, "b": 3})
    return BuildConfig(config.output, None, config.heads)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(without(tmp_path_factory.mktemp("bare")))


def test_auto_takes_the_first_that_passes_of_those_that_need_none(built: BuildResult) -> None:
    found, tried = built.metadata.built, built.report.tried
    assert [one.precision for one in tried] == list(SAMPLE_FREE[: len(tried)])
    assert [one.quality.reaches(0.97) for one in tried] == [False] * (len(tried) - 1) + [True]
    assert (found["precision"], found["rounding"], found["calibration_pictures"]) == (tried[-1].precision, "nearest", 0)
    assert built.metadata.identity.calibration == ""
    assert built.metadata.joint is None


def test_every_place_with_a_figure_says_that_it_is_of_noise(
    built: BuildResult, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(built.report)
    summary = capsys.readouterr()
    assert "noise" in summary.out
    assert "no head was verified on pictures" in summary.err
    for way in ("project.tm", "edge-runtime camera FILE --record 200 DIR", "calibration_data"):
        assert way in summary.err
    assert "too few" not in summary.err
    report = json.loads((built.report.config.report_folder / "report.json").read_text("utf-8"))
    assert report["verification"]["noise"] is True
    assert report["calibration"]["pictures"] == 0
    assert all(not head["own_pictures"] for head in report["verification"]["heads"].values())
    page = (built.report.config.report_folder / "index.html").read_text("utf-8")
    assert "noise pictures" in page
    assert "no head was verified on pictures" in page


def test_info_says_that_the_file_was_verified_on_noise(built: BuildResult) -> None:
    told = CliRunner().invoke(edge_runtime_main, ["info", str(built.output)])
    assert "on 32 of noise" in told.stdout
    document = json.loads(CliRunner().invoke(edge_runtime_main, ["info", str(built.output), "--json"]).stdout)
    assert complaints("info", document) == []
    assert document["quality"]["noise"] is True


def test_with_pictures_nothing_is_said_of_noise(tiny: BuildResult) -> None:
    assert "noise" not in tiny.metadata.quality
    assert "calibration_data" not in "".join(tiny.report.notes)


@pytest.mark.parametrize("precision", SAMPLE_FREE)
def test_a_precision_that_needs_no_pictures_can_be_named(precision: str, tmp_path: Path) -> None:
    config = replace(without(tmp_path), precision=precision, min_agreement=0.0)
    first = build(config)
    assert [one.precision for one in first.report.tried] == [precision]
    if precision == "weights":
        content = first.output.read_bytes()
        assert build(config).output.read_bytes() == content


def test_int8_is_refused_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    options = ["--head", f"a={tmp_path / 'a.keras'}", "--output", str(out), "--precision", "int8"]
    done = CliRunner().invoke(main, ["build", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "int8 needs calibration_data" in done.stderr.replace("--precision ", "").replace(
        "calibration-data", "calibration_data"
    )
    assert "dynamic, weights, float16, float need none" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_heads_that_differ_on_noise_fail_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(features: np.ndarray, scores: dict[str, np.ndarray], bars: dict[str, float]) -> Expected:
        return Expected(features, {name: np.roll(found, 1, axis=-1) for name, found in scores.items()}, bars)

    monkeypatch.setattr("builder.material.Expected", other)
    with pytest.raises(QualityError, match="noise pictures"):
        build(without(tmp_path))
    assert not (tmp_path / "tiny.tflite").exists()


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 5), (224, 224)])
def test_noise_of_any_size_is_the_same_each_time_and_no_picture_twice(shape: tuple[int, int]) -> None:
    spec = ImageInput(*shape)
    calibration, verification = noise_sets(spec)
    for one, again in zip((calibration, verification), noise_sets(spec), strict=True):
        assert np.array_equal(one.tensors, again.tensors)
        assert one.tensors.shape == (len(one.sources), *spec.shape[1:])
        assert one.tensors.dtype == np.uint8
    assert len(calibration.sources) >= MIN_SAMPLES
    digests = [source.digest for samples in (calibration, verification) for source in samples.sources]
    assert len(set(digests)) == len(digests)


def test_texts_need_some() -> None:
    spec = TextInput(4, ("", "[UNK]", "a"))
    with pytest.raises(SamplesError, match="expected a folder of texts"):
        noise_sets(spec)
