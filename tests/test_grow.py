"""Heads are added, removed and renamed in a finished file; the others answer as before, bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from builder import HeadConfig, build
from builder.commands.cli import main
from builder.exporting.export import export_split
from builder.growing import change as change_module
from builder.growing.change import remove_head, rename_head
from builder.growing.finished import read_finished
from builder.growing.grow import add_head, build_head
from builder.settings.growing import GrowConfig
from builder.settings.input_scaling import PREPROCESSING as TRANSFORMS
from builder.support.errors import BuilderError, ConfigError, ModelFileError, NoSharedBackboneError, QualityError
from builder.tflite.link import link, unlink
from edge_runtime import BundleError, EdgeRuntimeError, MultiHeadClassifier
from edge_runtime.bundle import append_members, read_head_pack, read_metadata
from edge_runtime.cli import main as edge_runtime_main
from edge_runtime.signatures import Signatures
from tests.joint_models import with_joint, with_none
from tests.laws import SCORE_TOLERANCE, one_line
from tests.tiny_models import (
    PREPROCESSING,
    THREE_HEADS,
    label_names,
    save_pictures,
    tiny_base,
    tiny_classifier,
    tiny_config,
)

DOGS = label_names("dogs", 5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dogs.keras`` on the base of ``tiny``; ``other.keras`` on another; pictures for them."""
    folder = tmp_path_factory.mktemp("models")
    tiny_classifier(tiny_base(0), 5, 99).save(folder / "dogs.keras")
    tiny_classifier(tiny_base(7), 5, 99).save(folder / "other.keras")
    tiny_classifier(tiny_base(0, 48), 5, 99).save(folder / "large.keras")
    save_pictures(folder / "pictures", {"dogs": 12, "any": 12}, seed=3)
    return folder


@pytest.fixture
def file(tiny_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(tiny_file, tmp_path / "main.tflite"))


def grow(file: Path, models: Path, model: str = "dogs.keras", name: str = "dogs", **options: Any) -> GrowConfig:
    preprocessing = options.pop("preprocessing", PREPROCESSING)
    labels = options.pop("labels", DOGS)
    head = HeadConfig(name, models / model, labels, TRANSFORMS[preprocessing])
    fields = {"output": file, "calibration_data": models / "pictures", "min_agreement": 0.0, "head": head, **options}
    return GrowConfig(file, **fields)


def answers(path: Path, picture: Path, **options: Any) -> dict[str, list[float]]:
    with MultiHeadClassifier(path, **options) as classifier:
        features = classifier.features(picture)
        return {name: classifier.head_scores(features, name).tolist() for name in classifier.head_names}


def refused(file: Path, change: Callable[[], object], kind: type[Exception], *words: str) -> None:
    """The command ends with one line, and the file and its folder are unchanged."""
    content, names = file.read_bytes(), sorted(file.parent.iterdir())
    with pytest.raises(kind) as caught:
        change()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert file.read_bytes() == content
    assert sorted(file.parent.iterdir()) == names


# What is taken apart


@pytest.mark.parametrize("kind", ["plain", "joint"])
def test_a_file_taken_apart_and_linked_again_has_the_same_bytes(kind: str, tiny_file: Path, tmp_path: Path) -> None:
    path = tiny_file if kind == "plain" else build(with_none(with_joint(tmp_path))).output
    model = path.read_bytes()[: read_metadata(str(path)).model_bytes]
    parts, joint = unlink(model, [head.head_name for head in read_metadata(str(path)).heads])
    assert (joint is None) == (kind == "plain")
    assert link(parts, joint).model == model


# A head comes


