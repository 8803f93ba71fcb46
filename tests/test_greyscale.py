"""Models of one channel: read, built from Keras and from ``.tflite``, run, grown, exported, and refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

keras = pytest.importorskip("keras")

from builder import BuildConfig, BuildResult, HeadConfig, build  # noqa: E402
from builder.exporting.export import export_split, export_task  # noqa: E402
from builder.exporting.saved_model import _decoded as decoded  # noqa: E402
from builder.growing.grow import GrowConfig, add_head  # noqa: E402
from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merged import merge  # noqa: E402
from builder.merging.mixed_sources import of_one_kind  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.config import JointConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING, PixelTransform  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError, NoSharedBackboneError  # noqa: E402
from edge_runtime import MultiHeadClassifier, PictureError  # noqa: E402
from edge_runtime.camera.capture import Capture  # noqa: E402
from edge_runtime.camera.record import Gallery  # noqa: E402
from edge_runtime.image_input import RESIZE_FITS, RESIZE_METHODS, ImageInput  # noqa: E402
from edge_runtime.preprocess import encoded_tensor, image_tensor, stored_tensor  # noqa: E402
from tests import tflite_files  # noqa: E402
from tests.camera_fakes import Script, drain, pixels  # noqa: E402
from tests.test_runtime_cli import run  # noqa: E402
from tests.tflite_files import convert  # noqa: E402
from tests.tiny_models import SIZE, label_names, save_pictures, tiny_base, tiny_classifier, tiny_picture  # noqa: E402

LABELS = {"animals": 3, "garden": 4, "things": 2}
GREY = ImageInput(SIZE, SIZE, color="L")
EXACT = 1e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three classifiers on one base of grey pictures, each as ``.keras`` and as ``.tflite``, and pictures of colour."""
    folder, base = tmp_path_factory.mktemp("grey"), tiny_base(channels=1)
    found = {}
    for seed, (name, count) in enumerate(LABELS.items(), 1):
        model = tiny_classifier(base, count, seed)
        found[f"{name}.keras"] = folder / f"{name}.keras"
        model.save(found[f"{name}.keras"])
        found[f"{name}.tflite"] = tflite_files.save(folder, {name: convert(model)})[name]
    save_pictures(folder / "pictures", dict.fromkeys(LABELS, 12))
    return {**found, "pictures": folder / "pictures"}


def head(files: dict[str, Path], file: str, preprocessing: Any = "tf") -> HeadConfig:
    name = file.partition(".")[0]
    how = PREPROCESSING[preprocessing] if isinstance(preprocessing, str) else preprocessing
    return HeadConfig(name, files[file], label_names(name, LABELS[name]), how)


def built(folder: Path, files: dict[str, Path], *names: str) -> BuildResult:
    heads = tuple(head(files, name) for name in names)
    fields = {"min_agreement": 0.0, "joint": JointConfig(enabled=False), "precision": "int8"}
    return build(BuildConfig(folder / "grey.tflite", files["pictures"], heads, **fields))


@pytest.fixture(scope="module")
def file(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("file"), files, "animals.keras", "garden.keras").output


def read(name: str, path: Path, preprocessing: PixelTransform | None = PREPROCESSING["tf"]) -> Classifier:
    found = Reader().read(name, path, preprocessing)
    count = found.end[1]
    return found.with_labels(label_names(name, count or 1), None)


def test_grey_tflite_files_become_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    result = built(tmp_path, files, "animals.tflite", "garden.tflite")
    assert result.quality.agreement >= 0.9
    with MultiHeadClassifier(result.output) as opened:
        assert opened.metadata.input == GREY


def test_the_file_answers_as_its_originals(files: dict[str, Path], file: Path) -> None:
    tensors = np.concatenate([image_tensor(p, GREY) for p in sorted(files["pictures"].rglob("*.*"))[:12]])
    with MultiHeadClassifier(file) as opened:
        for name in ("animals", "garden"):
            truth = read(name, files[f"{name}.keras"]).predict(list(tensors))
            found = np.concatenate([opened.head_scores(opened.features_of(t[None]), name)[None] for t in tensors])
            assert np.abs(found - truth).max() < 0.1
            first, second = np.sort(truth, axis=1)[:, :-3:-1].T
            clear = first - second > 0.1
            assert clear.sum() >= 6
            assert np.array_equal(found.argmax(1)[clear], truth.argmax(1)[clear])


@pytest.mark.parametrize("kinds", [("keras", "keras"), ("tflite", "tflite"), ("keras", "tflite")])
def test_the_float_heads_are_the_originals(files: dict[str, Path], kinds: tuple[str, str]) -> None:
    tensors = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 1), np.uint8)
    classifiers = [read(n, files[f"{n}.{kind}"]) for n, kind in zip(("animals", "garden"), kinds, strict=True)]
    classifiers = list(of_one_kind(classifiers))
    merged = merge(classifiers, find_backbone(classifiers))
    for classifier in classifiers:
        found = merged.head_scores(classifier.name, merged.features(tensors))
        assert np.abs(found - classifier.predict(list(tensors))).max() < EXACT


