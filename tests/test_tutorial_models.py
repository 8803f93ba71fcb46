"""Each model of the table in the docs is read and built again, and answers as the original does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

keras = pytest.importorskip("keras")

from builder.commands.cli import main  # noqa: E402
from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.formats.limits import check_definition  # noqa: E402
from builder.reading.outputs import Output  # noqa: E402
from builder.reading.picture_input import PictureSourceInput  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.reading.source_input import AS_KERAS_RESIZES  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from edge_runtime.bundle import read_model  # noqa: E402
from edge_runtime.image_input import ImageInput  # noqa: E402
from edge_runtime.preprocess import image_tensor  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402
from tests.tutorial_models import MODELS, ONLY_HDF5, SIZE, pictures_for, seeded, small_base  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = {"half_precision": 0.02}  # there the answers that were kept are those of half precision


FILES = [(name, kind) for name in MODELS for kind in (".h5", ".keras") if kind == ".h5" or name not in ONLY_HDF5]


@pytest.fixture(scope="module")
def of_tf_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("tf_keras is not installed")
    folder = tmp_path_factory.mktemp("tutorials")
    command = [sys.executable, "-m", "tests.tutorial_models", str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def assert_answers(path: Path, pictures: np.ndarray, raw: np.ndarray, tolerance: float) -> None:
    """``raw``: what the model said when it was saved. Its input scaling is not told: its own layers settle it."""
    labels = ("no", "yes") if raw.shape[1] == 1 else tuple("abcdefgh")[: raw.shape[1]]
    classifier = Reader().read("a", path, None).with_labels(labels, None).settled(raw)
    expected = probabilities(raw, classifier.output)
    assert np.ptp(expected, axis=0).max() > 0.1
    merged = merge([classifier], find_backbone([classifier]))
    found = merged.head_scores("a", merged.features(pictures))
    assert found.shape == (len(pictures), len(labels))
    np.testing.assert_allclose(found, expected, atol=tolerance)


def probabilities(raw: np.ndarray, output: Output) -> np.ndarray:
    """From what the tutorial's model says, by what its tutorial does with it."""
    values = raw.astype(np.float64)
    if values.shape[1] == 1:
        one = values if values.min() >= 0 and values.max() <= 1 else 1 / (1 + np.exp(-values))
        return np.concatenate([1 - one, one], axis=1)
    if np.all(np.abs(values.sum(1) - 1) < 1e-2):
        return values
    raised = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_tutorial_model_of_keras_3_answers_as_it_did(tmp_path: Path, name: str) -> None:
    model: Any = MODELS[name](keras)
    pictures = pictures_for(model)
    raw = seeded(model, pictures.astype(np.float32))
    model.save(tmp_path / "model.keras")
    assert_answers(tmp_path / "model.keras", pictures, raw, TOLERANCE.get(name, 1e-4))


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_a_tutorial_model_of_keras_2_answers_as_it_did(of_tf_keras: Path, name: str, suffix: str) -> None:
    kept = np.load(of_tf_keras / f"{name}.npz")
    assert_answers(of_tf_keras / f"{name}{suffix}", kept["pictures"], kept["answers"], TOLERANCE.get(name, 1e-4))


def free_size(folder: Path, name: str, **settings: Any) -> Path:
    image = keras.Input((None, None, 3))
    x = keras.layers.Resizing(SIZE, SIZE, **settings)(keras.layers.Rescaling(1 / 127.5)(image))
    x = keras.layers.GlobalAveragePooling2D()(small_base(keras)(x - 1.0))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    seeded(model, pictures)
    model.save(folder / name)
    return folder / name


def test_a_resizing_of_pictures_of_any_size_is_the_devices(tmp_path: Path) -> None:
    classifier = Reader().read("a", free_size(tmp_path, "a.keras"), None)
    source_input = classifier.source_input
    assert isinstance(source_input, PictureSourceInput)
    assert (source_input.size, source_input.resize) == ((SIZE, SIZE), AS_KERAS_RESIZES)
    assert source_input.pixels.identity == PREPROCESSING["tf"].identity
    assert [node.kind for node in classifier.graph.nodes[:2]] == ["ZeroPadding2D", "Conv2D"]
    rng = np.random.default_rng(0)
    for width, height in ((70, 50), (33, 90), (200, 31)):
        picture = np.kron(rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3)), np.ones((5, 5, 1)))[:height, :width]
        expected = np.asarray(keras.layers.Resizing(SIZE, SIZE)(picture[None].astype(np.float32)))
        spec = ImageInput(SIZE, SIZE, method="bilinear", antialias=False, fit="stretch")
        found = image_tensor(picture.astype(np.uint8), spec=spec)
        assert np.abs(found.astype(np.float32) - expected).max() <= 1.0