def test_a_head_is_added_and_the_others_answer_as_before(
    file: Path, models: Path, tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path
) -> None:
    change = add_head(grow(file, models))
    assert change.kept is not None
    assert (change.kept.heads, change.kept.noise) == (3, False)
    for picture in tiny_pictures[:6]:
        before, after = answers(tiny_file, picture), answers(file, picture)
        assert list(after) == [*THREE_HEADS, "dogs"]
        assert {name: after[name] for name in THREE_HEADS} == before
    metadata = read_metadata(str(file))
    assert metadata.heads[3].labels == DOGS
    assert metadata.quality["heads"]["dogs"]["pictures"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["main.report", "main.tflite"]


def test_what_was_noticed_in_the_model_of_a_new_head_is_told(file: Path, models: Path, tmp_path: Path) -> None:
    tiny_classifier(tiny_base(0), 5, 99, activation=None).save(tmp_path / "bare.keras")
    config = grow(file, models, output=tmp_path / "dogs.head.tflite")
    assert config.head is not None
    bare = replace(config.head, model=tmp_path / "bare.keras")
    for head, expected in ((config.head, 0), (bare, 1)):
        told = [note for note in build_head(replace(config, head=head)).notes if "a softmax is assumed" in note]
        assert len(told) == expected and all(note.startswith("dogs: its values are logits") for note in told)


def test_the_input_scaling_of_a_new_head_may_be_left_out(file: Path, models: Path, tmp_path: Path) -> None:
    """Of all that has a name one gives the file's backbone; where none does, nothing is guessed."""
    config = grow(file, models)
    assert config.head is not None
    unsaid = replace(config.head, preprocessing=None)
    packs = []
    for head in (config.head, unsaid):
        pack = replace(config, head=head, output=tmp_path / f"{len(packs)}.head.tflite")
        build_head(pack)
        packs.append(read_head_pack(str(pack.output)))
    assert packs[0] == packs[1]
    other = replace(config, head=replace(unsaid, model=models / "other.keras"))
    refused(file, lambda: add_head(other), NoSharedBackboneError, "raw, unit, tf, torch, caffe")
    large = replace(config, head=replace(unsaid, model=models / "large.keras"))
    refused(file, lambda: add_head(large), NoSharedBackboneError, "48 x 48")


def test_inspect_says_which_models_a_finished_file_could_take(tiny_file: Path, models: Path) -> None:
    def inspected(*names: str, options: tuple[str, ...] = ()) -> tuple[int, list[Any]]:
        files = [str(models / f"{name}.keras") for name in names]
        done = CliRunner().invoke(main, ["inspect", str(tiny_file), *files, "--json", *options])
        document = json.loads(done.stdout)
        assert document["shared"] is (done.exit_code == 0)
        return done.exit_code, document["models"]

    code, (dogs,) = inspected("dogs")
    assert (code, dogs["fits"], dogs["head_parameters"]) == (0, True, 5 * 64 + 5)
    assert dogs["input"] == "32 x 32 as pixel * 0.00784314 - 1"
    code, found = inspected("dogs", "other", "large")
    assert (code, [model["fits"] for model in found]) == (3, [True, False, False])
    assert "found another" in found[1]["reason"]
    code, (dogs,) = inspected("dogs", options=("--preprocessing", "unit"))
    assert code == 3
    assert "preprocessing = 'tf'" in dogs["reason"]
    shown = CliRunner().invoke(main, ["inspect", str(tiny_file)])
    assert (shown.exit_code, "animals" in shown.output) == (0, True)


def test_the_new_head_answers_as_its_original(file: Path, models: Path, tiny_pictures: list[Path]) -> None:
    import keras

    add_head(grow(file, models))
    original = keras.models.load_model(models / "dogs.keras")
    with MultiHeadClassifier(file) as classifier:
        for picture in tiny_pictures[:8]:
            pixels = classifier.prepare(picture)
            expected = np.asarray(original(pixels.astype(np.float32) / 127.5 - 1))[0]
            assert np.abs(classifier.head_scores(classifier.features_of(pixels), "dogs") - expected).max() < 0.15


def test_the_file_grows_by_the_heads_weights_and_2_kilobytes(file: Path, models: Path) -> None:
    before = file.stat().st_size
    add_head(grow(file, models))
    weights = 64 * 5 + 5 * 4
    assert file.stat().st_size - before <= weights + 2048


def test_what_was_added_and_removed_again_leaves_the_same_bytes(file: Path, models: Path) -> None:
    before = file.read_bytes()
    add_head(grow(file, models))
    remove_head(GrowConfig(file, file), "dogs")
    assert file.read_bytes() == before


def test_adding_a_head_twice_gives_the_same_bytes(file: Path, models: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        change = add_head(grow(file, models, output=tmp_path / name / "out.tflite", report=tmp_path / name))
        contents.append(change.output.read_bytes())
    assert contents[0] == contents[1]
    assert len(contents[0]) == change.file_bytes > file.stat().st_size


def test_a_head_is_replaced_in_its_place(file: Path, models: Path, tiny_file: Path, tiny_pictures: list[Path]) -> None:
    add_head(grow(file, models, name="garden"), replacing=True)
    before, after = answers(tiny_file, tiny_pictures[0]), answers(file, tiny_pictures[0])
    assert list(before) == list(after)
    assert [name for name in before if before[name] != after[name]] == ["garden"]
    assert read_metadata(str(file)).heads[1].labels == DOGS


# Heads go, and get other names


def test_a_head_is_removed(file: Path, tiny_file: Path, tiny_pictures: list[Path]) -> None:
    change = remove_head(GrowConfig(file, file), "garden")
    before, after = answers(tiny_file, tiny_pictures[0]), answers(file, tiny_pictures[0])
    assert after == {name: before[name] for name in ("animals", "things")}
    assert change.kept is not None
    assert (change.kept.heads, change.kept.noise) == (2, True)
    assert set(read_metadata(str(file)).quality["heads"]) == {"animals", "things"}
    assert change.file_bytes == file.stat().st_size < tiny_file.stat().st_size


def test_a_head_renamed_there_and_back_leaves_the_same_bytes(file: Path) -> None:
    before = file.read_bytes()
    rename_head(GrowConfig(file, file), "garden", "yard")
    assert [head.head_name for head in read_metadata(str(file)).heads] == ["animals", "yard", "things"]
    assert b"garden" not in file.read_bytes()[: read_metadata(str(file)).model_bytes]
    rename_head(GrowConfig(file, file), "yard", "garden")
    assert file.read_bytes() == before


def test_renaming_removing_and_listing_need_no_tensorflow(file: Path) -> None:
    program = (
        "import sys; from builder.commands.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    for arguments in (["rename-head", file, "garden=yard"], ["remove-head", file, "yard"], ["list", file]):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
        assert done.returncode == 0, done.stderr
    assert [head.head_name for head in read_metadata(str(file)).heads] == ["animals", "things"]


def test_changes_are_added_to_the_report_of_the_build(file: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "main.report"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"output": str(file), "passed": True}))
    add_head(grow(file, models))
    rename_head(GrowConfig(file, file), "dogs", "hounds")
    document = json.loads((folder / "report.json").read_text())
    assert document["passed"]
    assert [change["what"] for change in document["changes"]] == ["added head dogs", "renamed head dogs to hounds"]
    assert [change["other_heads"]["bit_identical"] for change in document["changes"]] == [3, 4]
    assert [change["other_heads"]["noise"] for change in document["changes"]] == [False, True]
    remove_head(GrowConfig(file, tmp_path / "second.tflite"), "garden")
    assert json.loads((folder / "report.json").read_text()) == document
    assert "passed" not in json.loads((tmp_path / "second.report" / "report.json").read_text())


@pytest.mark.parametrize("spelled", ["main.tflite", "./main.tflite", "../{folder}/main.tflite", "link.tflite"])
def test_the_report_of_the_build_stays_however_the_file_is_spelled(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    folder = tmp_path / "main.report"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"output": str(file), "passed": True}))
    (tmp_path / "link.tflite").symlink_to("main.tflite")
    monkeypatch.chdir(tmp_path)
    path = Path(spelled.format(folder=tmp_path.name))
    rename_head(GrowConfig(path, path), "garden", "yard")
    document = json.loads((folder / "report.json").read_text())
    assert document["passed"]
    assert document["changes"][0]["what"] == "renamed head garden to yard"
    assert (tmp_path / "link.tflite").is_symlink()


