"""The SavedModel, loaded as a server does: in a process that knows TensorFlow and nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from builder import build
from builder.exporting.saved_model import check_target, export
from builder.merging.merge import MergedModel
from builder.reading.picture_input import PictureSourceInput
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import ConfigError
from edge_runtime.image_input import ImageInput
from tests.tiny_models import label_names, tiny_config, tiny_picture
from tests.tiny_texts import sentences, text_config

pytestmark = pytest.mark.slow

SERVER = """
import json, sys
sys.path = [p for p in sys.path if p not in ("", {project!r})]
import numpy as np, tensorflow as tf

def tensor(value):
    return tf.constant(np.asarray(value["pixels"], np.uint8) if isinstance(value, dict) else value)

def plain(value):
    return (value.numpy().astype(str) if value.dtype == tf.string else value.numpy()).tolist()

signatures = tf.saved_model.load({folder!r}).signatures
answers = []
for name, inputs in json.load(sys.stdin):
    try:
        found = signatures[name](**{{k: tensor(v) for k, v in inputs.items()}})
        answers.append({{k: plain(v) for k, v in found.items()}})
    except tf.errors.InvalidArgumentError as error:
        answers.append({{"error": str(error)}})
assert "builder" not in sys.modules and "edge_runtime" not in sys.modules
print(json.dumps([sorted(signatures), answers]))
"""
SOME = sentences(6, seed=5)
ROWS = ["small", "large", "1", "0", "large", "small"]
ODD = ["", "x" * 10_000, "\x00\x07"]
UNKNOWN: list[Any] = ["medium", "2", "-1", "", ["small", "medium"]]
TWO = ["a", "b"]
REQUESTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "one": [
        *(("serving_default", {"inputs": SOME, "head": head}) for head in ("small", "large", "0", "1")),
        ("by_index", {"inputs": SOME, "head": 1}),
        ("small", {"inputs": SOME}),
    ],
    "all": [("all", {"inputs": SOME})],
    "rows": [("serving_default", {"inputs": SOME, "head": ROWS})],
    "unknown": [
        *(("serving_default", {"inputs": TWO, "head": head}) for head in UNKNOWN),
        *(("by_index", {"inputs": TWO, "head": head}) for head in (2, -1)),
    ],
    "too many": [("serving_default", {"inputs": TWO, "head": ["small"] * 3})],
    "odd": [("small", {"inputs": ODD})],
}


def serve(folder: Path, requests: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The signatures of ``folder`` and its answers to (signature, inputs)."""
    code = SERVER.format(folder=str(folder), project=str(Path(__file__).parent.parent))
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(requests), capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names, answers = json.loads(done.stdout)
    return names, answers


