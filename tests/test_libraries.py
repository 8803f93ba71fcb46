"""Classifiers of KerasHub and KerasCV: which classes a file may name, what is read of them, and what they share."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merged import merge  # noqa: E402
from builder.merging.mixed_sources import of_one_kind  # noqa: E402
from builder.merging.tolerance import align  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.formats import library_model  # noqa: E402
from builder.reading.formats.archive import read_archive  # noqa: E402
from builder.reading.formats.libraries import LIBRARIES, library_of  # noqa: E402
from builder.reading.formats.limits import check_definition  # noqa: E402
from builder.reading.formats.stored import NoLayersError  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.heads import ResizeConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError  # noqa: E402
from tests.laws import one_line  # noqa: E402
from tests.tiny_models import difference_from_originals, label_names, seed_weights  # noqa: E402

SIZE = 32
EXACT = 1e-5
HUB = pytest.mark.skipif(find_spec("keras_hub") is None, reason="keras_hub is not installed (extra hub)")
CV = pytest.mark.skipif(find_spec("keras_cv") is None, reason="keras_cv is not installed")
_RESNET = "ResNetImageClassifier"
RESNET = ("keras_hub.src.models.resnet.resnet_image_classifier", _RESNET, f"keras_hub>{_RESNET}")


def told(module: str | None, kind: str, registered: str | None = None, **config: Any) -> dict[str, Any]:
    """A class as a configuration names it."""
    return {"module": module, "class_name": kind, "registered_name": registered, "config": {"name": "m", **config}}


def converter(**settings: Any) -> dict[str, Any]:
    """A classifier whose preprocessor has an ``ImageConverter`` with these settings."""
    image = told("keras_hub.src.layers.preprocessing.image_converter", "ImageConverter", None, **settings)
    place = "keras_hub.src.models.image_classifier_preprocessor"
    own = told(place, "ImageClassifierPreprocessor", "keras_hub>ImageClassifierPreprocessor", image_converter=image)
    return told(*RESNET, preprocessor=own)


def archive(folder: Path, definition: dict[str, Any]) -> Path:
    """A ``.keras`` archive that holds ``definition`` and no weights."""
    import h5py

    with h5py.File(folder / "model.weights.h5", "w"):
        pass
    with zipfile.ZipFile(folder / "m.keras", "w") as file:
        file.writestr("config.json", json.dumps(definition))
        file.write(folder / "model.weights.h5", "model.weights.h5")
    return folder / "m.keras"


def opened(folder: Path, definition: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> library_model.LibraryModel:
    """What is found of a definition where the library is installed; nothing is loaded."""
    monkeypatch.setattr(library_model, "find_spec", lambda name: name)
    with pytest.raises(NoLayersError, match="can be read as a classifier, but not as layers") as caught:
        read_archive(archive(folder, definition))
    found: library_model.LibraryModel = caught.value.place
    return found


@pytest.mark.parametrize(
    ("module", "kind", "registered"),
    [
        RESNET,
        ("keras_hub.src.models.vit.vit_backbone", "ViTBackbone", "keras_hub>ViTBackbone"),
        ("keras_hub.src.models.image_classifier", "ImageClassifier", None),
        ("keras_cv.src.models.classification.image_classifier", "ImageClassifier", "keras_cv.models>ImageClassifier"),
        ("keras_cv.models.backbones.resnet_v1.resnet_v1_backbone", "ResNetBackbone", "keras_cv>ResNetBackbone"),
    ],
)
def test_classes_of_listed_modules_pass(module: str, kind: str, registered: str | None) -> None:
    check_definition(told(module, kind, registered), Path("m.keras"))


@pytest.mark.parametrize(
    ("module", "kind", "registered"),
    [
        ("keras_hub.src.models.bert.bert_backbone", "BertBackbone", "keras_hub>BertBackbone"),  # no pictures
        ("keras_hub.src.utils.preset_utils", "KerasPresetLoader", None),  # reads files
        ("keras_hub.src.tokenizers.byte_pair_tokenizer", "BytePairTokenizer", None),
        ("keras_hub.src.models.resnet", "ResNetBackbone", None),
        ("keras_hub.src.models.resnet.x.y", "ResNetBackbone", None),
        ("keras_hub_src.models.vit.vit_backbone", "ViTBackbone", None),
        ("keras_hubs.src.models.vit.vit_backbone", "ViTBackbone", None),
        ("my.keras_hub.src.models.vit.vit_backbone", "ViTBackbone", None),
        ("keras_hub.src.models.vit.vit_backbone\n", "ViTBackbone", None),
        ("keras_hub.src.models.vit.vit_backbone", "vit_backbone", None),  # a function
        ("keras_hub.src.models.vit.vit_backbone", "function", None),
        ("keras_hub.src.models.vit.vit_backbone", "ViTBackbone", "keras_hub>BytePairTokenizer"),  # which Keras would take
        ("keras_hub.src.models.vit.vit_backbone", "ViTBackbone", "my>ViTBackbone"),
        ("keras_hub.src.models.vit.vit_backbone", "ViTBackbone", "keras_hubs>ViTBackbone"),
        (None, "ViTBackbone", "keras_hub>ViTBackbone"),
        ("keras.layers", "ViTBackbone", "keras_hub>ViTBackbone"),
        ("keras_cv.src.models.object_detection.yolo_v8.yolo_v8_detector", "YOLOV8Detector", None),
        ("os", "System", None),
    ],
)
def test_every_other_class_is_refused(module: str | None, kind: str, registered: str | None) -> None:
    assert library_of(module, kind, registered) is None
    with pytest.raises(ModelFileError):
        check_definition(told(module, kind, registered), Path("m.keras"))


def test_a_lambda_within_a_listed_class_is_refused() -> None:
    with pytest.raises(ModelFileError, match="Lambda"):
        check_definition(told(*RESNET, backbone=told("keras.layers", "Lambda")), Path("m.keras"))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.title)
@pytest.mark.parametrize("nested", [False, True])
def test_what_installs_a_missing_library_is_said_in_one_line(
    library: Any, nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_model, "find_spec", lambda name: None)
    module = {"keras_hub": RESNET[0], "keras_cv": "keras_cv.src.models.classification.image_classifier"}
    model = told(module[library.package], "ImageClassifier")
    if nested:
        model = told("keras", "Sequential", layers=[model])
    path = archive(tmp_path, model)
    with pytest.raises(ModelFileError) as caught:
        read_archive(path)
    assert not isinstance(caught.value, NoLayersError)
    assert one_line(str(caught.value), path) and library.install in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "resize", "size", "notes"),
    [
        ({"image_size": [24, 32]}, ResizeConfig("bilinear", False, "crop"), (24, 32), 0),
        (
            {"image_size": [9, 9], "crop_to_aspect_ratio": False, "interpolation": "bicubic", "antialias": True},
            ResizeConfig("bicubic", True, "stretch"),
            (9, 9),
            0,
        ),
        (
            {"image_size": [9, 9], "crop_to_aspect_ratio": False, "pad_to_aspect_ratio": True},
            ResizeConfig("bilinear", False, "pad"),
            (9, 9),
            0,
        ),
        ({"image_size": [9, 9], "interpolation": "bicubic"}, ResizeConfig("bicubic", True, "crop"), (9, 9), 1),
        ({"image_size": [9, 9], "interpolation": "lanczos5"}, ResizeConfig(None, True, "crop"), (9, 9), 1),
        ({"image_size": None}, ResizeConfig(), None, 0),
    ],
)
def test_the_preprocessor_settles_size_and_resizing(
    settings: dict[str, Any],
    resize: ResizeConfig,
    size: tuple[int, int] | None,
    notes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = opened(tmp_path, converter(**settings), monkeypatch)
    assert (found.origin.resize, found.size, len(found.notes)) == (resize, size, notes)
    assert found.original.preprocessor


@pytest.mark.parametrize("scale", [None, 0.5, [0.5], [0.5, 1, 2]])
@pytest.mark.parametrize("offset", [None, -1.0, [-1, 0, 1.5]])
def test_the_preprocessor_settles_the_scaling(
    scale: Any, offset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = opened(tmp_path, converter(scale=scale, offset=offset), monkeypatch).origin.preprocessing
    assert scaling is not None
    pixels = np.arange(24).reshape(2, 4, 3)
    expected = pixels * np.asarray(1 if scale is None else scale) + np.asarray(0 if offset is None else offset)
    assert np.array_equal(scaling.apply(pixels), expected)


@pytest.mark.parametrize("scale", [0, "x", [1, 2], {}, [0.5, 0, 1]])
def test_a_scaling_that_is_none_is_refused(scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_model, "find_spec", lambda name: name)
    path = archive(tmp_path, converter(scale=scale))
    with pytest.raises(ConfigError, match="ImageConverter"):
        read_archive(path)


@pytest.mark.parametrize("size", [[9], 9, "9", [9, None], {}])
def test_a_size_that_is_none_is_refused(size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_model, "find_spec", lambda name: name)
    path = archive(tmp_path, converter(image_size=size))
    with pytest.raises(ModelFileError):
        read_archive(path)


@pytest.mark.parametrize(
    ("config", "settled"),
    [
        ({"backbone": told(RESNET[0], "ResNetBackbone", None, include_rescaling=True)}, True),
        ({"backbone": told(RESNET[0], "ResNetBackbone", None, include_rescaling=False)}, False),
        ({"backbone": told(RESNET[0], "ResNetBackbone"), "preprocessor": None}, False),
    ],
)
def test_a_backbone_that_scales_pixels_takes_raw_ones(
    config: dict[str, Any], settled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(tmp_path, told(*RESNET, **config), monkeypatch)
    assert found.origin.preprocessing == (PREPROCESSING["raw"] if settled else None)
    assert not found.original.preprocessor


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_half_precision_is_said(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": policy}, "registered_name": None}
    found = opened(tmp_path, told(*RESNET, backbone=told(RESNET[0], "ResNetBackbone", None, dtype=dtype)), monkeypatch)
    assert found.notes == (() if policy == "float32" else (f"{policy} is read as float32",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classifiers on one DenseNet of KerasHub: with its preprocessor, without, on another base, and in plain layers."""
    from keras_hub import layers, models

    folder = tmp_path_factory.mktemp("hub")

    def base(seed: int) -> Any:
        shape, settings = (None, None, 3), {"stackwise_num_repeats": [1, 1], "compression_ratio": 0.5, "growth_rate": 4}
        made = models.DenseNetBackbone(image_shape=shape, **settings)
        seed_weights(made, seed)
        return made

    def classifier(seed: int, labels: int, **options: Any) -> Any:
        made = models.DenseNetImageClassifier(backbone=base(seed), num_classes=labels, **options)
        seed_weights(made.output_dense, 10 * labels)
        return made

    resize = layers.ImageConverter(image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1.0)
    own = models.ImageClassifierPreprocessor(image_converter=resize)
    classifier(1, 3, preprocessor=own, activation="softmax").save(folder / "own.keras")
    classifier(1, 4).save(folder / "bare.keras")
    classifier(2, 5).save(folder / "other.keras")
    image, same = keras.Input((SIZE, SIZE, 3)), base(1)
    wrapped = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(same(image))))
    seed_weights(wrapped.layers[-1], 7)
    wrapped.save(folder / "wrapped.keras")
    flat = keras.layers.Dense(6, activation="softmax")
    plain = keras.Model(same.inputs, flat(keras.layers.GlobalAveragePooling2D()(same.output)))
    seed_weights(flat, 9)
    plain.save(folder / "plain.keras")
    return folder


