"""Files that tf_keras wrote: the layers and weights that are read answer as the model did that was saved."""

from __future__ import annotations

import io
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.reading.formats import StoredModel, hdf5, read_model  # noqa: E402
from builder.reading.graph import WeightPool  # noqa: E402
from builder.reading.keras_graph import read_graph  # noqa: E402
from builder.reading.layers import canonical_layers  # noqa: E402
from builder.reading.originals.original import Shown  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.reading.text_input import TextSourceInput  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.tf_keras_files import MODELS, NO_SAVED_MODEL, TEXT_WORDS, TEXTS  # noqa: E402

KINDS = {".h5": "Keras 2", ".keras": "tf_keras", "_saved": "Keras 2 SavedModel"}
FILES = [(name, kind) for name in MODELS for kind in KINDS if kind != "_saved" or name not in NO_SAVED_MODEL]


def difference(folder: Path, name: str, model: StoredModel) -> float:
    """The largest difference of a probability from the model's answers when it was saved."""
    saved = np.load(folder / f"{name}.npz")
    assert saved["answers"].std(0).mean() > 0.05  # else it would answer all pictures alike, and the test prove little
    answers = np.asarray(model.live()(saved["pictures"], training=False))
    return float(np.max(np.abs(answers - saved["answers"])))


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_a_file_of_tf_keras_answers_as_it_did(tf_keras_files: Path, name: str, kind: str) -> None:
    model = read_model(tf_keras_files / f"{name}{kind}")
    assert model.kind.removeprefix("Teachable Machine, ").startswith(KINDS[kind])
    # Half precision is read as float32: there it is the original that rounds.
    assert difference(tf_keras_files, name, model) < (2e-2 if name == "mixed" else 1e-5)
    assert "tf_keras" not in sys.modules