def test_no_compiled_code_stays_in_the_temporary_folder(tmp_path: Path, temporary: Path) -> None:
    build(tiny_config(tmp_path, {"a": 3, "b": 4}, saved_model=tmp_path / "serving", keras_output=tmp_path / "m.keras"))
    assert list(temporary.glob("*.py"))  # TensorFlow's own, until the process ends
    assert not list(temporary.rglob("*.pyc"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``serving`` and ``merged.keras`` of two text heads of 3 and 5 labels, and their models."""
    folder = tmp_path_factory.mktemp("texts")
    options = {"saved_model": folder / "serving", "keras_output": folder / "merged.keras", "rounding": "nearest"}
    build(text_config(folder, {"small": 3, "large": 5}, **options))
    return folder


@pytest.fixture(scope="module")
def answers(texts: Path) -> dict[str, list[dict[str, Any]]]:
    """What the SavedModel of ``texts`` says to ``REQUESTS``."""
    names, found = serve(texts / "serving", [request for group in REQUESTS.values() for request in group])
    assert names == ["all", "by_index", "large", "serving_default", "small"]
    return {group: [found.pop(0) for _ in requests] for group, requests in REQUESTS.items()}


@pytest.fixture(scope="module")
def originals(texts: Path) -> dict[str, np.ndarray]:
    """What the original models say of ``SOME``."""
    models = {name: keras.models.load_model(texts / f"{name}.keras") for name in ("small", "large")}
    return {name: np.asarray(model(tf.constant(SOME))) for name, model in models.items()}


def test_the_chosen_head_answers_as_its_original(answers: Any, originals: dict[str, np.ndarray]) -> None:
    for answer, name in zip(answers["one"], ["small", "large", "small", "large", "large", "small"], strict=True):
        np.testing.assert_allclose(answer["scores"], originals[name], atol=1e-5)
        assert answer["labels"] == [list(label_names(name, originals[name].shape[1]))] * len(SOME)
    assert set(answers["all"][0]) == {"small", "large"}
    for name, scores in answers["all"][0].items():
        np.testing.assert_allclose(scores, originals[name], atol=1e-5)


def test_each_row_may_ask_for_a_head_of_its_own(answers: Any, originals: dict[str, np.ndarray]) -> None:
    (answer,) = answers["rows"]
    for i, row in enumerate(ROWS):
        name = {"0": "small", "1": "large"}.get(row, row)
        width = originals[name].shape[1]
        np.testing.assert_allclose(answer["scores"][i], [*originals[name][i], *[0] * (5 - width)], atol=1e-5)
        assert answer["labels"][i] == [*label_names(name, width), *[""] * (5 - width)]


def test_what_no_head_is_called_is_an_error_that_lists_them(answers: Any) -> None:
    for answer in answers["unknown"]:
        assert "expected an index from 0 to 1 or a name: small, large" in answer["error"]
    assert "expected one head for all inputs, or one for each" in answers["too many"][0]["error"]


def test_odd_texts_and_no_texts_are_answered(answers: Any) -> None:
    np.testing.assert_allclose(np.sum(answers["odd"][0]["scores"], axis=1), 1, atol=1e-5)


def test_saved_model_cli_runs_it(texts: Path) -> None:
    command = [Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", texts / "serving", "--tag_set", "serve"]
    command += ["--signature_def", "serving_default", "--input_exprs", 'inputs=[b"w1 w2"];head=b"large"']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=texts.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "large 4" in done.stdout


def test_weights_are_stored_once(texts: Path) -> None:
    stored = dict(tf.train.list_variables(str(texts / "serving" / "variables" / "variables")))
    numbers = sum(int(np.prod(shape)) for name, shape in stored.items() if name.startswith("weights/"))
    models = [keras.models.load_model(texts / f"{name}.keras") for name in ("small", "large")]
    base = models[0].get_layer("base").count_params()
    assert numbers == base + sum(model.count_params() - base for model in models)
    assert sum(int(np.prod(shape)) for shape in stored.values()) < numbers + 100


def test_the_merged_keras_file_takes_strings_in_plain_keras(texts: Path) -> None:
    code = "import keras, json, tensorflow as tf; m = keras.models.load_model('merged.keras'); "
    code += "print(json.dumps({k: v.numpy().tolist() for k, v in m(tf.constant(['w1 w2'])).items()}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=texts)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, scores in json.loads(done.stdout).items():
        original = keras.models.load_model(texts / f"{name}.keras")(tf.constant(["w1 w2"]))
        np.testing.assert_allclose(scores, original, atol=1e-5)


def test_only_the_heads_that_rows_ask_for_run(tmp_path: Path) -> None:
    """One of the heads fails whenever it runs."""

    class Fails(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.Assert(False, ["it ran"])]):
                return tf.identity(x)

    image = keras.Input((4, 4, 3))
    backbone = keras.Model(image, keras.layers.Flatten()(image))
    heads = {}
    for name, units, layers in (("good", 2, []), ("bad", 3, [Fails()])):
        x = features = keras.Input((48,), name="features")
        for layer in [keras.layers.Dense(units, activation="softmax"), *layers]:
            x = layer(x)
        heads[name] = keras.Model(features, x)
    entry = PictureSourceInput((4, 4), PixelTransform(), PixelTransform())
    merged = MergedModel(entry, backbone, heads, "sha256:0", ("features",))
    export(merged, {"good": ("x", "y"), "bad": ("p", "q", "r")}, ImageInput(4, 4), tmp_path / "serving")
    pixels = np.zeros((2, 4, 4, 3), int).tolist()
    requests = [("pixels", {"inputs": {"pixels": pixels}, "head": head}) for head in (0, [0, 0], 1, [0, 1])]
    _, found = serve(tmp_path / "serving", requests)
    assert [("it ran" in answer.get("error", "")) for answer in found] == [False, False, True, True]


def test_pictures_enter_encoded_or_as_pixels(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"a": 3, "b": 4}, rounding="nearest", saved_model=tmp_path / "serving")
    build(config)
    picture = tiny_picture(3, (32, 32))
    picture.save(tmp_path / "x.png")
    original = keras.models.load_model(tmp_path / "b.keras")
    expected = np.asarray(original(np.asarray(picture, np.float32)[None] / 127.5 - 1))
    loaded = tf.saved_model.load(str(tmp_path / "serving")).signatures
    encoded = tf.constant([(tmp_path / "x.png").read_bytes()])
    np.testing.assert_allclose(loaded["b"](inputs=encoded)["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(
        loaded["serving_default"](inputs=encoded, head=tf.constant("b"))["scores"], expected, atol=1e-5
    )
    pixels = tf.constant(np.asarray(picture)[None])
    np.testing.assert_allclose(loaded["pixels"](inputs=pixels, head=tf.constant([1]))["scores"], expected, atol=1e-5)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="expected a new or empty folder to write, or an older one to replace"):
        build(text_config(tmp_path, {"a": 2}, saved_model=tmp_path / "mine"))
    assert not (tmp_path / "tiny.tflite").exists()
    for name in ("all", "by_index", "pixels"):
        with pytest.raises(ConfigError, match=f"'{name}' is taken"):
            check_target(tmp_path / "new", ["a", name])
