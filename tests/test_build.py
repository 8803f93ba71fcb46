"""The whole tool on tiny models: the properties of a finished file, and what a failed build leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildConfig, BuildResult, build
from builder.settings.input_scaling import PREPROCESSING
from builder.support.errors import BuilderError, ConfigError, NoSharedBackboneError, QualityError, SamplesError
from builder.support.progress import WORDS
from edge_runtime import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.identity import file_digest
from edge_runtime.interpreter import open_interpreter
from tests.tiny_models import (
    FEATURES,
    THREE_HEADS,
    build_tiny,
    elsewhere,
    save_pictures,
    seed_weights,
    tiny_base,
    tiny_classifier,
    tiny_config,
)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_head_agrees_with_its_original(tiny: BuildResult) -> None:
    for head in tiny.quality.heads:
        assert head.agreement >= 0.75, head.head_name  # a handful of pictures and a network of noise
        assert head.drift <= 0.05, head.head_name
    assert tiny.quality.features_snr_db > 20
    assert tiny.report.equivalence.difference < 1e-5


def test_the_same_inputs_give_the_same_bytes_and_other_places_change_nothing(tiny: BuildResult, tmp_path: Path) -> None:
    assert build(elsewhere(tiny, tmp_path)).output.read_bytes() == tiny.output.read_bytes()
    identity = tiny.metadata.identity
    assert (list(identity.sources), identity.built_at) == (list(THREE_HEADS), "")
    assert identity.sources["animals"] == file_digest(str(tiny.report.config.heads[0].model))


def test_heads_in_another_order_are_the_same_heads(tiny: BuildResult, tmp_path: Path, tiny_pictures: list[Path]) -> None:
    config = tiny.report.config
    turned = build(replace(config, heads=config.heads[::-1], output=tmp_path / "turned.tflite"))
    assert [h.head_name for h in turned.metadata.heads] == list(THREE_HEADS)[::-1]
    with MultiHeadClassifier(tiny.output) as first, MultiHeadClassifier(turned.output) as second:
        for picture in tiny_pictures[:5]:
            for name in THREE_HEADS:
                a, b = (c.classify(picture, heads=[name]).classifications[0].categories for c in (first, second))
                assert a == b


def test_the_report_adds_up_and_says_what_the_file_says(tiny: BuildResult) -> None:
    document = json.loads((tiny.report.config.report_folder / "report.json").read_text())
    sizes = dict(document["bytes"])
    assert sizes.pop("whole file") == tiny.output.stat().st_size == sum(sizes.values())
    assert document["passed"] is True
    heads = json.loads(members(tiny.output)["polyhead.json"])["quality"]["heads"]
    assert {name: document["verification"]["heads"][name] for name in THREE_HEADS} == heads
    assert len(document["layers"]) > 3
    page = (tiny.report.config.report_folder / "index.html").read_text()
    assert all(name in page for name in THREE_HEADS)
    assert "<script" not in page
    assert "http" not in page


@pytest.mark.parametrize("name", ["torch", "caffe", "raw"])
def test_pixels_enter_unscaled_also_where_the_input_scaling_differs_by_channel(tmp_path: Path, name: str) -> None:
    config = tiny_config(tmp_path, {"a": 3, "b": 4}, rounding="nearest")
    heads = tuple(replace(h, preprocessing=PREPROCESSING[name]) for h in config.heads)
    result = build(replace(config, heads=heads))
    assert result.quality.features_snr_db > 15
    _, interpreter = open_interpreter(str(result.output))
    (details,) = interpreter.get_signature_runner("backbone").get_input_details().values()
    assert details["dtype"] == np.uint8


def test_the_merged_keras_model_takes_pixels_and_gives_every_head(tmp_path: Path) -> None:
    import keras

    config = tiny_config(tmp_path, {"a": 3, "b": 4}, keras_output=tmp_path / "merged.keras", rounding="nearest")
    build(config)
    merged = keras.models.load_model(tmp_path / "merged.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    outputs = merged(pixels, training=False)
    assert list(outputs) == ["a", "b"]
    for head in config.heads:
        original = keras.models.load_model(head.model)(pixels / 127.5 - 1, training=False)
        np.testing.assert_allclose(outputs[head.name], original, atol=1e-5)


def test_an_operator_with_two_outputs_goes_all_the_way(tmp_path: Path) -> None:
    """Channels split in two, one half convolved, as in ShuffleNet."""
    import keras
    from keras import layers

    x = image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x)
    left, right = keras.ops.split(x, 2, axis=-1)
    x = layers.Concatenate()([layers.Conv2D(4, 1, activation="relu", name="half")(left), right])
    base = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    seed_weights(base, 0)
    result = build_tiny(tmp_path, {"a": tiny_classifier(base, 3, seed=1), "b": tiny_classifier(base, 4, seed=2)})
    assert result.metadata.seam[0].shape == (8,)
    assert result.quality.features_snr_db > 15
    assert result.report.chosen.noise


def test_every_usual_kind_of_head_on_a_seam_of_two_tensors(tmp_path: Path) -> None:
    """BatchNormalization, Dropout, pooling and convolutions in heads; one that also reads an earlier layer."""
    import keras
    from keras import layers

    base = tiny_base(pooling=False)

    def classifier(seed: int, *stack: Any, early: bool = False) -> Any:
        own = keras.models.clone_model(base)
        own.set_weights(base.get_weights())
        inner = keras.Model(own.input, [own.output, own.get_layer("tiny_base_stem_relu").output])
        image = keras.Input((32, 32, 3))
        late, skip = inner(image)
        x = layers.GlobalMaxPooling2D()(late) if early else late
        if early:
            x = layers.Concatenate()([x, layers.GlobalAveragePooling2D()(skip)])
        first, *rest = stack
        parts = [first] if early else [first, layers.GlobalAveragePooling2D()]
        for layer in (*parts, *rest):
            x = layer(x)
        model = keras.Model(image, layers.Dense(3, activation="softmax")(x))
        for layer in model.layers:
            if layer.name != inner.name:
                seed_weights(layer, seed)
        return model

    heads = {
        "stack": classifier(1, layers.Dropout(0.5), layers.Dense(8, "relu"), layers.BatchNormalization()),
        "convolutions": classifier(2, layers.Conv2D(8, 3, activation="relu"), layers.Dropout(0.1)),
        "normalized": classifier(3, layers.BatchNormalization(), layers.Dense(8, activation="swish")),
        "earlier": classifier(4, layers.Dense(8, activation="relu"), early=True),
    }
    result = build_tiny(tmp_path, heads, pictures=12, keras_output=tmp_path / "merged.keras")
    assert [t.shape for t in result.metadata.seam] == [(8, 8, FEATURES), (16, 16, 8)]
    assert result.report.equivalence.difference < 1e-5
    assert all(q.drift < 0.05 for q in result.quality.heads)
    with MultiHeadClassifier(result.output) as opened:
        picture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        features = opened.features(picture)
        assert {name: values.shape for name, values in features.items()} == {
            "features": (1, 8, 8, FEATURES), "features_2": (1, 16, 16, 8)
        }  # fmt: skip
        whole = opened.classify(picture).classifications
        assert opened.classify_features(features) == whole
        for missing in ("features", "features_2"):
            with pytest.raises(EdgeRuntimeError, match=f"expected {missing} of this file"):
                opened.classify_features({n: v for n, v in features.items() if n != missing}, heads=["earlier"])
    merged = keras.models.load_model(tmp_path / "merged.keras")
    outputs = merged(picture[None].astype(np.float32), training=False)
    for name, model in heads.items():
        np.testing.assert_allclose(outputs[name], model(picture[None] / 127.5 - 1, training=False), atol=1e-5)


def test_sigmoid_and_bare_logits_come_out_as_probabilities(tmp_path: Path) -> None:
    base = tiny_base()
    result = build_tiny(
        tmp_path,
        {
            "many": tiny_classifier(base, 3, seed=1, activation="sigmoid"),
            "bare": tiny_classifier(base, 4, seed=2, activation=None),
        },
    )
    assert [h.activation for h in result.metadata.heads] == ["sigmoid", "softmax"]
    (note,) = (note for note in result.report.notes if "a softmax is assumed" in note)
    assert note.startswith("bare: ") and 'activation = "sigmoid"' in note
    with MultiHeadClassifier(result.output) as classifier:
        many, bare = classifier.classify(next((tmp_path / "pictures").rglob("*.jpg"))).classifications
    assert abs(sum(c.score for c in bare.categories) - 1) < 0.02
    assert all(0 <= c.score <= 1 for c in many.categories)


def test_bare_logits_of_labels_that_stand_for_themselves_are_declared(tmp_path: Path) -> None:
    base = tiny_base()
    heads = {"many": tiny_classifier(base, 3, activation=None), "own": tiny_classifier(base, 4, seed=2)}
    config = tiny_config(tmp_path, heads, rounding="nearest")
    many, own = config.heads
    result = build(replace(config, heads=(replace(many, activation="sigmoid"), own)))
    assert [h.activation for h in result.metadata.heads] == ["sigmoid", "softmax"]
    assert result.report.equivalence.difference < 1e-5
    with pytest.raises(ConfigError, match=r"heads\.own\.activation: own\.keras ends in a softmax of its own"):
        build(replace(config, heads=(many, replace(own, activation="sigmoid"))))


class TestWhatAFailureLeaves:
    """The old file is unchanged, and nothing is half written."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> BuildConfig:
        config = tiny_config(tmp_path, {"a": 3, "b": 4}, rounding="nearest")
        config.output.write_bytes(b"the old file")
        return config

    def assert_refused(self, config: BuildConfig, error: type[BuilderError], words: str) -> str:
        before = set(config.output.parent.iterdir())
        with pytest.raises(error, match=words) as caught:
            build(config)
        assert config.output.read_bytes() == b"the old file"
        assert set(config.output.parent.iterdir()) - before <= {config.report_folder}
        return str(caught.value)

    def test_a_head_below_min_agreement(self, config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        from builder.judging import verify

        monkeypatch.setattr(verify, "wilson_interval", lambda successes, trials: (0.1, 0.2))
        message = self.assert_refused(
            replace(config, min_agreement=0.9), QualityError, "head a: agrees with its original on"
        )
        assert "head b" in message
        document = json.loads((config.report_folder / "report.json").read_text())
        assert document["passed"] is False
        assert len(document["failures"]) == 2

    def test_no_shared_backbone(self, config: BuildConfig, tmp_path: Path) -> None:
        tiny_classifier(tiny_base(seed=9), 4).save(config.heads[1].model)
        self.assert_refused(config, NoSharedBackboneError, "a and b share no backbone; the first layer that differs is")
        assert NoSharedBackboneError.exit_code == QualityError.exit_code == 3

    def test_missing_pictures(self, config: BuildConfig, tmp_path: Path) -> None:
        self.assert_refused(replace(config, calibration_data=tmp_path / "nothing"), SamplesError, "no such folder")
        (tmp_path / "empty").mkdir()
        self.assert_refused(replace(config, calibration_data=tmp_path / "empty"), SamplesError, "found none")

    def test_mostly_broken_pictures(self, config: BuildConfig) -> None:
        for i in range(10):
            (config.calibration_data / f"broken_{i}.png").write_bytes(b"\x89PNG" + bytes([i]))
        self.assert_refused(config, SamplesError, r"broken_\d\.png: expected a picture")

    def test_an_output_that_is_a_folder(self, config: BuildConfig, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        with pytest.raises(ConfigError, match="expected a file to write, found a folder"):
            build(replace(config, output=tmp_path / "taken"))

    def test_an_output_folder_that_cannot_be_written(self, config: BuildConfig, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ConfigError, match="its folder cannot be written"):
            build(replace(config, output=tmp_path / "file" / "out.tflite"))

    def test_an_interruption(self, config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("builder.precisions.verify", interrupted)
        before = set(config.output.parent.iterdir())
        with pytest.raises(KeyboardInterrupt):
            build(config)
        assert config.output.read_bytes() == b"the old file"
        assert set(config.output.parent.iterdir()) - before <= {config.report_folder}


def test_a_few_broken_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"a": 3, "b": 4}, rounding="nearest", pictures=15)
    (config.calibration_data / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = build(config)
    broken = [*result.report.calibration.broken, *result.report.verification.broken]
    assert len(broken) == 1
    assert "broken.jpg" in broken[0]
    assert any("broken.jpg" in warning for warning in result.report.warnings)


def test_verification_pictures_are_not_calibrated_on_even_under_another_name(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"a": 3, "b": 4}, rounding="nearest")
    held_out = config.calibration_data / "held_out"
    save_pictures(held_out, {"a": 4, "b": 4}, seed=7)
    stolen = next(held_out.rglob("*.jpg"))
    (config.calibration_data / "a" / "stolen.jpg").write_bytes(stolen.read_bytes())
    result = build(replace(config, verification_data=held_out))
    calibrating = {p.digest for p in result.report.calibration.sources}
    assert calibrating.isdisjoint(p.digest for p in result.report.verification.sources)
    assert len(result.report.verification.sources) == 8
    assert len(calibrating) == 16


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """However a command ends, of it and of the processes that it started no temporary file is left."""
        (tmp_path / "temporary").mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # as users have it
        yield
        assert list((tmp_path / "temporary").iterdir()) == []

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "builder", *map(str, arguments)], capture_output=True, text=True)

    @pytest.mark.slow
    def test_a_build_from_options_alone(self, tmp_path: Path) -> None:
        config = tiny_config(tmp_path, {"a": 3})
        (tmp_path / "a.txt").write_text("x\ny\nz\n")
        options = ["--preprocessing", "tf", "--min-agreement", 0, "--fast", "--output", config.output]
        done = self.run(
            "build", "--head", f"a={config.heads[0].model}", "--calibration-data", config.calibration_data, *options
        )
        assert done.returncode == 0, done.stderr
        assert config.output.is_file()
        assert "agreement" in done.stdout
        lines = done.stderr.splitlines()
        stages = [line for line in lines if not line.startswith(("warning: ", "  "))]
        assert done.stdout.splitlines()[-1].startswith(f"next: edge-runtime classify {config.output} PICTURE, or ")
        assert stages[0] == "reading the models"
        assert "int8: verifying the finished file" in stages
        assert set(stages) <= {f"{before}{words}" for words in WORDS.values() for before in ("", "int8: ")}

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["build", "--output", "o"], 2, "no heads; name at least one classifier"),
            (["build", "none.toml"], 2, "none.toml: No such file"),
            (["build", "--head", "a"], 2, "--head a: expected NAME=MODEL"),
            (["build", "--head", "a=x.keras", "--head", "a=y.keras"], 2, "given twice"),
            (["build", "--head", "a=x.keras", "--labels", "b=y.txt"], 2, "no such name; there are: a"),
            (
                ["build", "--head", "a=none.keras", "--output", "o.tflite"],
                2,
                "no such model file",
            ),
        ],
    )
    def test_a_mistake_is_one_line_and_exit_code_2(self, arguments: list[str], code: int, words: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == code
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""

    @pytest.mark.slow
    def test_ctrl_c_leaves_nothing_and_is_not_success(self, tmp_path: Path) -> None:
        config = tiny_config(tmp_path, {"a": 3})
        text = (
            f'output = "{config.output}"\ncalibration_data = "{config.calibration_data}"\n[heads.a]\nmodel = "a.keras"\n'
        )
        (tmp_path / "c.toml").write_text(text + 'labels = ["x", "y", "z"]\npreprocessing = "tf"\n')
        script = "import builder.merging.convert as m, os, signal; old = m.convert\n"
        script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may ignore it
        script += "m.convert = lambda *a, **k: (os.kill(os.getpid(), signal.SIGINT), old(*a, **k))[1]\n"
        script += (
            "import sys; from builder.commands.cli import main; sys.argv = ['builder', 'build', sys.argv[1]]; main()"
        )
        done = subprocess.run([sys.executable, "-c", script, tmp_path / "c.toml"], capture_output=True, text=True)
        assert done.returncode not in (0, 2, 3, -signal.SIGKILL)
        assert "Traceback" not in done.stderr
        assert not config.output.exists()
        assert not list(tmp_path.glob(".*"))