@pytest.mark.parametrize("suffix", ["keras", "tflite"])
def test_scaling_inside_a_grey_model_is_the_input_scaling(suffix: str, tmp_path: Path) -> None:
    """Also one that turns black and white round, as of drawings: what quantization alone cannot do."""
    for scale, offset in ((1 / 255, 0.0), (-1 / 255, 1.0)):
        model = tiny_classifier(tiny_base(channels=1), 3, before=[keras.layers.Rescaling(scale, offset)])
        path = tmp_path / f"a.{suffix}"
        if suffix == "keras":
            model.save(path)
        else:
            path.write_bytes(convert(model))
        classifier = read("a", path, None if suffix == "keras" else PREPROCESSING["raw"])
        expected = PixelTransform((scale,), (offset,), (0,))
        if suffix == "keras":  # a converter puts a factor into the first kernel where it can
            assert classifier.source_input.pixels.identity == expected.identity  # type: ignore[union-attr]
        tensors = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 1), np.uint8)
        merged = merge([classifier], find_backbone([classifier]))
        found = merged.head_scores("a", merged.features(tensors))
        np.testing.assert_allclose(found, model(tensors.astype(np.float32), training=False), atol=EXACT)


def test_a_channel_in_front_is_the_same_picture(files: dict[str, Path], tmp_path: Path) -> None:
    image = keras.Input((1, SIZE, SIZE))
    inner = keras.saving.load_model(files["animals.keras"])
    model = keras.Model(image, inner(keras.layers.Permute((2, 3, 1))(image)))
    path = tflite_files.save(tmp_path, {"animals": convert(model)})["animals"]
    classifiers = [read("animals", path), read("garden", files["garden.tflite"])]
    assert find_backbone(classifiers).digests == find_backbone(classifiers[1:] * 2).digests
    tensors = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)
    expected = inner(tensors / np.float32(127.5) - 1, training=False)
    np.testing.assert_allclose(classifiers[0].predict(list(tensors)), expected, atol=EXACT)


@given(
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "I;16"]),
    method=st.sampled_from(RESIZE_METHODS),
    fit=st.sampled_from(RESIZE_FITS),
    seed=st.integers(0, 5),
)
def test_every_picture_becomes_grey_before_it_is_resized(mode: str, method: str, fit: str, seed: int) -> None:
    picture = tiny_picture(seed, (50, 40))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8)
    else:
        picture = picture.convert(mode)
    spec, colour = (ImageInput(24, 20, method=method, fit=fit, color=c) for c in ("L", "RGB"))
    found = image_tensor(picture, spec)
    assert (found.shape, found.dtype) == ((1, 24, 20, 1), np.uint8)
    grey = picture if mode == "L" else Image.fromarray(image_tensor(picture, ImageInput(40, 50))[0]).convert("L")
    assert np.array_equal(found, image_tensor(grey, spec))
    assert np.array_equal(found, image_tensor(np.asarray(grey), spec))
    assert np.array_equal(found, image_tensor(np.asarray(grey)[..., None], spec))
    assert np.array_equal(image_tensor(grey, colour)[..., :1], found)


def test_a_jpeg_becomes_grey_in_every_way_it_comes(tmp_path: Path) -> None:
    tiny_picture(3, (640, 480)).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        expected = image_tensor(np.asarray(image.convert("RGB")), GREY)
    for found in (image_tensor(tmp_path / "a.jpg", GREY), stored_tensor(data, GREY), encoded_tensor(data, GREY)):
        assert found.shape == (1, SIZE, SIZE, 1)
        assert np.abs(found.astype(int) - expected).max() <= 6  # a reduced decoding is another filter


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1)])
def test_a_file_of_colour_takes_no_grey_array(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"expected an array of uint8 \(height, width, 3\) in RGB order, found"):
        image_tensor(np.zeros(shape, np.uint8), ImageInput(SIZE, SIZE))


@pytest.mark.parametrize("shape", [(40, 50, 2), (40, 50, 4), (1, 40, 50, 1), (40,), (0, 50)])
def test_a_grey_file_takes_no_array_of_other_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"or \(height, width\), found"):
        image_tensor(np.zeros(shape, np.uint8), GREY)


def test_classify_and_info_on_a_grey_file(files: dict[str, Path], file: Path) -> None:
    picture = sorted((files["pictures"] / "animals").iterdir())[0]
    document = json.loads(run("info", file, "--json").stdout)
    assert document["input"]["color"] == "L"
    answer = json.loads(run("classify", file, picture, "--json").stdout)
    assert [c["head_name"] for c in answer["classifications"]] == ["animals", "garden"]
    assert "32 x 32 greyscale, stretch" in run("info", file).stdout


