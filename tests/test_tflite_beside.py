"""Labels and input scaling of a ``.tflite``: from its metadata, from files beside it, or from its network."""

from __future__ import annotations

import importlib.util
import io
import json
import runpy
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from builder.reading.classifier import Classifier
from builder.reading.loading import load_classifiers
from builder.reading.reader import Reader
from builder.settings.heads import HeadConfig
from builder.settings.input_scaling import PREPROCESSING, PixelTransform
from builder.tflite.assembler import Assembler
from builder.tflite.metadata import BUFFER_NAME, Picture, Scores, model_metadata, read_model_metadata
from builder.tflite.writer import Writer

NAMES = ("Cat", "Big dog", "Nothing")
LABELS = "Cat\nBig dog\nNothing\n"
NUMBERED = "0 Cat\n1 Big dog\n2 Nothing\n"


def network(size: int = 32, hidden: int = 8, *, bias: bool = True) -> Assembler:
    """A convolution, a mean, two dense layers and a softmax, of seeded weights."""
    rng, made = np.random.default_rng(0), Assembler("network")

    def weight(*shape: int) -> int:
        return made.constant(rng.normal(0, 1, shape).astype(np.float32))

    image = made.source("image", (1, size, size, 3))
    window = {"padding": 1, "strideW": 2, "strideH": 2, "dilationWFactor": 1, "dilationHFactor": 1}
    half = (size - 3) // 2 + 1
    kernel = [image, weight(4, 3, 3, 3), weight(4)]
    (x,) = made.operator("CONV_2D", kernel, [(1, half, half, 4)], ("Conv2DOptions", window))
    x = made.add("MEAN", [x, made.constant(np.array([1, 2], np.int32))], (1, 4))
    relu = ("FullyConnectedOptions", {"fusedActivationFunction": 1})
    (x,) = made.operator("FULLY_CONNECTED", [x, weight(hidden, 4), weight(hidden)], [(1, hidden)], relu)
    x = made.add("FULLY_CONNECTED", [x, weight(3, hidden), weight(3) if bias else -1], (1, 3))
    made.part.outputs = {"scores": made.add("SOFTMAX", [x], (1, 3))}
    return made


def file_of(made: Assembler, metadata: bytes | None = None) -> bytes:
    writer, part = Writer(), made.part
    writer.add_subgraph("network", writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    return writer.finish("a network", None if metadata is None else {BUFFER_NAME: metadata})


def read(folder: Path, beside: dict[str, str], content: bytes | None = None) -> Classifier:
    for name, text in beside.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "model.tflite").write_bytes(content or file_of(network()))
    return Reader().read("head", folder / "model.tflite", None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", LABELS),
        ("labelmap.txt", NUMBERED),
        ("dict.txt", LABELS),
        ("classes.json", json.dumps({name: i for i, name in enumerate(NAMES)})),
    ],
)
def test_label_files_of_the_usual_names_are_taken(tmp_path: Path, name: str, text: str) -> None:
    found = read(tmp_path, {name: text})
    assert found.labels == NAMES
    assert found.source_input.declared == PixelTransform()  # type: ignore[union-attr]


def test_label_files_of_other_models_are_left(tmp_path: Path) -> None:
    assert read(tmp_path, {"labels.txt": "one\ntwo\n"}).labels == ()
    assert read(tmp_path, {"labels.txt": LABELS, "model.txt": "x\ny\nz\n"}).labels == ("x", "y", "z")  # the model's own


def test_the_folder_of_a_download_is_its_one_model(tmp_path: Path) -> None:
    found = read(tmp_path, {"labels.txt": LABELS})
    assert Reader().read("head", tmp_path, None).digests == found.digests


LOBE = {"filename": "model.tflite", "classes": {"Label": list(NAMES)}}
VISION = {"ModelFileName": "model.tflite", "LabelFileName": "labels.txt", "MetadataPropsFileName": "properties.json"}
PROPERTIES = {
    "CustomVision.Preprocess.NormalizeMean": "[10.0, 20.0, 30.0]",
    "CustomVision.Preprocess.NormalizeStd": "[2.0, 2.0, 2.0]",
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.NominalPixelRange": "NominalRange_0_255",
}
BLUE_FIRST = PixelTransform(order=(2, 1, 0))