LABELS = {"own": 3, "bare": 4, "other": 5, "wrapped": 2, "plain": 6}


def read(folder: Path, *names: str) -> list[Classifier]:
    """``own`` says its scaling and its size, ``wrapped`` its size."""
    reader, scaling, size = Reader(), {"own": None}, dict.fromkeys(("own", "wrapped"))
    found = [
        reader.read(n, folder / f"{n}.keras", scaling.get(n, PREPROCESSING["tf"]), size.get(n, (SIZE, SIZE)))
        for n in names
    ]
    return [replace(c, labels=label_names(c.name, LABELS[c.name])) for c in found]


@HUB
def test_heads_on_one_backbone_of_keras_hub_share_it_also_with_plain_layers(files: Path) -> None:
    """A preprocessor inside and the same scaling outside are one function; a head's own output layer does not matter."""
    classifiers = read(files, "own", "bare", "wrapped", "plain")
    assert [c.kind.startswith("KerasHub") for c in classifiers] == [True, True, True, False]
    same, apart = align(of_one_kind(classifiers), 0.0)
    backbone = find_backbone(same)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    assert difference_from_originals(same, merge(same, backbone), pixels, apart=apart) < EXACT


@HUB
def test_other_weights_are_another_backbone(files: Path) -> None:
    same, _ = align(read(files, "bare", "other"), 0.0)
    with pytest.raises(Exception, match=r"share|differ"):
        find_backbone(same)