def test_a_camera_hands_grey_pictures_over() -> None:
    capture = Capture(Script([pixels(i) for i in range(3)], live=False), lambda: None, GREY, keep_all=True)
    capture.start()
    frames = drain(capture)
    capture.stop()
    assert [frame.image.shape for frame in frames] == [GREY.shape] * 3
    gallery = Gallery()
    assert [gallery.takes(frame.image) for frame in frames] == [True] * 3
    assert not any(gallery.takes(frame.image) for frame in frames)


def test_a_grey_file_grows_by_grey_heads_alone(files: dict[str, Path], file: Path, tmp_path: Path) -> None:
    output = tmp_path / "more.tflite"
    grow = GrowConfig(
        file, output, head=head(files, "things.keras", None), calibration_data=files["pictures"], min_agreement=0.5
    )
    add_head(grow)
    with MultiHeadClassifier(output) as opened:
        assert opened.head_names == ("animals", "garden", "things")
    tiny_classifier(tiny_base(), 2).save(tmp_path / "colour.keras")
    files = {**files, "things.keras": tmp_path / "colour.keras"}
    grow = GrowConfig(file, output, head=head(files, "things.keras"), calibration_data=files["pictures"])
    with pytest.raises(NoSharedBackboneError, match=r"expected a model for 32 x 32 greyscale, .*found one for"):
        add_head(grow)


def test_exports_of_a_grey_file(file: Path, tmp_path: Path) -> None:
    picture = tiny_picture(1)
    main = export_split(file, tmp_path / "split").files[0]
    with MultiHeadClassifier(file) as whole, MultiHeadClassifier(main) as split:
        assert whole.classify(picture).classifications == split.classify(picture).classifications
    with pytest.raises(ConfigError, match="MediaPipe Tasks takes only colour pictures, and this file takes greyscale"):
        export_task(file, tmp_path / "task.tflite")


def test_a_server_decodes_grey_pictures(files: dict[str, Path]) -> None:
    path = next(p for p in sorted(files["pictures"].rglob("*.jpg")) if Image.open(p).size == (SIZE, SIZE))
    found = decoded(path.read_bytes(), spec=GREY).numpy()
    assert np.abs(found.astype(int) - image_tensor(path, GREY)[0]).max() <= 2


def test_grey_and_colour_in_one_build_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    tiny_classifier(tiny_base(), 4).save(tmp_path / "garden.keras")
    with pytest.raises(
        NoSharedBackboneError, match=r"it takes colour pictures, animals takes greyscale pictures\. .*a file"
    ):
        built(tmp_path, {**files, "garden.keras": tmp_path / "garden.keras"}, "animals.keras", "garden.keras")


@pytest.mark.parametrize("preprocessing", ["torch", "caffe", PixelTransform(offset=(1.0, 2.0, 3.0))])
@pytest.mark.parametrize("suffix", ["keras", "tflite"])
def test_numbers_for_three_channels_are_refused_for_one(files: dict[str, Path], suffix: str, preprocessing: Any) -> None:
    how = PREPROCESSING[preprocessing] if isinstance(preprocessing, str) else preprocessing
    with pytest.raises(ModelFileError, match="numbers for three channels, found greyscale pictures"):
        Reader().read("a", files[f"animals.{suffix}"], how)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", ["keras", "tflite"])
def test_other_numbers_of_channels_are_refused(channels: int, suffix: str, tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, channels))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    model, path = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x)), tmp_path / f"a.{suffix}"
    if suffix == "keras":
        model.save(path)
    else:
        path.write_bytes(convert(model))
    with pytest.raises(ModelFileError, match=rf"3\), or \(\.\., 1\) for greyscale, .*found.* {channels}\)"):
        Reader().read("a", path, None)


def test_a_picture_without_an_axis_of_channels_is_told_the_way(tmp_path: Path) -> None:
    """TensorFlow's own first tutorial: Flatten on (28, 28)."""
    image = keras.Input((28, 28))
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(image)))
    model.save(tmp_path / "a.keras")
    with pytest.raises(
        ModelFileError, match=r"put a Reshape\(\(28, 28\)\) in front of it, behind an input \(28, 28, 1\)"
    ):
        Reader().read("a", tmp_path / "a.keras", PREPROCESSING["unit"])
    outer = keras.Input((28, 28, 1))
    keras.Model(outer, model(keras.layers.Reshape((28, 28))(outer))).save(tmp_path / "b.keras")
    assert Reader().read("a", tmp_path / "b.keras", PREPROCESSING["unit"]).source_input.shape == (28, 28, 1)
