"""SavedModels without layers as sources: what they answer, what they share, which operators are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merged import merge  # noqa: E402
from builder.merging.mixed_sources import of_one_kind  # noqa: E402
from builder.merging.tolerance import align  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.formats.members import folder_members  # noqa: E402
from builder.reading.graphs.file import read_graph_file  # noqa: E402
from builder.reading.originals import original  # noqa: E402
from builder.reading.originals.processes import process_of  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.heads import ResizeConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.settings.limits import Limits  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests import tflite_files  # noqa: E402
from tests.tiny_models import SIZE, label_names, tiny_base, tiny_classifier  # noqa: E402

LABELS = {"exported": 3, "saved": 4, "converted": 2, "packed": 5}
EXACT = 1e-5
SAVED_MODEL = "saved_model.pb"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four classifiers on one base: exported, as Keras's own file, as ``.tflite``, and exported in an archive."""
    folder, base = tmp_path_factory.mktemp("graphs"), tiny_base()
    models = {name: tiny_classifier(base, count, i + 1) for i, (name, count) in enumerate(LABELS.items())}
    models["exported"].export(folder / "exported", verbose=False)
    models["saved"].save(folder / "saved.keras")
    tflite_files.save(folder, {"converted": tflite_files.convert(models["converted"])})
    models["packed"].export(folder / "packed", verbose=False)
    shutil.make_archive(str(folder / "packed"), "zip", folder / "packed")
    names = {"exported": "exported", "saved": "saved.keras", "converted": "converted.tflite", "packed": "packed.zip"}
    return {name: folder / file for name, file in names.items()}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)


def read(path: Path, labels: int = 3, preprocessing: str | None = "tf", **options: Any) -> Classifier:
    found = Reader().read("head", path, PREPROCESSING[preprocessing] if preprocessing else None, **options)
    return replace(found, labels=label_names("head", labels))


def test_sources_of_all_kinds_become_one_with_the_answers_of_each(sources: dict[str, Path], pixels: np.ndarray) -> None:
    reader = Reader()
    classifiers = [reader.read(name, path, PREPROCESSING["tf"]) for name, path in sources.items()]
    classifiers = [replace(c, labels=label_names(c.name, LABELS[c.name])) for c in classifiers]
    same, apart = align(of_one_kind(classifiers), 0.0)
    assert apart <= 1e-6
    merged = merge(same, find_backbone(same))
    features = merged.features(pixels)
    for classifier in classifiers:
        difference = np.abs(merged.head_scores(classifier.name, features) - classifier.predict(pixels)).max()
        assert difference < EXACT, classifier.name


def test_the_graph_itself_answers_for_the_original(sources: dict[str, Path], pixels: np.ndarray) -> None:
    model = keras.layers.TFSMLayer(sources["exported"], call_endpoint="serve")
    expected = np.asarray(model(pixels / np.float32(127.5) - 1))
    assert np.abs(read(sources["exported"]).predict(pixels) - expected).max() < EXACT


def test_what_saves_and_restores_variables_is_left(sources: dict[str, Path]) -> None:
    whole = saved_model_pb2.SavedModel.FromString((sources["exported"] / SAVED_MODEL).read_bytes()).meta_graphs[0]
    inside = {node.op for function in whole.graph_def.library.function for node in function.node_def}
    assert {"RestoreV2", "SaveV2"} <= inside
    found = read_graph_file(folder_members(sources["exported"]), "", sources["exported"])
    graph = tf.compat.v1.GraphDef.FromString(found.graph)
    kept = {node.op for function in graph.library.function for node in function.node_def} | {n.op for n in graph.node}
    assert not {op for op in kept if "Save" in op or "Restore" in op}


def _call(meta: Any) -> Any:
    """The node that computes the answers, in the graph."""
    name = meta.signature_def["serving_default"].outputs["output_0"].name.split(":")[0]
    return next(node for node in meta.graph_def.node if node.name == name)


def _beside(op: str) -> Callable[[Any], None]:
    """An operator that the answers wait for."""

    def change(meta: Any) -> None:
        meta.graph_def.node.add(name="evil", op=op)
        _call(meta).input.append("^evil")

    return change


def _in_function(op: str) -> Callable[[Any], None]:
    """The same in a function that is called by the function that is called."""

    def change(meta: Any) -> None:
        inner = next(
            f
            for f in meta.graph_def.library.function
            if "__call__" in f.signature.name and "wrapper" not in f.signature.name
        )
        evil = meta.graph_def.library.function.add()
        evil.signature.name = "evil"
        evil.node_def.add(name="x", op=op)
        call = inner.node_def.add(name="calls", op="PartitionedCall")
        call.attr["f"].func.name = "evil"

    return change


