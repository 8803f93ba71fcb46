"""``.tflite`` files as sources: what is shared, what each head answers, what is refused, and no TensorFlow."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

keras = pytest.importorskip("keras")

from builder import build  # noqa: E402
from builder.growing.fitting import fits  # noqa: E402
from builder.growing.grow import GrowConfig, add_head  # noqa: E402
from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.difference import first_difference  # noqa: E402
from builder.merging.merged import merge  # noqa: E402
from builder.merging.mixed_sources import of_one_kind  # noqa: E402
from builder.merging.tolerance import align  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.graph import UnreadableModelError  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.reading.tflite.file import network  # noqa: E402
from builder.reading.tflite.pixels import entered, read_entry  # noqa: E402
from builder.settings.config import BuildConfig, JointConfig, ReadConfig  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING, PixelTransform  # noqa: E402
from builder.support.errors import ConfigError, ModelFileError, NoSharedBackboneError  # noqa: E402
from builder.tflite.flatbuffer import RESOURCE, Part, plain_tensor  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.bundle import append_members  # noqa: E402
from edge_runtime.errors import BundleError  # noqa: E402
from edge_runtime.image_input import ImageInput  # noqa: E402
from edge_runtime.inputs import tensor_maker  # noqa: E402
from tests import tflite_files  # noqa: E402
from tests.tflite_files import changed, convert, move_weight, with_kinds_in_bytes  # noqa: E402
from tests.tiny_models import SIZE, label_names, save_pictures, tiny_base, tiny_classifier  # noqa: E402

LABELS = {"animals": 3, "garden": 4}
EXACT = 1e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two classifiers on one base, each converted for itself."""
    base = tiny_base()
    models = {name: tiny_classifier(base, count, i + 1) for i, (name, count) in enumerate(LABELS.items())}
    return tflite_files.save(tmp_path_factory.mktemp("files"), {n: convert(m) for n, m in models.items()})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    save_pictures(folder, dict.fromkeys(LABELS, 12))
    return folder


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)


def read(paths: dict[str, Path], preprocessing: str | None = "tf") -> tuple[Classifier, ...]:
    reader, transform = Reader(), PREPROCESSING[preprocessing] if preprocessing else None
    found = [reader.read(name, path, transform) for name, path in paths.items()]
    labels = [label_names(c.name, c.graph.nodes[c.graph.output.node].config["outputs"][0][-1]) for c in found]  # type: ignore[attr-defined]
    return tuple(replace(c, labels=own) for c, own in zip(found, labels, strict=True))


def merged_and_apart(classifiers: tuple[Classifier, ...]) -> tuple[Any, float]:
    aligned, apart = align(classifiers, 0.0)
    return merge(aligned, find_backbone(aligned)), apart


def config(folder: Path, paths: dict[str, Path], pictures: Path, **overrides: Any) -> BuildConfig:
    heads = tuple(HeadConfig(n, p, label_names(n, LABELS[n]), PREPROCESSING["tf"]) for n, p in paths.items())
    fields = {"min_agreement": 0.0, "joint": JointConfig(enabled=False), **overrides}
    return BuildConfig(folder / "out.tflite", pictures, heads, **fields)


def write(folder: Path, content: bytes, name: str = "other") -> Path:
    return tflite_files.save(folder, {name: content})[name]