@pytest.mark.parametrize("settings", [{"crop_to_aspect_ratio": True}, {"interpolation": "bicubic"}])
def test_another_resizing_stays_and_asks_for_a_size(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = free_size(tmp_path, "a.keras", **settings)
    with pytest.raises(ModelFileError, match="pictures of any size"):
        Reader().read("a", path, None)
    classifier = Reader().read("a", path, None, (40, 40))
    assert [node.kind for node in classifier.graph.nodes].count("Resizing") == 1


def test_channels_first_are_refused_and_the_way_out_is_one(tmp_path: Path) -> None:
    image = keras.Input((3, SIZE, SIZE))
    x = keras.layers.Permute((2, 3, 1))(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="c")(x))
    inner = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="d")(x))
    inner.save(tmp_path / "inner.keras")
    with pytest.raises(ModelFileError, match=r"Permute\(\(3, 1, 2\)\) in front"):
        Reader().read("a", tmp_path / "inner.keras", None)
    outer = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(outer, inner(keras.layers.Rescaling(1 / 255)(keras.layers.Permute((3, 1, 2))(outer))))
    pictures = pictures_for(model)
    raw = seeded(model, pictures.astype(np.float32))
    model.save(tmp_path / "outer.keras")
    classifier = Reader().read("a", tmp_path / "outer.keras", PREPROCESSING["raw"])
    classifier = classifier.with_labels(("x", "y", "z"), None).settled(raw)
    merged = merge([classifier], find_backbone([classifier]))
    np.testing.assert_allclose(merged.head_scores("a", merged.features(pictures)), raw, atol=1e-4)


def several_outputs(folder: Path, *, named: bool) -> Path:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(small_base(keras, inside=True)(image))
    heads = [keras.layers.Dense(n, activation="softmax", name=f"of{n}")(x) for n in (4, 3)]
    model = keras.Model(image, {"b": heads[0], "a": heads[1]} if named else heads)
    seed_weights(model, 3)
    model.save(folder / "both.keras")
    return folder / "both.keras"


@pytest.mark.parametrize(("named", "names"), [(False, ("of4", "of3")), (True, ("a", "b"))])
def test_each_of_several_outputs_is_a_head(tmp_path: Path, named: bool, names: tuple[str, str]) -> None:
    path = several_outputs(tmp_path, named=named)
    with pytest.raises(ModelFileError, match=f"found 2: {', '.join(names)}; each can be a head: add output_name"):
        Reader().read("a", path, None)
    with pytest.raises(ModelFileError, match="no output 'of5'; its outputs are"):
        Reader().read("a", path, None, None, "of5")
    read = [Reader().read(name, path, None, None, name) for name in names]
    assert [c.name for c in read] == [c.output_name for c in Reader().read_each("x", path, None)] == list(names)
    read = [c.with_labels(tuple("abcd"[: c.end[1]]), None) for c in read]
    merged = merge(read, find_backbone(read))
    pictures = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    for classifier in read:  # the file itself, in a process of its own
        answers = classifier.predict(pictures)
        assert answers.shape == (6, len(classifier.labels))
        np.testing.assert_allclose(merged.head_scores(classifier.name, merged.features(pictures)), answers, atol=1e-5)


def test_init_makes_a_head_of_each_output_and_the_build_goes_round(tmp_path: Path) -> None:
    """What ``keras_output`` writes is such a model, with its labels beside it."""
    (tmp_path / "in").mkdir()
    path = several_outputs(tmp_path / "in", named=False)
    path.with_name("both.labels.json").write_text('{"of3": ["x", "y", "z"], "of4": ["a", "b", "c", "d"]}')
    options = ("--precision", "float", "--keras-output", str(tmp_path / "again" / "merged.keras"))
    (tmp_path / "again").mkdir()
    done = CliRunner().invoke(main, ["build", str(tmp_path / "in"), *options])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["build", str(tmp_path / "again"), "--precision", "float"])
    assert done.exit_code == 0, done.output
    files = (tmp_path / "in" / "in.tflite", tmp_path / "again" / "again.tflite")
    found = [{head.head_name: head.labels for head in read_model(str(file))[0].heads} for file in files]
    assert found[0] == found[1] == {"of3": ("x", "y", "z"), "of4": ("a", "b", "c", "d")}


@pytest.mark.parametrize(
    ("module", "registered", "library"),
    [
        ("keras_hub.src.models.bert.bert_text_classifier", "keras_hub>BertTextClassifier", "KerasHub"),
        ("keras_hub.src.models.retinanet.retinanet_object_detector", "keras_hub>RetinaNetObjectDetector", "KerasHub"),
        ("keras_hub.src.models.resnet.resnet_image_classifier", "keras_hub>Other>ResNetImageClassifier", "KerasHub"),
        (None, "keras_cv.models>ImageClassifier", "KerasCV"),
        ("keras_nlp.src.models.vgg.vgg_image_classifier", "keras_nlp>VGGImageClassifier", "KerasNLP"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_model_of_keras_hub_is_named_with_the_way_out(
    module: str | None, registered: str, library: str, nested: bool
) -> None:
    """What it saves are settings: a width here, a number of blocks there, and no layers."""
    kind, settings = registered.rpartition(">")[2], {"name": "b", "num_classes": 3, "pooling": "avg"}
    model = {"module": module, "class_name": kind, "registered_name": registered, "config": settings}
    if nested:
        model = {"class_name": "Sequential", "config": {"name": "m", "layers": [model]}}
    with pytest.raises(ModelFileError, match=rf"{library}'s {kind}: its layers are in {library} and not.*model\.export"):
        check_definition(model, Path("m.keras"))


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("ClusterWeights", "strip_clustering"),
        ("ClusterWeightsRNN", "strip_clustering"),
    ],
)
def test_a_clustering_wrapper_of_tensorflows_toolkit_is_named_with_the_way_out(kind: str, way: str) -> None:
    layer = {"class_name": kind, "config": {"name": "w", "layer": {"class_name": "Dense", "config": {"units": 2}}}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    with pytest.raises(ModelFileError, match=f"optimization toolkit.*{way}"):
        check_definition(model, Path("m.h5"))