def changed(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    shutil.copytree(source, target)
    saved = saved_model_pb2.SavedModel.FromString((source / SAVED_MODEL).read_bytes())
    change(saved.meta_graphs[0])
    (target / SAVED_MODEL).write_bytes(saved.SerializeToString())
    return target


@pytest.mark.parametrize("how", [_beside, _in_function])
@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("WriteFile", "may read or write files"),
        ("ReadFile", "may read or write files"),
        ("PrintV2", "may read or write files"),
        ("PyFunc", "may run other code"),
        ("DecodeJpeg", "encoded pictures"),
        ("While", "no picture classifier needs it"),
        ("Custom>Mine", "may run other code"),
    ],
)
def test_operators_that_are_not_allowed_are_refused_before_tensorflow_sees_them(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any, op: str, reason: str
) -> None:
    monkeypatch.setattr(original, "process_of", lambda framework: pytest.fail("TensorFlow was given the graph"))
    path = changed(sources["exported"], tmp_path / "other", how(op))
    with pytest.raises(ModelFileError, match=f"operator '{op}' in .* is not among those allowed: .*{reason}") as raised:
        read(path)
    assert "\n" not in str(raised.value)


def _signature(meta: Any) -> Any:
    return meta.signature_def["serving_default"]


def _second_input(meta: Any) -> None:
    _signature(meta).inputs["mask"].CopyFrom(_signature(meta).inputs["image"])


def _second_output(meta: Any) -> None:
    _signature(meta).outputs["boxes"].CopyFrom(_signature(meta).outputs["output_0"])


def _of_text(meta: Any) -> None:
    _signature(meta).inputs["image"].dtype = tf.string.as_datatype_enum


def _flat(meta: Any) -> None:
    del _signature(meta).inputs["image"].tensor_shape.dim[2:]


def _no_such_node(meta: Any) -> None:
    _signature(meta).outputs["output_0"].name = "nothing:0"


def _no_such_function(meta: Any) -> None:
    _call(meta).attr["f"].func.name = "nothing"


def _without_signature(meta: Any) -> None:
    for name in list(meta.signature_def):
        meta.signature_def[f"{name}_of_mine"].CopyFrom(meta.signature_def[name])
        del meta.signature_def[name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_second_input, "expected one input"),
        (_second_output, "expected one output"),
        (_of_text, "takes encoded pictures"),
        (_flat, r"expected pictures \(batch, height, width, 3\)"),
        (_no_such_node, "not a whole SavedModel"),
        (_no_such_function, "not a whole SavedModel"),
        (_without_signature, "expected a signature 'serving_default'"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_refused(
    sources: dict[str, Path], tmp_path: Path, change: Any, reason: str
) -> None:
    with pytest.raises(ModelFileError, match=reason) as raised:
        read(changed(sources["exported"], tmp_path / "other", change))
    assert "\n" not in str(raised.value)


def test_a_variable_that_the_checkpoint_lacks_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(sources["exported"], tmp_path / "other")
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="truncated"):
        read(path)


def test_conversion_has_a_limit_of_memory(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "_WEIGHTS", 0.0)
    with pytest.raises(ModelFileError, match="TensorFlow c"):
        Reader(limits=Limits(max_memory=1e-4)).read("head", sources["exported"], PREPROCESSING["tf"])


@pytest.mark.slow
def test_conversion_has_a_limit_of_time(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that converts is ended, and the next one is another."""
    process_of("keras").end()
    monkeypatch.setattr(original, "_SECONDS", 0.0)
    with pytest.raises(ModelFileError, match="not finished after 0 seconds"):
        read(sources["exported"])
    assert process_of("keras")._child is None


def lobe_like(folder: Path) -> np.ndarray:
    """A SavedModel of TensorFlow 1 with a label as text beside the scores, as Lobe's; returns its kernel."""
    rng = np.random.default_rng(1)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v1 = tf.compat.v1
        image = v1.placeholder(tf.float32, (None, 8, 8, 3), name="Image")
        kernel = v1.get_variable(
            "kernel", initializer=rng.normal(0, 1, (3, 3, 3, 4)).astype(np.float32), use_resource=False
        )
        dense = v1.get_variable("dense", initializer=rng.normal(0, 1, (4, 3)).astype(np.float32), use_resource=True)
        x = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME")), (1, 2))
        scores = tf.nn.softmax(x @ dense)
        label = tf.gather(tf.constant(["a", "b", "c"]), tf.argmax(scores, 1))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"Image": image}, {"Confidences": scores, "Label": label})
        found: np.ndarray = session.run(scores, {image: shown(folder)})
    told = {"filename": SAVED_MODEL, "classes": {"Label": ["cat", "dog", "none"]}}
    (folder / "signature.json").write_text(json.dumps(told))
    return found