@pytest.mark.parametrize(
    ("model", "beside"),
    [
        ("cats_model", {"cats_labels.txt": LABELS, "dogs_labels.txt": "Rex\nBello\nLassie\n"}),
        ("model-cats", {"labels-cats.txt": LABELS, "labels.txt": "a\nb\nc\n"}),
        ("model-cats", {"labels-cats.txt": "too\nfew\n", "labels.txt": LABELS}),
        ("Model", {"labels.json": json.dumps(NAMES)}),
        ("model", {"model.json": json.dumps({"epochs": 3}), "labels.txt": LABELS}),
        ("model", {"model.json": json.dumps(NAMES), "labels.txt": "a\nb\nc\n"}),
        ("cats", {"label.txt": LABELS}),
    ],
)
def test_labels_are_found_by_names_that_people_give(tmp_path: Path, model: str, beside: dict[str, str]) -> None:
    read(tmp_path, beside)
    (tmp_path / "model.tflite").rename(tmp_path / f"{model}.tflite")
    assert Reader().read("head", tmp_path / f"{model}.tflite", None).labels == NAMES


@pytest.mark.parametrize(
    ("beside", "tool", "pixels", "fit"),
    [
        ({"signature.json": LOBE}, "Lobe", PREPROCESSING["unit"], "crop"),
        ({"cvexport.manifest": VISION, "labels.txt": LABELS}, "Custom Vision", BLUE_FIRST, "stretch"),
        (
            {"cvexport.manifest": VISION, "labels.txt": LABELS, "properties.json": PROPERTIES},
            "Custom Vision",
            PixelTransform((0.5,) * 3, (-5.0, -10.0, -15.0)),
            "stretch",
        ),
        (
            {"model-parameters.json": {"labels": list(NAMES), "image_resize_mode": "squash"}},
            "Edge Impulse",
            PREPROCESSING["unit"],
            "stretch",
        ),
    ],
)
def test_manifests_tell_labels_and_pixels(
    tmp_path: Path, beside: dict[str, object], tool: str, pixels: PixelTransform, fit: str
) -> None:
    found = read(tmp_path, {n: t if isinstance(t, str) else json.dumps(t) for n, t in beside.items()})
    assert found.kind == f"{tool}, TensorFlow Lite, float32"
    assert found.labels == NAMES
    assert found.source_input.declared.identity == pixels.identity  # type: ignore[union-attr]
    assert found.source_input.resize.fit == fit  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "beside",
    [
        {"signature.json": json.dumps({**LOBE, "filename": "other.tflite"})},
        {"signature.json": "{"},
        {"cvexport.manifest": "[]"},
        {"model-parameters.json": json.dumps({"labels": [1, 2, 3]})},
    ],
)
def test_manifests_of_something_else_tell_nothing(tmp_path: Path, beside: dict[str, str]) -> None:
    found = read(tmp_path, beside)
    assert (found.kind, found.labels) == ("TensorFlow Lite, float32", ())


@pytest.mark.parametrize(
    ("beside", "labels"),
    [
        ({"labels.txt": NUMBERED}, NAMES),
        ({"labels.txt": "\n".join(NAMES)}, NAMES),
        ({}, ()),
        ({"labels.txt": "0\n1\n"}, ()),
    ],
)
def test_teachable_machine_is_known_by_its_shape(tmp_path: Path, beside: dict[str, str], labels: tuple[str, ...]) -> None:
    """However its labels are written, and without any."""
    own = file_of(network(224, 100, bias=False))
    found = read(tmp_path, beside, own)
    assert found.labels == labels
    assert found.kind.startswith("Teachable Machine")
    assert found.source_input.declared == PREPROCESSING["tf"]  # type: ignore[union-attr]
    assert found.source_input.resize.fit == "crop"  # type: ignore[union-attr]
    assert Reader().read("head", found.path, PREPROCESSING["unit"]).source_input.declared == PREPROCESSING["unit"]  # type: ignore[union-attr]