@HUB
def test_the_preprocessor_itself_scales_the_pixels_of_the_original(files: Path) -> None:
    own, _ = read(files, "own", "bare")
    assert str(own.source_input) == f"{SIZE} x {SIZE} as {PREPROCESSING['tf']}"
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    model = keras.models.load_model(files / "own.keras", compile=False)
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    assert np.abs(own.ask(list(pixels))() - expected).max() < EXACT
    said = Reader().read("own", files / "own.keras", PREPROCESSING["unit"], None)
    unit = np.asarray(model(pixels.astype(np.float32) / 255))
    assert np.abs(said.original.ask(said.source_input.shown(pixels), max_memory=4.0)() - unit).max() < EXACT


@HUB
def test_without_preprocessor_the_scaling_is_unsaid_and_a_size_is_asked_for(files: Path) -> None:
    source_input = Reader().read("bare", files / "bare.keras", None, (SIZE, SIZE)).source_input
    assert source_input.unsaid  # type: ignore[union-attr]
    with pytest.raises(ModelFileError, match=r"any size.*size"):
        Reader().read("bare", files / "bare.keras", None, None)


@CV
def test_a_classifier_of_keras_cv_has_its_answers(tmp_path: Path) -> None:
    from keras_cv import models

    settings = {"stackwise_filters": [8, 16], "stackwise_blocks": [1, 1], "stackwise_strides": [1, 2]}
    base = models.ResNetBackbone(include_rescaling=True, input_shape=(SIZE, SIZE, 3), **settings)
    model = models.ImageClassifier(backbone=base, num_classes=3)
    model.save(tmp_path / "cv.keras")
    found = Reader().read("cv", tmp_path / "cv.keras", None)
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    assert not found.source_input.unsaid and found.kind.startswith("KerasCV")  # type: ignore[union-attr]
    expected = np.asarray(model(pixels.astype(np.float32)))
    assert np.abs(replace(found, labels=("a", "b", "c")).ask(list(pixels))() - expected).max() < EXACT