@pytest.mark.parametrize(("name", "kind"), [f for f in FILES if f[0] not in ("composite",)])
def test_nothing_is_built_to_read_it(tf_keras_files: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(hdf5, "weights_by_order", build)
    assert read_model(tf_keras_files / f"{name}{kind}").weights


def as_by_tensorflow_2_13(source: Path, target: Path, separator: str) -> Path:
    """A ``.keras`` of tf_keras with the names of TensorFlow 2.12 and 2.13, which counted layers with weights twice."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, _renumbered(content, separator) if name == "model.weights.h5" else content)
    return target


def _renumbered(content: bytes, separator: str) -> bytes:
    groups, arrays, written = set[str](), dict[str, np.ndarray](), io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old:
        old.visititems(lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "dtype") else groups.add(name))

    def number(layer: str) -> int:
        return int(layer.rpartition("_")[2]) if layer.rpartition("_")[2].isdecimal() else 0

    def called(path: str) -> str:
        found = []
        for i, part in enumerate(path.split("/")):
            parts = path.split("/")[:i]
            if parts[-1:] == ["layers"]:
                stem = re.sub(r"_\d+$", "", part)
                siblings = [g for g in groups if re.fullmatch(rf"{'/'.join(parts)}/{stem}(_\d+)?", g)]
                before = [g for g in siblings if number(g) < number(part)]
                count = sum(2 if any(a.startswith(f"{g}/") for a in arrays) else 1 for g in before)
                part = f"{stem}_{count}" if count else stem
            found.append("_layer_checkpoint_dependencies" if part == "layers" else part)
        place = found.index("vars") if "vars" in found else len(found)
        return "/".join([separator.join(found[:place]), *found[place:]])

    with h5py.File(written, "w") as new:
        for name in groups:
            new.require_group(called(name))
        for name, values in arrays.items():
            new[called(name)] = values
    return written.getvalue()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "ops"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_archives_of_tensorflow_2_13_and_of_windows(
    tf_keras_files: Path, tmp_path: Path, name: str, separator: str
) -> None:
    path = as_by_tensorflow_2_13(tf_keras_files / f"{name}.keras", tmp_path / "old.keras", separator)
    assert difference(tf_keras_files, name, read_model(path)) < (2e-2 if name == "mixed" else 1e-5)


def test_an_array_by_the_names_of_two_versions_is_refused(tf_keras_files: Path, tmp_path: Path) -> None:
    """Otherwise one of the two would be used, and nobody could tell which."""
    old = as_by_tensorflow_2_13(tf_keras_files / "flat.keras", tmp_path / "old.keras", "/")
    with zipfile.ZipFile(old) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        arrays = list[str]()
        file.visititems(lambda name, item: arrays.append(name) if hasattr(item, "dtype") else None)
        file[arrays[0].replace("_layer_checkpoint_dependencies", "layers")] = file[arrays[0]][...] + 1
    with zipfile.ZipFile(old, "w") as archive:
        for name, content in {**members, "model.weights.h5": weights.getvalue()}.items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"ambiguous .* two names for one array"):
        read_model(old)


def test_the_original_of_tensorflow_2_13_is_run(tf_keras_files: Path, tmp_path: Path) -> None:
    """No current Keras finds the weights in it."""
    path = as_by_tensorflow_2_13(tf_keras_files / "deep.keras", tmp_path / "old.keras", "/")
    saved = np.load(tf_keras_files / "deep.npz")
    (classifier,) = Reader().read_each("deep", path, PREPROCESSING["raw"])
    found = classifier.with_labels(("a", "b", "c"), None).predict(saved["pictures"].round().astype(np.uint8))
    assert np.abs(found - saved["answers"]).max() < 1e-2


def test_names_that_tensorflow_made_unique_are_told_by_order(tf_keras_files: Path, tmp_path: Path) -> None:
    """TensorFlow 1 called the weights of a model loaded beside another ``conv2d_1/kernel:0``, whatever its layer."""
    shutil.copy(tf_keras_files / "deep.h5", tmp_path / "deep.h5")
    with h5py.File(tmp_path / "deep.h5", "r+") as file:
        group = file["model_weights/outer"]
        names = [name if isinstance(name, str) else name.decode() for name in group.attrs["weight_names"]]
        moved = ["/".join([f"{scope}_1" for scope in name.split("/")[:-1]] + name.split("/")[-1:]) for name in names]
        values = [group[name][...] for name in names]
        for name in list(group):
            del group[name]
        for name, value in zip(moved, values, strict=True):
            group[name] = value
        group.attrs["weight_names"] = [name.encode() for name in moved]
    expected = read_model(tf_keras_files / "deep.h5")
    model = read_model(tmp_path / "deep.h5")
    assert set(model.weights) == set(expected.weights)
    for place, found in model.weights.items():
        assert all(map(np.array_equal, found, expected.weights[place])), place


def test_equal_content_in_three_kinds_of_files(tf_keras_files: Path) -> None:
    for name in ("flat", "nested", "stack", "deep", "shared", "settings"):
        models = [read_model(tf_keras_files / f"{name}{kind}") for kind in KINDS]
        for other in models[1:]:
            assert set(other.weights) == set(models[0].weights)
            for place, values in other.weights.items():
                assert all(map(np.array_equal, values, models[0].weights[place])), (name, place)


def test_weights_are_where_the_definition_has_its_layers(tf_keras_files: Path) -> None:
    model = read_model(tf_keras_files / "deep.keras")
    assert ("outer", "middle", "inner", "conv1_conv") in model.weights  # Keras 3 allows no "/" in a name
    graph = read_graph(model.definition, model.weights, pool=WeightPool(), canonical=canonical_layers())
    kinds = [node.kind for node in graph.nodes]
    assert kinds[0] == "Rescaling"
    assert sum(node.parameters for node in graph.nodes) == sum(w.size for v in model.weights.values() for w in v)


def test_a_twice_called_base_has_two_calls(tf_keras_files: Path) -> None:
    layers = read_model(tf_keras_files / "shared.h5").definition["config"]["layers"]
    pool = next(layer for layer in layers if layer["class_name"] == "GlobalMaxPooling2D")
    histories = [call["args"][0]["config"]["keras_history"] for call in pool["inbound_nodes"]]
    assert histories == [["base", 0, 0], ["base", 1, 0]]


def test_half_precision_is_told(tf_keras_files: Path) -> None:
    model = read_model(tf_keras_files / "mixed.h5")
    assert model.notes == ("mixed_float16 is read as float32",)
    assert {w.dtype for values in model.weights.values() for w in values} == {np.dtype(np.float32)}


def test_arithmetic_on_pixels_becomes_rescaling(tf_keras_files: Path) -> None:
    layers = read_model(tf_keras_files / "nested.h5").definition["config"]["layers"]
    found = [layer["config"] for layer in layers if layer["class_name"] == "Rescaling"]
    assert [(c["scale"], c["offset"]) for c in found] == [(1 / 127.5, 0.0), (1.0, -1.0)]


def test_the_suffix_does_not_matter(tf_keras_files: Path, tmp_path: Path) -> None:
    for source, name in (("flat.h5", "a.model"), ("flat.h5", "b.keras"), ("flat.keras", "c.h5"), ("flat.keras", "d")):
        shutil.copy(tf_keras_files / source, tmp_path / name)
        assert difference(tf_keras_files, "flat", read_model(tmp_path / name)) < 1e-5


@pytest.mark.parametrize("name", ["text", "given"])
@pytest.mark.parametrize("kind", [".keras", "_saved"])
def test_a_vocabulary_is_found_where_tf_keras_keeps_it(tf_keras_files: Path, name: str, kind: str) -> None:
    """In the assets of an archive, in the constants of a SavedModel's graph, or in the settings of the layer."""
    path = tf_keras_files / f"{name}{kind}"
    classifier = replace(Reader().base("text", read_model(path), None), labels=("a", "b", "c"))
    assert isinstance(classifier.source_input, TextSourceInput)
    vocabulary = classifier.source_input.words.vocabulary
    assert vocabulary[:2] == ("", "[UNK]")
    assert set(vocabulary[2:]) >= set(TEXT_WORDS)
    assert len(vocabulary) == (6 if name == "given" else 10)
    expected = np.load(tf_keras_files / f"{name}.npy")
    assert np.ptp(expected, axis=0).max() > 0.05
    texts = [text.encode() for text in TEXTS]
    np.testing.assert_allclose(classifier.predict(texts), expected, atol=1e-5)
    answers = read_model(path).original.ask(Shown(texts, rank=2), max_memory=1.0)
    np.testing.assert_allclose(answers(), expected, atol=1e-5)
    assert answers.note is None  # tf_keras itself answered


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights_only.h5", "weights without an architecture"),
        ("exported", r"a SavedModel without Keras's description .* model.save\(\"name.keras\"\)"),
    ],
)
def test_half_a_model_is_refused(tf_keras_files: Path, name: str, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_model(tf_keras_files / name)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("saved_model.pb", "no saved_model.pb"),
        ("variables/variables.index", r"no variables/variables.index: expected a whole SavedModel"),
        ("variables/variables.data-00000-of-00001", "data-00000-of-00001 is missing"),
        ("keras_metadata.pb", "without Keras's description"),
    ],
)
def test_a_saved_model_that_is_not_whole_is_refused(
    tf_keras_files: Path, tmp_path: Path, missing: str, words: str
) -> None:
    shutil.copytree(tf_keras_files / "flat_saved", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(ModelFileError, match=words) as error:
        read_model(tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    "part",
    ["saved_model.pb", "keras_metadata.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
def test_a_saved_model_that_is_cut_off_is_refused(tf_keras_files: Path, tmp_path: Path, part: str, share: float) -> None:
    shutil.copytree(tf_keras_files / "flat_saved", tmp_path / "model")
    data = (tmp_path / "model" / part).read_bytes()
    (tmp_path / "model" / part).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match="model"):
        read_model(tmp_path / "model")