@pytest.mark.parametrize("other", [(192, 100, False), (224, 90, False), (224, 100, True)])
def test_what_is_not_as_teachable_machine_makes_it_is_not_told_its_pixels(
    tmp_path: Path, other: tuple[int, int, bool]
) -> None:
    size, hidden, bias = other
    found = read(tmp_path, {"labels.txt": NUMBERED}, file_of(network(size, hidden, bias=bias)))
    assert found.kind == "TensorFlow Lite, float32"
    assert found.labels == NAMES


def _with_member(content: bytes, name: str, text: str) -> bytes:
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, text)
    return stream.getvalue()


def test_metadata_inside_the_file_comes_first(tmp_path: Path) -> None:
    told = model_metadata("m", "", Picture("image", 32, 32, 127.5, 127.5), [Scores("scores", "", "names.txt")])
    content = _with_member(file_of(network(), told), "names.txt", "a\nb\nc\n")
    found = read(tmp_path, {"labels.txt": LABELS}, content)
    assert found.labels == ("a", "b", "c")
    assert found.source_input.pixels.identity == PREPROCESSING["tf"].identity  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [None, "ScoreCalibrationOptions", "ScoreThresholdingOptions"])
def test_scores_that_another_client_would_calibrate_are_told(tmp_path: Path, kind: str | None) -> None:
    """Written by MediaPipe's own schema. A threshold changes no score."""
    package = importlib.util.find_spec("mediapipe")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs mediapipe")
    schema = runpy.run_path(f"{package.submodule_search_locations[0]}/tasks/metadata/metadata_schema_py_generated.py")
    told = model_metadata("m", "", Picture("image", 32, 32, 127.5, 127.5), [Scores("scores", "", "names.txt")])
    whole = schema["ModelMetadataT"].InitFromObj(schema["ModelMetadata"].GetRootAsModelMetadata(told, 0))
    if kind is not None:
        unit = schema["ProcessUnitT"]()
        unit.optionsType, unit.options = getattr(schema["ProcessUnitOptions"], kind), schema[f"{kind}T"]()
        whole.subgraphMetadata[0].outputTensorMetadata[0].processUnits = [unit]
    writer = flatbuffers.Builder(0)
    writer.Finish(whole.Pack(writer), b"M001")
    content = _with_member(file_of(network(), bytes(writer.Output())), "names.txt", "a\nb\nc\n")
    found = read(tmp_path, {}, content)
    assert found.labels == ("a", "b", "c")
    assert [note for note in found.notes if "(ScoreCalibration)" in note] == list(found.notes)
    assert bool(found.notes) is (kind == "ScoreCalibrationOptions")


@pytest.mark.parametrize("name", ["labels.txt", "label.txt", "labelmap.txt", "classes.json"])
def test_labels_of_a_file_beside_several_models_are_told(tmp_path: Path, name: str) -> None:
    text = json.dumps(NAMES) if name.endswith(".json") else LABELS
    read(tmp_path, {name: text})
    model, setting = tmp_path / "model.tflite", "heads.head.labels"

    def notes(labels: tuple[str, ...] | None = None) -> tuple[str, ...]:
        (found,) = load_classifiers([HeadConfig("head", model, labels, PREPROCESSING["tf"])])
        assert found.labels == (labels or NAMES)
        return found.notes

    assert notes() == ()
    (tmp_path / "model.keras").write_bytes(b"")  # the same model in another form
    (tmp_path / "notes.txt").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert notes() == ()
    (tmp_path / "other.tflite").write_bytes(model.read_bytes())
    assert notes() == (
        f"its labels are from {name}, which lies beside other.tflite too; if they are not its own, set {setting}",
    )
    (tmp_path / "third.h5").write_bytes(b"")
    assert "beside other.tflite and 1 more too" in notes()[0]
    assert notes(("x", "y", "z")) == ()  # as the user says
    (tmp_path / "model.txt").write_text(LABELS)
    assert notes() == ()  # its own


def test_damaged_metadata_tells_nothing_and_breaks_nothing() -> None:
    told = model_metadata("m", "", Picture("image", 32, 32, 127.5, 127.5), [Scores("scores", "", "names.txt")])
    assert read_model_metadata(told) is not None
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(told)
        for place in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        read_model_metadata(bytes(damaged[: rng.integers(1, len(damaged) + 1)]))