def test_no_change_undoes_another(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is told while the first is under way, wherever it is, and works on what the first left."""
    finish, told = change_module.finish, list[str]()

    def late(*arguments: Any) -> None:
        if not told:
            with pytest.raises(ConfigError, match="is writing it; run this again when that has ended") as error:
                rename_head(GrowConfig(file, file), "garden", "yard")
            told.append(str(error.value))
        finish(*arguments)

    monkeypatch.setattr(change_module, "finish", late)
    rename_head(GrowConfig(file, file), "animals", "beasts")
    assert told
    rename_head(GrowConfig(file, file), "garden", "yard")
    assert [head.head_name for head in read_metadata(str(file)).heads] == ["beasts", "yard", "things"]


def test_a_file_that_another_program_replaced_meanwhile_is_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = change_module.finish

    def late(*arguments: Any) -> None:
        finish(*arguments)
        file.write_bytes(b"somebody else's")

    monkeypatch.setattr(change_module, "finish", late)
    with pytest.raises(ConfigError, match="another program changed it meanwhile; nothing was written"):
        rename_head(GrowConfig(file, file), "animals", "beasts")
    assert file.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("told", [True, False])
def test_a_note_says_that_the_saved_model_keeps_the_old_heads(told: bool, file: Path, tmp_path: Path) -> None:
    report = tmp_path / "main.report" / "report.json"
    report.parent.mkdir()
    report.write_text(json.dumps({"output": "main.tflite", "saved_model": "served" if told else None}))
    change = rename_head(GrowConfig(file, tmp_path / "other.tflite"), "garden", "yard")
    assert [note for note in change.notes if "SavedModel served" in note] == change.notes
    assert bool(change.notes) is told


# The joint list


@pytest.fixture(scope="module")
def joint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    build(with_none(with_joint(folder)))
    return folder


@pytest.fixture
def joint_file(joint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(joint_folder / "tiny.tflite", tmp_path / "joint.tflite"))


def test_renaming_keeps_the_joint_list(joint_file: Path, joint_folder: Path) -> None:
    picture = next((joint_folder / "pictures" / "none").iterdir())
    before = joint_file.read_bytes()
    with MultiHeadClassifier(joint_file) as classifier:
        expected = classifier.joint_scores(classifier.features(picture))
    rename_head(GrowConfig(joint_file, joint_file), "garden", "yard")
    with MultiHeadClassifier(joint_file) as classifier:
        found = classifier.joint_scores(classifier.features(picture))
        heads = classifier.classify(picture, joint=True, threshold={"yard": 0.5}).joint.heads
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [head.head_name for head in heads] == ["animals", "yard", "things"]
    rename_head(GrowConfig(joint_file, joint_file), "yard", "garden")
    assert joint_file.read_bytes() == before


def test_without_pictures_the_joint_list_is_dropped_with_a_note(joint_file: Path) -> None:
    change = remove_head(GrowConfig(joint_file, joint_file), "garden")
    assert any("joint list is dropped" in note for note in change.notes)
    assert read_metadata(str(joint_file)).joint is None


def test_with_pictures_the_joint_list_is_fitted_again(joint_file: Path, joint_folder: Path, models: Path) -> None:
    remove_head(GrowConfig(joint_file, joint_file, calibration_data=joint_folder / "pictures"), "garden")
    with MultiHeadClassifier(joint_file) as classifier:
        scores, heads = classifier.joint_scores(
            classifier.features(next((joint_folder / "pictures" / "things").iterdir()))
        )
    assert len(heads) == 3  # two heads, and none
    assert len(scores) == THREE_HEADS["animals"] + THREE_HEADS["things"] + 1
    change = add_head(grow(joint_file, models))  # pictures of dogs, of no other head
    assert any("dropped: each head needs at least" in note for note in change.notes)


# What is refused


def test_names_that_are_taken_or_no_names_or_not_there(file: Path, models: Path) -> None:
    refused(file, lambda: add_head(grow(file, models, name="garden")), ConfigError, "garden", "replace-head")
    refused(file, lambda: add_head(grow(file, models, name="joint")), ConfigError, "taken")
    refused(file, lambda: rename_head(GrowConfig(file, file), "garden", "things"), ConfigError, "things", "there already")
    refused(file, lambda: rename_head(GrowConfig(file, file), "garden", "a b"), ConfigError, "small letters")
    for change in (
        lambda: add_head(grow(file, models, name="dogs"), replacing=True),
        lambda: remove_head(GrowConfig(file, file), "dogs"),
        lambda: rename_head(GrowConfig(file, file), "dogs", "hounds"),
    ):
        refused(file, change, ModelFileError, "dogs", "animals, garden, things")


def test_another_backbone_is_refused(file: Path, models: Path) -> None:
    digest = read_metadata(str(file)).backbone_digest
    refused(file, lambda: add_head(grow(file, models, "other.keras")), NoSharedBackboneError, "other.keras", digest[:23])


def test_another_input_scaling_is_refused(file: Path, models: Path) -> None:
    change = lambda: add_head(grow(file, models, preprocessing="unit"))  # noqa: E731
    refused(file, change, NoSharedBackboneError, "its input scaling differs", "'tf'")


def test_pictures_of_another_size_are_refused(file: Path, models: Path) -> None:
    refused(file, lambda: add_head(grow(file, models, "large.keras")), NoSharedBackboneError, "32 x 32", "48 x 48")


def test_other_labels_than_outputs(file: Path, models: Path) -> None:
    refused(file, lambda: add_head(grow(file, models, labels=DOGS[:4])), ConfigError, "expected 5 labels", "found 4")


def test_a_head_that_reads_the_base_earlier(file: Path, tmp_path: Path, models: Path) -> None:
    import keras

    base = tiny_base(0)
    early = keras.layers.GlobalAveragePooling2D()(base.get_layer("tiny_base_add").output)
    scores = keras.layers.Dense(5, activation="softmax")(keras.layers.Concatenate()([base.output, early]))
    folder = tmp_path / "early"
    folder.mkdir()
    keras.Model(base.input, scores).save(folder / "early.keras")
    shutil.copytree(models / "pictures", folder / "pictures")
    refused(
        file,
        lambda: add_head(grow(file, folder, "early.keras")),
        NoSharedBackboneError,
        "reads tensors of it",
        "features",
    )


def test_the_last_head_cannot_be_removed(file: Path) -> None:
    for name in ("animals", "garden"):
        remove_head(GrowConfig(file, file), name)
    refused(file, lambda: remove_head(GrowConfig(file, file), "things"), ConfigError, "only head")


def test_a_new_head_below_min_agreement_is_refused(file: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builder.growing.new_head as new_head

    original = new_head.compare
    monkeypatch.setattr(new_head, "compare", lambda *a: replace(original(*a), agreement=0.2, interval=(0.1, 0.4)))
    refused(file, lambda: add_head(grow(file, models, min_agreement=0.97)), QualityError, "dogs", "20.0%", "0.97")


def test_a_full_disk_leaves_the_old_file(file: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        original(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(file, lambda: remove_head(GrowConfig(file, file), "garden"), OSError, "No space left")


def test_a_model_that_would_answer_otherwise_is_not_written(
    file: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of another head changes during the command. Running the heads finds it, whatever the cause."""
    import builder.growing.finished as finished

    original = finished.link

    def spoilt(parts: Any, joint: Any) -> Any:
        part = parts["animals"]
        weights = next(i for op in part.operators for i in op.inputs[1:2])
        content = part.buffers[part.tensors[weights].buffer].view(np.int8).copy()
        part.set_constant(weights, -content - 1)
        return original(parts, joint)

    monkeypatch.setattr(finished, "link", spoilt)
    refused(file, lambda: add_head(grow(file, models)), BuilderError, "head animals", "differently than before")


# Packs


@pytest.fixture(scope="module")
def pack(tiny_file: Path, models: Path) -> Path:
    return build_head(grow(tiny_file, models, output=models / "dogs.head.tflite", report=models / "report")).output


def test_a_pack_answers_as_the_head_in_the_file(file: Path, models: Path, pack: Path, tiny_pictures: list[Path]) -> None:
    packed = [answers(file, picture, head_packs=[pack]) for picture in tiny_pictures[:4]]
    add_head(grow(file, models))
    for picture, found in zip(tiny_pictures, packed, strict=False):
        expected = answers(file, picture)
        assert list(found) == list(expected)
        for name in expected:
            assert np.abs(np.subtract(found[name], expected[name])).max() <= (SCORE_TOLERANCE if name == "dogs" else 0)


def test_packs_in_the_folder_of_the_file_are_read_by_themselves(
    file: Path, pack: Path, tiny_pictures: list[Path]
) -> None:
    folder = file.with_suffix(".heads")
    folder.mkdir()
    shutil.copy(pack, folder / "dogs.head.tflite")
    (folder / "notes.txt").write_text("not a pack")
    with MultiHeadClassifier(file) as classifier:
        assert classifier.head_names == (*THREE_HEADS, "dogs")
        assert classifier.heads[3].labels == DOGS
        result = classifier.classify(tiny_pictures[0], heads=[3], top_k=1)
    assert (result.classifications[0].head_index, result.classifications[0].head_name) == (3, "dogs")
    with MultiHeadClassifier(file, head_packs=()) as classifier:
        assert classifier.head_names == tuple(THREE_HEADS)


def test_the_device_commands_take_packs(file: Path, pack: Path, tiny_pictures: list[Path]) -> None:
    picture = str(tiny_pictures[0])
    for arguments in (["classify", str(file), picture], ["camera", str(file), "--source", picture, "--lines", "frame"]):
        command = [sys.executable, "-m", "edge_runtime", *arguments, "--head", "dogs", "--head-pack", str(pack), "--json"]
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
        assert found.returncode == 0, found.stderr
        assert "dogs 0" in found.stdout
    told = CliRunner().invoke(edge_runtime_main, ["info", str(file), "--head-pack", str(pack), "--json"])
    assert [head["head_name"] for head in json.loads(told.stdout)["head_packs"]] == ["dogs"]


def test_only_the_heads_asked_for_run(
    file: Path, pack: Path, tiny_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    original = Signatures.run

    def counted(self: Signatures, signature: str, inputs: Any) -> Any:
        calls.append((self.path, signature))
        return original(self, signature, inputs)

    monkeypatch.setattr(Signatures, "run", counted)
    with MultiHeadClassifier(file, head_packs=[pack]) as classifier:
        classifier.classify(tiny_pictures[0], heads=["dogs"])
        classifier.classify(tiny_pictures[0], heads=["garden"])
    assert calls == [(str(file), "backbone"), (str(pack), "dogs"), (str(file), "backbone"), (str(file), "garden")]


def test_a_pack_that_is_replaced_while_it_is_open(
    file: Path, pack: Path, tmp_path: Path, tiny_pictures: list[Path]
) -> None:
    own = Path(shutil.copy(pack, tmp_path / "own.tflite"))
    expected = answers(file, tiny_pictures[0], head_packs=[pack])
    with MultiHeadClassifier(file, head_packs=[own]) as classifier:
        own.write_bytes(b"\0" * 1000)
        found = classifier.head_scores(classifier.features(tiny_pictures[0]), "dogs")
    assert found.tolist() == expected["dogs"]


def test_what_was_opened_is_closed(file: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[Signatures]()
    made = Signatures.__init__
    monkeypatch.setattr(Signatures, "__init__", lambda self, *a, **k: (opened.append(self), made(self, *a, **k))[1])
    with MultiHeadClassifier(file, head_packs=[pack]) as classifier:
        features = classifier.features_of(np.zeros(classifier.metadata.input.shape, np.uint8))
        classifier.head_scores(features, "dogs")
        assert [one.closed for one in opened] == [False, False]
    assert [one.closed for one in opened] == [True, True]
    with pytest.raises(EdgeRuntimeError, match="closed"):
        classifier.head_scores(features, "dogs")


def test_the_pack_is_small(pack: Path) -> None:
    assert pack.stat().st_size < 64 * 5 + 5 * 4 + 2400


def _refused_pack(file: Path, packs: list[Path], *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        MultiHeadClassifier(file, head_packs=packs)
    message = str(caught.value)
    assert one_line(message, packs[-1])
    assert all(word in message for word in words), message


def test_packs_that_are_refused(file: Path, pack: Path, models: Path, tmp_path: Path) -> None:
    content, (metadata, _) = pack.read_bytes(), read_head_pack(str(pack))
    model = content[: metadata.model_bytes]

    def written(name: str, **changed: Any) -> Path:
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(append_members(model, replace(metadata, **changed)))
        return path

    _refused_pack(file, [pack, pack], "dogs", "already")
    _refused_pack(file, [written("taken", head=replace(metadata.head, head_name="garden"))], "garden", "already")
    _refused_pack(file, [written("other", backbone_digest="sha256:" + "0" * 64)], "dogs", "sha256:0000", "this file")
    seam = tuple(replace(t, quantization=t.quantization._replace(scale=0.5)) for t in metadata.seam)
    _refused_pack(file, [written("scale", seam=seam)], "dogs", "features", "other integers")
    _refused_pack(file, [file], "expected a head pack", "backbone of its own")
    short = tmp_path / "short.tflite"
    short.write_bytes(content[:-10])
    _refused_pack(file, [short], "cut short")
    with pytest.raises(BundleError, match=r"a head pack.*--head-pack"):
        MultiHeadClassifier(pack)


def test_a_pack_that_gives_something_else_than_its_members_say(file: Path, pack: Path, tmp_path: Path) -> None:
    metadata, _ = read_head_pack(str(pack))
    head = replace(metadata.head, labels=DOGS[:4])
    path = tmp_path / "four.tflite"
    path.write_bytes(append_members(pack.read_bytes()[: metadata.model_bytes], replace(metadata, head=head)))
    with MultiHeadClassifier(file, head_packs=[path]) as classifier:
        features = np.zeros((1, 64), np.int8)
        with pytest.raises(BundleError, match=r"dogs: members promise int8 \(1, 4\), the model gives"):
            classifier.head_scores(features, "dogs")


def test_a_file_without_heads_needs_packs(file: Path, pack: Path, tmp_path: Path, tiny_pictures: list[Path]) -> None:
    metadata = read_metadata(str(file))
    parts, _ = unlink(file.read_bytes()[: metadata.model_bytes], [head.head_name for head in metadata.heads])
    linked = link({"backbone": parts["backbone"], "animals": parts["animals"]})
    bare = replace(metadata, heads=metadata.heads[:1], model_bytes=len(linked.model), quality={})
    path = tmp_path / "one.tflite"
    path.write_bytes(append_members(linked.model, bare))
    assert list(answers(path, tiny_pictures[0], head_packs=[pack])) == ["animals", "dogs"]


def test_a_pack_for_a_backbone_alone_is_the_pack_for_its_file(
    file: Path, pack: Path, models: Path, tmp_path: Path
) -> None:
    export_split(file, tmp_path / "apart")
    alone = tmp_path / "apart" / "main.tflite"
    built = build_head(grow(alone, models, output=tmp_path / "dogs.head.tflite", report=tmp_path / "report")).output
    assert built.read_bytes() == pack.read_bytes()


def test_a_backbone_alone_takes_a_head(file: Path, models: Path, tmp_path: Path, tiny_pictures: list[Path]) -> None:
    export_split(file, tmp_path / "apart")
    alone = tmp_path / "apart" / "main.tflite"
    add_head(grow(alone, models))
    add_head(grow(file, models))
    found, expected = (answers(path, tiny_pictures[0], head_packs=()) for path in (alone, file))
    assert found == {"dogs": expected["dogs"]}


# The commands


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def labelled(models: Path) -> Iterator[Path]:
    (models / "dogs.txt").write_text("".join(f"{label}\n" for label in DOGS))
    yield models
    (models / "dogs.txt").unlink()


def test_the_commands(file: Path, labelled: Path, tmp_path: Path) -> None:
    options = ("--preprocessing", PREPROCESSING, "--calibration-data", labelled / "pictures", "--min-agreement", 0)
    out = tmp_path / "grown.tflite"
    added = run("add-head", file, f"dogs={labelled / 'dogs.keras'}", *options, "--output", out)
    assert added.exit_code == 0, added.output
    assert "added head dogs" in added.stdout
    assert "3 other heads answer as before, bit for bit" in added.stdout
    replaced = run("replace-head", out, f"garden={labelled / 'dogs.keras'}", *options, "--json")
    assert json.loads(replaced.stdout)["other_heads"]["bit_identical"] == 3
    assert run("rename-head", out, "dogs=hounds").exit_code == 0
    assert run("remove-head", out, "animals").exit_code == 0
    listed = json.loads(run("list", out, "--json").stdout)
    assert [head["head_name"] for head in listed["heads"]] == ["garden", "things", "hounds"]
    assert "hounds" in run("list", out).stdout
    packed = run(
        "build-head", file, f"dogs={labelled / 'dogs.keras'}", *options, "--output", tmp_path / "dogs.head.tflite"
    )
    assert packed.exit_code == 0, packed.output
    assert read_head_pack(str(tmp_path / "dogs.head.tflite"))[0].head.labels == DOGS


def test_a_build_writes_the_titles_it_was_given(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"a": 2, "b": 3}, rounding="nearest")
    config = replace(config, heads=(config.heads[0], replace(config.heads[1], title="감정")))
    heads = read_metadata(str(build(config).output)).to_json()["heads"]
    assert [head.get("title") for head in heads] == [None, "감정"]


def test_a_title_goes_into_the_file_and_stays(file: Path, models: Path, labelled: Path, tmp_path: Path) -> None:
    title = "감정 [b]\x1b[31m"
    options = ("--preprocessing", PREPROCESSING, "--calibration-data", models / "pictures", "--min-agreement", 0)
    dogs = f"dogs={labelled / 'dogs.keras'}"

    def titles() -> dict[str, str]:
        return {head.head_name: head.title for head in read_finished(file).metadata.heads if head.title}

    assert "title" not in run("list", file).stdout
    assert run("add-head", file, dogs, *options, "--title", title).exit_code == 0
    assert titles() == {"dogs": title}
    assert run("replace-head", file, dogs, *options).exit_code == 0
    assert run("rename-head", file, "dogs=hounds").exit_code == 0
    assert run("remove-head", file, "animals").exit_code == 0
    assert titles() == {"hounds": title}
    listed, told = run("list", file), CliRunner().invoke(edge_runtime_main, ["info", str(file)])
    for shown in (listed.stdout, told.stdout):
        assert "감정 [b]\\u001b[31m" in shown
        assert "\x1b" not in shown
    assert run("remove-head", file, "hounds").exit_code == 0
    assert titles() == {}
    assert (
        run("build-head", file, dogs, *options, "--title", title, "--output", tmp_path / "d.head.tflite").exit_code == 0
    )
    assert read_head_pack(str(tmp_path / "d.head.tflite"))[0].head.title == title


def test_the_commands_refuse_in_one_line(file: Path, labelled: Path, tmp_path: Path) -> None:
    data = ("--calibration-data", labelled / "pictures")
    other = ("--labels", labelled / "dogs.txt", "--preprocessing", PREPROCESSING)
    for expected, arguments in (
        (2, ("remove-head", file, "dogs")),
        (2, ("rename-head", file, "garden")),
        (2, ("add-head", file, "dogs", *data)),
        (2, ("add-head", file, f"dogs={tmp_path / 'missing.keras'}", *data)),
        (2, ("add-head", labelled / "dogs.keras", f"dogs={labelled / 'dogs.keras'}", *data)),
        (3, ("add-head", file, f"dogs={labelled / 'other.keras'}", *other, *data)),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (expected, ""), arguments
        assert result.stderr.strip().splitlines()[-1].lower().startswith("error: ")


def test_a_file_taken_apart_knows_its_heads(file: Path) -> None:
    finished = read_finished(file)
    assert list(finished.parts) == ["backbone", *THREE_HEADS]
    assert finished.head("garden").labels == label_names("garden", 4)