def shown(folder: Path) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), np.uint8).astype(np.float32) / 255


def test_a_saved_model_of_tensorflow_1_tells_what_lobe_tells(tmp_path: Path) -> None:
    expected = lobe_like(tmp_path / "lobe")
    found = Reader().read("head", tmp_path / "lobe", None)
    assert found.kind == "Lobe, SavedModel, TensorFlow Lite"
    assert found.labels == ("cat", "dog", "none")
    assert found.source_input.declared == PREPROCESSING["unit"]  # type: ignore[union-attr]
    assert found.source_input.resize == ResizeConfig(fit="crop")  # type: ignore[union-attr]
    assert np.abs(found.ask(np.rint(shown(tmp_path) * 255).astype(np.uint8))() - expected).max() < EXACT


def test_labels_lie_beside_the_folder(sources: dict[str, Path], tmp_path: Path) -> None:
    """As in the download of Teachable Machine."""
    shutil.copytree(sources["exported"], tmp_path / "model.savedmodel")
    for labels in (("cat", "dog"), ("cat", "dog", "none")):
        (tmp_path / "labels.txt").write_text("\n".join(labels))
        found = Reader().read("head", tmp_path / "model.savedmodel", PREPROCESSING["tf"])
        assert found.labels == (labels if len(labels) == found.end[1] else ())
    assert found.labels


@pytest.fixture(scope="module")
def open_sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``any``: takes pictures of any size; ``resizes``: and brings them to 16 x 24 before it scales them."""
    folder, layers = tmp_path_factory.mktemp("open"), keras.layers
    for name, front in {"any": [], "resizes": [layers.Resizing(16, 24)]}.items():
        end = [layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3, 2, "same"), layers.GlobalAveragePooling2D()]
        model = keras.Sequential([keras.Input((None, None, 3)), *front, *end, layers.Dense(3, activation="softmax")])
        keras.utils.set_random_seed(3)
        model.export(folder / name, verbose=False)
        (folder / f"{name}.tflite").write_bytes(tflite_files.convert(model))
    return folder


@pytest.mark.parametrize("name", ["any", "any.tflite"])
def test_the_size_is_chosen_where_it_is_open(open_sizes: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="takes pictures of any size"):
        read(open_sizes / name, preprocessing=None)
    found = read(open_sizes / name, preprocessing=None, size=(12, 20))
    assert found.source_input.size == (12, 20)  # type: ignore[union-attr]
    assert found.source_input.pixels.identity == PREPROCESSING["tf"].identity  # type: ignore[union-attr]
    assert found.predict(np.zeros((2, 12, 20, 3), np.uint8)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resizes", "resizes.tflite"])
def test_what_resizes_in_front_becomes_the_devices_resizing(open_sizes: Path, name: str) -> None:
    found = read(open_sizes / name, preprocessing=None)
    assert found.source_input.size == (16, 24)  # type: ignore[union-attr]
    assert found.source_input.resize == ResizeConfig("bilinear", False, "stretch")  # type: ignore[union-attr]
    assert found.graph.nodes[0].kind == "CONV_2D"
    merged = merge((found,), find_backbone((found,)))
    pixels = np.random.default_rng(4).integers(0, 256, (3, 16, 24, 3), np.uint8)
    assert np.abs(merged.head_scores("head", merged.features(pixels)) - found.predict(pixels)).max() < EXACT
    chosen = read(open_sizes / name, preprocessing=None, size=(20, 20))
    assert chosen.graph.nodes[0].kind == "RESIZE_BILINEAR"
    assert chosen.source_input.pixels.identity == PREPROCESSING["tf"].identity  # type: ignore[union-attr]
    merged = merge((chosen,), find_backbone((chosen,)))
    pixels = np.random.default_rng(4).integers(0, 256, (3, 20, 20, 3), np.uint8)
    assert np.abs(merged.head_scores("head", merged.features(pixels)) - chosen.predict(pixels)).max() < EXACT