def test_two_files_become_one_with_the_answers_of_both(files: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    result = build(config(tmp_path, files, pictures, precision="int8"))
    assert result.quality.agreement > 0.9
    with MultiHeadClassifier(result.output) as opened:
        assert {info.head_name: len(info.labels) for info in opened.metadata.heads} == LABELS


def test_the_float_heads_are_the_originals(files: dict[str, Path], pixels: np.ndarray) -> None:
    classifiers = read(files)
    merged, _ = merged_and_apart(classifiers)
    features = merged.features(pixels)
    for classifier in classifiers:
        assert np.abs(classifier.predict(pixels) - merged.head_scores(classifier.name, features)).max() < EXACT


def test_a_head_is_added_to_a_file_that_was_built_from_tflite_files(
    files: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    made = build(config(tmp_path, {"animals": files["animals"]}, pictures, precision="int8"))
    head = HeadConfig("garden", files["garden"], label_names("garden", LABELS["garden"]), PREPROCESSING["tf"])
    add_head(GrowConfig(made.output, made.output, head=head, calibration_data=pictures, min_agreement=0.5))
    folded, other = (
        write(tmp_path, changed(files["garden"].read_bytes(), move_weight(share)), name)
        for name, share in (("folded", -3e-7), ("other", 1e-5))
    )
    assert fits(made.output, [replace(head, name="third", model=folded)], ReadConfig())[0].reason == ""
    with MultiHeadClassifier(made.output) as opened:
        assert opened.head_names == ("animals", "garden")
    with pytest.raises(NoSharedBackboneError, match="found another"):
        add_head(
            GrowConfig(made.output, made.output, head=replace(head, name="third", model=other), calibration_data=pictures)
        )


def test_a_keras_head_is_added_to_a_file_of_tflite_files_and_the_other_way_round(
    files: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    """A Keras model is converted; what a backbone of Keras models is in operators is kept in its file."""
    saved = {name: tmp_path / f"{name}.keras" for name in files}
    for seed, (name, path) in enumerate(saved.items(), 1):
        tiny_classifier(tiny_base(), LABELS[name], seed).save(path)
    made = build(config(tmp_path, {"animals": files["animals"]}, pictures, precision="int8"))
    head = HeadConfig("garden", saved["garden"], label_names("garden", LABELS["garden"]), PREPROCESSING["tf"])
    add_head(GrowConfig(made.output, made.output, head=head, calibration_data=pictures, min_agreement=0.5))
    with MultiHeadClassifier(made.output) as opened:
        assert opened.head_names == ("animals", "garden")
    made = build(config(tmp_path, {"animals": saved["animals"]}, pictures, precision="int8"))
    before = made.output.read_bytes()
    grow = GrowConfig(made.output, made.output, calibration_data=pictures, min_agreement=0.5)
    folded, other = (
        write(tmp_path, changed(files["garden"].read_bytes(), move_weight(share)), name)
        for name, share in (("folded", 3e-7), ("other", 1e-5))
    )
    with pytest.raises(NoSharedBackboneError, match="found another"):
        add_head(replace(grow, head=replace(head, model=other)))
    silent = {key: value for key, value in made.metadata.built.items() if key != "operators"}
    old = tmp_path / "old.tflite"
    metadata = replace(made.metadata, built=silent)
    old.write_bytes(append_members(before[: metadata.model_bytes], metadata))
    with pytest.raises(NoSharedBackboneError, match="give the Keras model, or build the file again"):
        add_head(replace(grow, file=old, output=old, head=replace(head, model=files["garden"])))
    for told in ({"seam": []}, {"seam": {}, "constants": [{"shape": [3], "largest": 1.0, "sums": []}]}):
        metadata = replace(made.metadata, built={**silent, "operators": told})
        old.write_bytes(append_members(before[: metadata.model_bytes], metadata))
        with pytest.raises(BundleError, match=r"built\.operators: expected"):
            add_head(replace(grow, file=old, output=old, head=replace(head, model=files["garden"])))
    assert made.output.read_bytes() == before
    add_head(replace(grow, head=replace(head, model=folded)))
    with MultiHeadClassifier(made.output) as opened:
        assert opened.head_names == ("animals", "garden")


def test_operators_of_converters_before_tensorflow_2_4_are_read(
    files: dict[str, Path], tmp_path: Path, pixels: np.ndarray
) -> None:
    """They told the kind of an operator in a byte, and not in the field that was added for more than 127 kinds."""
    old = write(tmp_path, with_kinds_in_bytes(files["garden"].read_bytes()), "garden")
    today, other = (read({"animals": files["animals"], "garden": path}) for path in (files["garden"], old))
    assert [classifier.digests for classifier in other] == [classifier.digests for classifier in today]
    merged, apart = merged_and_apart(other)
    assert apart == 0
    expected = today[1].predict(pixels)
    assert np.abs(merged.head_scores("garden", merged.features(pixels)) - expected).max() < EXACT


def test_an_archive_with_one_file_is_that_file(files: dict[str, Path], tmp_path: Path, pixels: np.ndarray) -> None:
    with zipfile.ZipFile(tmp_path / "converted_tflite.zip", "w") as archive:
        archive.write(files["animals"], "download/model_unquant.tflite")
        archive.writestr("download/labels.txt", "0 cat\n1 dog\n2 bird\n")
        archive.writestr("__MACOSX/download/._model_unquant.tflite", "x")
    packed = Reader().read("animals", tmp_path / "converted_tflite.zip", PREPROCESSING["tf"])
    (plain,) = read({"animals": files["animals"]})
    assert packed.labels == ("cat", "dog", "bird")
    assert packed.digests == plain.digests
    assert np.array_equal(packed.predict(pixels), plain.predict(pixels))


def test_an_archive_with_two_files_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name, path in files.items():
            archive.write(path, f"{name}.tflite")
    with pytest.raises(ModelFileError, match=r"name one \.tflite file in it"):
        Reader().read("both", tmp_path / "both.zip", PREPROCESSING["tf"])


def test_a_build_of_tflite_files_imports_no_tensorflow(files: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "tf_keras", "h5py"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from builder.__main__ import main
main()
"""
    heads = [f"--head={name}={path}" for name, path in files.items()]
    for name, count in LABELS.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(label_names(name, count)))
    labels = [f"--labels={name}={tmp_path / name}.txt" for name in LABELS]
    options = ["--preprocessing=tf", f"--calibration-data={pictures}", f"--output={tmp_path / 'out.tflite'}"]
    command = [sys.executable, "-c", program, "build", *heads, *labels, *options, "--min-agreement=0", "--precision=int8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with MultiHeadClassifier(tmp_path / "out.tflite") as opened:
        assert opened.metadata.built["sources"] == dict.fromkeys(LABELS, "TensorFlow Lite, float32")


@pytest.mark.parametrize("share", [1e-7, -4e-7])
def test_what_folding_moves_is_one_backbone(files: dict[str, Path], tmp_path: Path, share: float) -> None:
    other = write(tmp_path, changed(files["garden"].read_bytes(), move_weight(share)))
    whole, _ = merged_and_apart(read(files))
    merged, apart = merged_and_apart(read({"animals": files["animals"], "other": other}))
    assert merged.digest == whole.digest
    assert 0 < apart <= 1e-6


@pytest.mark.parametrize("kernel", [0, 1, 2])
def test_a_weight_moved_further_is_another_backbone(files: dict[str, Path], tmp_path: Path, kernel: int) -> None:
    other = write(tmp_path, changed(files["garden"].read_bytes(), move_weight(1e-5, kernel)))
    classifiers, _ = align(read({"animals": files["animals"], "other": other}), 0.0)
    if kernel == 0:
        with pytest.raises(NoSharedBackboneError, match="differs by up to"):
            find_backbone(classifiers)
    else:
        whole = find_backbone(read(files))
        assert find_backbone(classifiers).parameters < whole.parameters


def test_pixels_that_enter_otherwise_are_another_backbone(files: dict[str, Path]) -> None:
    first, _ = read(files)
    (_, second) = read(files, "unit")
    with pytest.raises(NoSharedBackboneError, match="its input scaling is"):
        find_backbone((first, second))


def test_a_base_of_another_width_shares_what_is_as_wide_alone(files: dict[str, Path], tmp_path: Path) -> None:
    """As MobileNetV2 of another alpha: the same operators, other shapes."""
    other = write(tmp_path, convert(tiny_classifier(tiny_base(features=48), LABELS["garden"], 2)))
    first, second = read({"animals": files["animals"], "other": other})
    assert find_backbone((first, second)).parameters < find_backbone(read(files)).parameters / 2
    assert "48" in str(first_difference(first, second))


def test_channels_in_another_order_are_another_backbone(files: dict[str, Path], tmp_path: Path) -> None:
    """Blue first, said by the user or done by the file itself."""
    blue_first = PixelTransform(order=(2, 1, 0)).then(1 / 127.5, -1)
    first, _ = read(files)
    said = Reader().read("garden", files["garden"], blue_first)
    with pytest.raises(NoSharedBackboneError, match=r"its input scaling is .*channels BGR, that of animals is"):
        find_backbone((first, said))
    model = tiny_classifier(tiny_base(), 3, before=[keras.layers.Lambda(lambda x: x[..., ::-1])])
    turned = Reader().read("other", write(tmp_path, convert(model)), PREPROCESSING["tf"])
    with pytest.raises(NoSharedBackboneError):
        find_backbone((first, turned))


def test_a_table_that_points_beyond_the_file_is_damage_in_one_line(files: dict[str, Path]) -> None:
    """Any word of the tables: also those that no interpreter reads, and that a library reads without looking."""
    whole, said = files["animals"].read_bytes(), set[str]()
    for place in range(4, len(whole) - 4, 4 * max(1, len(whole) // 1000)):
        for value in (0x7FFFFFF0, 0xFFFFFFF0, len(whole)):
            broken = whole[:place] + value.to_bytes(4, "little") + whole[place + 4 :]
            try:
                network(Path("broken.tflite"), broken)
            except ModelFileError as error:
                assert "\n" not in str(error)
                said.add(str(error))
    assert len(said) > 5


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2091132\n")
    with pytest.raises(ModelFileError, match="git lfs pull"):
        Reader().read("other", path, None)


def _two_inputs(part: Part) -> None:
    part.tensors.append(plain_tensor("second", (1, 3), np.float32))
    part.inputs["second"] = len(part.tensors) - 1


def _two_outputs(part: Part) -> None:
    part.outputs["boxes"] = part.operators[-2].outputs[0]


def _variable(part: Part) -> None:
    part.tensors.append(plain_tensor("variable", (), np.float32))
    part.tensors[-1].type = RESOURCE
    part.operators.append(part.operator("VAR_HANDLE", [], [len(part.tensors) - 1]))


def _custom(name: str) -> Any:
    def change(part: Part) -> None:
        code = part.codes[part.operators[-1].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, name

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_two_inputs, "expected one input"),
        (_variable, "its weights are variables, which it does not hold"),
        (_two_outputs, "a detector, or a model with several heads"),
        (_custom("MyOperator"), "custom operator 'MyOperator'"),
        (_custom("FlexErf"), "SELECT_TF_OPS"),
        (_custom("edgetpu-custom-op"), "Edge TPU"),
        (_custom("TFLite_Detection_PostProcess"), "boxes"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_refused_by_its_reason(
    files: dict[str, Path], tmp_path: Path, change: Any, reason: str
) -> None:
    path = write(tmp_path, changed(files["animals"].read_bytes(), change))
    with pytest.raises(ModelFileError, match=reason) as raised:
        Reader().read("other", path, PREPROCESSING["tf"])
    assert "\n" not in str(raised.value)


def test_a_keras_model_and_a_file_of_one_base_become_one(
    files: dict[str, Path], pixels: np.ndarray, tmp_path: Path
) -> None:
    model = tiny_classifier(tiny_base(), LABELS["garden"], 2)
    model.save(tmp_path / "garden.keras")
    kept, keras_model = (
        read({"animals": files["animals"]})[0],
        Reader().read("garden", tmp_path / "garden.keras", PREPROCESSING["tf"]),
    )
    keras_model = replace(keras_model, labels=label_names("garden", LABELS["garden"]))
    for order in ((kept, keras_model), (keras_model, kept)):
        same = of_one_kind(order)
        merged, _ = merged_and_apart(same)
        assert len(merged.backbone.operators) > 4
        features = merged.features(pixels)
        expected = np.asarray(model(pixels / np.float32(127.5) - 1, training=False))
        assert np.abs(merged.head_scores("garden", features) - expected).max() < EXACT
        assert np.abs(merged.head_scores("animals", features) - kept.predict(pixels)).max() < EXACT


def test_keras_models_alone_stay_layers(tmp_path: Path) -> None:
    tiny_classifier(tiny_base(), 3, 2).save(tmp_path / "a.keras")
    classifier = Reader().read("a", tmp_path / "a.keras", PREPROCESSING["tf"])
    assert of_one_kind((classifier,)) == (classifier,)


def test_what_needs_layers_is_refused(files: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"comes from a \.tflite file"):
        build(config(tmp_path, files, pictures, keras_output=tmp_path / "merged.keras"))
    assert not list(tmp_path.iterdir())


def _quantized(model: Any, pixels: np.ndarray, *, weights: str = "int8", entering: str = "tf") -> bytes:
    import tensorflow as tf

    settings: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if weights == "float16":
        settings["target_spec"] = tf.lite.TargetSpec(supported_types=[tf.float16])
    if weights == "all int8":
        settings["representative_dataset"] = lambda: ([p[None]] for p in PREPROCESSING[entering].apply(pixels))
        settings["inference_input_type"] = settings["inference_output_type"] = tf.uint8
    return convert(model, **settings)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, dict[str, Path]]:
    """The two classifiers in three precisions."""
    spec = ImageInput(SIZE, SIZE)
    shown = np.concatenate([tensor_maker(spec)(path) for path in sorted(pictures.rglob("*.*"))[:16]])
    base = tiny_base()
    models = {name: tiny_classifier(base, count, i + 1) for i, (name, count) in enumerate(LABELS.items())}
    folder = tmp_path_factory.mktemp("rounded")
    found = {}
    for weights in ("float16", "int8", "all int8"):
        (folder / weights).mkdir()
        made = {name: _quantized(model, shown, weights=weights) for name, model in models.items()}
        found[weights] = tflite_files.save(folder / weights, made)
    return found


@pytest.mark.parametrize("weights", ["float16", "int8", "all int8"])
def test_rounded_files_share_what_they_shared(
    rounded: dict[str, dict[str, Path]], pixels: np.ndarray, weights: str
) -> None:
    """int8 biases are rounded by scales that differ from file to file: they are one within half a step."""
    classifiers = read(rounded[weights])
    merged, apart = merged_and_apart(classifiers)
    assert apart <= 1e-6
    assert [len(head.operators) for head in merged.heads.values()] == [2, 2]
    features = merged.features(pixels)
    limit = {"float16": EXACT, "int8": 0.05, "all int8": 0.2}[weights]
    for classifier in classifiers:
        assert np.abs(classifier.predict(pixels) - merged.head_scores(classifier.name, features)).max() < limit
        assert classifier.is_exact == (weights == "float16")


def test_int8_files_build_and_are_compared_with_themselves(
    rounded: dict[str, dict[str, Path]], pictures: Path, tmp_path: Path
) -> None:
    heads = tuple(HeadConfig(n, p, label_names(n, LABELS[n])) for n, p in rounded["all int8"].items())
    result = build(BuildConfig(tmp_path / "out.tflite", pictures, heads, joint=JointConfig(enabled=False)))
    assert result.quality.agreement >= 0.97
    assert any("rounding error stays" in note for note in result.report.notes)


@pytest.fixture(scope="module")
def of_torch(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    """An int8 file whose pixels were scaled channel by channel before they were quantized by one scale."""
    model = _quantized(tiny_classifier(tiny_base(), 3), pixels, weights="all int8", entering="torch")
    (path,) = tflite_files.save(tmp_path_factory.mktemp("torch"), {"animals": model}).values()
    return path


def test_integers_are_the_scaled_pixels_that_the_file_was_quantized_for(of_torch: Path, pixels: np.ndarray) -> None:
    """The original takes what its makers give it, and the float network what that stands for."""
    classifier = replace(Reader().read("animals", of_torch, PREPROCESSING["torch"]), labels=label_names("animals", 3))
    file = Interpreter(str(of_torch))
    file.allocate_tensors()
    (entry,), (end,) = file.get_input_details(), file.get_output_details()
    scale, zero_point = entry["quantization"]
    expected = []
    for one in PREPROCESSING["torch"].apply(pixels):
        file.set_tensor(entry["index"], np.clip(np.round(one / scale) + zero_point, 0, 255)[None].astype(np.uint8))
        file.invoke()
        expected.append(file.get_tensor(end["index"])[0] / 256)
    np.testing.assert_allclose(classifier.predict(pixels), expected, atol=1e-6)
    merged, _ = merged_and_apart((classifier,))
    assert np.abs(merged.head_scores("animals", merged.features(pixels)) - expected).max() < 0.1


def test_integers_that_may_stand_for_anything_are_asked_about(of_torch: Path) -> None:
    with pytest.raises(ModelFileError, match=r"-2\.1.* to 2\.6.*, which is no usual scaling of pixels; add"):
        Reader().read("animals", of_torch, None)
    with pytest.raises(ModelFileError, match="cannot hold pixel - 128; leave preprocessing out"):
        Reader().read("animals", of_torch, PixelTransform().then(1, -128))


TF, UNIT, RAW = PREPROCESSING["tf"], PREPROCESSING["unit"], PREPROCESSING["raw"]
ENTERED: dict[str, tuple[tuple[float, float], PixelTransform | None, str]] = {
    "-1 to 1": ((-1, 1), None, "pixels"),
    "0 to 1": ((0, 1), None, "pixels"),
    "0 to 255": ((0, 255), None, "pixels"),
    "-128 to 127": ((-128, 127), None, "pixels"),
    "the brightest pixel was 254": ((-1, 254 / 127.5 - 1), None, "pixels"),
    "the brightest pixel was 200": ((0, 200 / 255), None, "asked"),
    "and it is said": ((0, 200 / 255), UNIT, "scaled"),
    "said as it is": ((-1, 1), TF, "pixels"),
    "the integers themselves": ((-1, 1), RAW, "pixels"),
    "unscaled, up to 200": ((0, 200), RAW, "scaled"),
    "another scaling": ((0, 1), TF, "refused"),
    "of torch": ((-2.12, 2.64), PREPROCESSING["torch"], "scaled"),
    "of torch, unsaid": ((-2.12, 2.64), None, "asked"),
    "of caffe": ((-123.7, 151.1), PREPROCESSING["caffe"], "scaled"),
    "of caffe, unsaid": ((-123.7, 151.1), None, "asked"),
    "not quantized": ((0, 0), None, "pixels"),
    "not quantized, but scaled": ((0, 0), TF, "refused"),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("name", ENTERED)
def test_integers_are_pixels_where_nothing_else_is_meant(name: str, dtype: Any) -> None:
    (low, high), declared, expected = ENTERED[name]
    scale = (high - low) / 255 or None
    lowest = np.iinfo(dtype).min
    zero_point = 0 if scale is None else round(lowest - low / scale)
    tensor = plain_tensor("image", (1, 4, 4, 3), dtype, scale=scale, zero_point=zero_point)
    part = SimpleNamespace(inputs={"image": 0}, tensors=[tensor])
    entry, inside = read_entry(part)  # type: ignore[arg-type]
    if expected == "refused":
        with pytest.raises(UnreadableModelError, match="leave preprocessing out"):
            entered(entry, inside, declared, part)  # type: ignore[arg-type]
        return
    found = entered(entry, inside, declared, part)  # type: ignore[arg-type]
    if expected == "asked":
        assert found is None
        return
    assert found is not None
    entry, outside, inside = found
    pixels = np.full((1, 4, 4, 3), 100, np.uint8)
    integers = entry.take(outside.apply(pixels)).astype(int)
    if expected == "pixels":
        assert np.all(integers == 100 + lowest)
    else:
        assert declared is not None and scale is not None
        real = scale * (integers - zero_point)
        assert np.abs(real - declared.apply(pixels)).max() <= scale / 2 + 1e-6
        assert (outside, inside) == (declared, PixelTransform())


def test_a_float_file_and_a_rounded_one_are_told_apart(
    files: dict[str, Path], rounded: dict[str, dict[str, Path]]
) -> None:
    mixed = {"animals": files["animals"], "other": rounded["int8"]["garden"]}
    classifiers, _ = align(read(mixed), 0.0)
    difference = first_difference(*classifiers)
    assert difference is not None
    assert "other was quantized, animals was not" in difference.advice
