"""Exports to other clients: their answers, operators that the Edge TPU lacks, and refusals."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("tensorflow")

from builder import BuildResult
from builder.commands.cli import main
from builder.exporting import export
from builder.exporting.edgetpu import not_mapped
from builder.exporting.export import export_edgetpu, export_split, export_task
from builder.exporting.mediapipe import labels_of
from builder.growing.change import rename_head
from builder.growing.finished import read_finished
from builder.settings.growing import GrowConfig
from builder.support.errors import ConfigError, ConversionError
from builder.tflite.flatbuffer import FLOAT32, Part, operator_name, read_parts
from edge_runtime import BundleError, EdgeRuntimeError, MultiHeadClassifier
from edge_runtime.bundle import packs_beside, read_head_pack, read_metadata
from edge_runtime.cli import main as edge_runtime
from edge_runtime.interpreter import open_interpreter
from edge_runtime.metadata import END_TO_END
from edge_runtime.quantization import FLOAT
from edge_runtime.signatures import Signatures
from tests.laws import one_line
from tests.tiny_models import THREE_HEADS, tiny_picture

HEADS = list(THREE_HEADS)


@pytest.fixture
def backbone(tiny_file: Path) -> Part:
    """A copy that a test may change."""
    return copy.deepcopy(read_finished(tiny_file).parts["backbone"])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def refused(result: Result, *words: object) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    message = result.stderr.strip().splitlines()[-1].lower()
    assert message.startswith("error: ")
    assert all(str(word).lower() in message for word in words), message


def answers(path: Path, picture: np.ndarray) -> dict[str, np.ndarray]:
    """What the one subgraph of a task file gives, output by output in the file's order."""
    _, interpreter = open_interpreter(str(path))
    found = interpreter.get_signature_runner(END_TO_END)(image=picture[None])
    names = {d["index"]: d["name"] for d in interpreter.get_output_details()}
    assert set(names.values()) == set(found)
    return {name: found[name][0] for name in names.values()}


def pictures(count: int = 4) -> list[np.ndarray]:
    return [np.asarray(tiny_picture(40 + i, (32, 32))) for i in range(count)]


def test_a_task_file_gives_every_list_as_the_runtime_does(joint: BuildResult, tmp_path: Path) -> None:
    task = tmp_path / "tiny.task.tflite"
    assert export_task(joint.output, task).files == (task,)
    with MultiHeadClassifier(joint.output) as classifier:
        for picture in pictures():
            found, features = answers(task, picture), classifier.features(picture)
            assert list(found) == ["joint", *HEADS]
            np.testing.assert_array_equal(found["joint"], classifier.joint_scores(features)[0])
            for name in HEADS:
                np.testing.assert_array_equal(found[name], classifier.head_scores(features, name))
                assert found[name].dtype == np.float32


def test_a_task_file_has_one_subgraph_and_no_weights_that_nobody_reads(joint: BuildResult, tmp_path: Path) -> None:
    whole, one = tmp_path / "whole.tflite", tmp_path / "one.tflite"
    export_task(joint.output, whole)
    export_task(joint.output, one, ["garden"])
    assert list(answers(one, pictures(1)[0])) == ["garden"]
    (part,) = read_parts(one.read_bytes()).values()
    assert (part.subgraph, list(part.inputs)) == (0, ["image"])
    read = {i for op in part.operators for i in (*op.inputs, *op.outputs)}
    assert read == set(range(len(part.tensors)))
    assert one.stat().st_size < whole.stat().st_size


@pytest.mark.parametrize("wanted", [["things", "animals"], ["animals", "joint"]])
def test_heads_of_a_task_file_are_in_the_files_own_order(joint: BuildResult, wanted: list[str], tmp_path: Path) -> None:
    export_task(joint.output, tmp_path / "some.tflite", wanted)
    order = list(labels_of(joint.metadata))
    assert list(answers(tmp_path / "some.tflite", pictures(1)[0])) == sorted(wanted, key=order.index)


def test_the_same_file_gives_the_same_task_file(tiny_file: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_task(tiny_file, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_split_file_answers_as_the_whole_one_bit_for_bit(
    joint: BuildResult, tiny_pictures: list[Path], tmp_path: Path
) -> None:
    done = export_split(joint.output, tmp_path / "split")
    main_file = tmp_path / "split" / "tiny.tflite"
    assert done.files[0] == main_file
    assert "joint" in " ".join(done.notes)
    assert [Path(p).name for p in packs_beside(str(main_file))] == [f"{name}.tflite" for name in sorted(HEADS)]
    lines = []
    for file in (joint.output, main_file):
        arguments = ["classify", str(file), *map(str, tiny_pictures[::4]), "--json"]
        arguments += [word for name in HEADS for word in ("--head", name)]
        printed = CliRunner().invoke(edge_runtime, arguments)
        assert printed.exit_code == 0, printed.output
        lines.append([_scores(json.loads(line)) for line in printed.stdout.splitlines()])
    assert lines[0] == lines[1]
    assert len(lines[0]) == len(tiny_pictures[::4])


def _scores(answer: dict[str, Any]) -> dict[str, Any]:
    return {head["head_name"]: head["categories"] for head in answer["classifications"]}


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_whatever_was_opened_is_closed(
    asked: int, tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, and each pack, whether its head was asked or not; afterwards none of them answers."""
    export_split(tiny_file, tmp_path / "split")
    opened: list[Signatures] = []
    start = Signatures.__init__
    monkeypatch.setattr(
        Signatures, "__init__", lambda self, *a, **more: (opened.append(self), start(self, *a, **more))[1]
    )
    with MultiHeadClassifier(next((tmp_path / "split").glob("*.tflite"))) as classifier:
        names = classifier.head_names[:asked]
        if names:
            classifier.classify(tiny_pictures[0], heads=names)
    assert len(opened) == 4
    for model in opened:
        with pytest.raises(EdgeRuntimeError, match="closed"):
            model.run("backbone", {})


def test_the_parts_of_a_split_file_know_what_they_are(tiny: BuildResult, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    export_split(tiny.output, folder)
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["tiny.tflite"]
    metadata = read_metadata(str(folder / "tiny.tflite"))
    assert (metadata.heads, metadata.joint, metadata.seam) == ((), None, tiny.metadata.seam)
    for head in tiny.metadata.heads:
        pack, _ = read_head_pack(str(folder / "tiny.heads" / f"{head.head_name}.tflite"))
        assert (pack.head.labels, pack.backbone_digest) == (head.labels, tiny.metadata.backbone_digest)
        assert pack.quality["heads"] == {head.head_name: tiny.metadata.quality["heads"][head.head_name]}


def test_exports_need_no_tensorflow(tiny_file: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from builder.commands.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    for chosen in ("task", "edgetpu"):
        arguments = ["export", str(tiny_file), "--format", chosen, "--output", str(tmp_path / chosen)]
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
        assert done.returncode == 0, done.stderr


def test_a_backbone_alone_opens_with_packs_or_for_its_features(tiny_file: Path, tmp_path: Path) -> None:
    export_split(tiny_file, tmp_path / "split")
    main_file = tmp_path / "split" / "tiny.tflite"
    for path in packs_beside(str(main_file)):
        Path(path).unlink()
    with pytest.raises(BundleError, match="backbone without heads") as refusal:
        MultiHeadClassifier(main_file)
    assert one_line(str(refusal.value), main_file)
    with MultiHeadClassifier(main_file, head_packs=()) as alone, MultiHeadClassifier(tiny_file) as whole:
        for picture in pictures(2):
            np.testing.assert_array_equal(alone.features(picture), whole.features(picture))
            assert alone.classify(picture).classifications == ()


def test_heads_of_a_split_file_keep_their_order(joint: BuildResult, tmp_path: Path) -> None:
    """The runtime reads packs by their names, and these are not in the order of the alphabet."""
    file = tmp_path / "main.tflite"
    rename_head(GrowConfig(joint.output, file, tmp_path / "report"), "garden", "yard")
    export_split(file, tmp_path / "split")
    with MultiHeadClassifier(tmp_path / "split" / "main.tflite") as parts:
        assert parts.head_names == ("animals", "yard", "things")


def test_packs_beside_the_file_are_named_as_left_out(tiny_file: Path, tmp_path: Path) -> None:
    export_split(tiny_file, tmp_path / "split")
    main_file = tmp_path / "split" / "tiny.tflite"
    result = run(main_file, "--format", "split", "--output", tmp_path / "again")
    assert result.exit_code == 0
    assert "3 head packs" in result.stderr
    assert [path.name for path in (tmp_path / "again").rglob("*.tflite")] == ["tiny.tflite"]
    refused(run(main_file, "--format", "task", "--output", tmp_path / "task"), main_file, "without heads")


def test_the_edge_tpu_gets_one_subgraph_of_listed_operators(tiny_file: Path, tmp_path: Path) -> None:
    result = run(tiny_file, "--format", "edgetpu", "--output", tmp_path / "tpu")
    assert result.exit_code == 0, result.output
    parts = read_parts((tmp_path / "tpu" / "tiny.tflite").read_bytes())
    assert {name: part.subgraph for name, part in parts.items()} == {"backbone": 0, END_TO_END: 0}
    count = len(parts["backbone"].operators)
    assert f"all {count} operators" in result.stdout
    assert len(packs_beside(str(tmp_path / "tpu" / "tiny.tflite"))) == len(HEADS)


def test_heads_take_features_that_another_interpreter_made(
    tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path
) -> None:
    """As docs/guides/export.md runs a compiled backbone, by positions: its signatures may be lost."""
    export_edgetpu(tiny_file, tmp_path / "tpu")
    _, backbone = open_interpreter(str(tmp_path / "tpu" / "tiny.tflite"))
    backbone.allocate_tensors()
    image, features = backbone.get_input_details()[0]["index"], backbone.get_output_details()[0]["index"]
    with MultiHeadClassifier(tmp_path / "tpu" / "tiny.tflite") as heads, MultiHeadClassifier(tiny_file) as whole:
        for picture in tiny_pictures[::8]:
            backbone.set_tensor(image, heads.prepare(picture))
            backbone.invoke()
            found = heads.classify_features(backbone.get_tensor(features), heads=HEADS)
            expected = whole.classify(picture).classifications
            assert [head.categories for head in found] == [head.categories for head in expected]


def test_frigate_finds_the_label_of_one_head(joint: BuildResult, tiny_pictures: list[Path], tmp_path: Path) -> None:
    """Frigate's use of a file: pixels into the first input, the first output divided by its sum, a line of the labels."""
    export_task(joint.output, tmp_path / "model.tflite", ["garden"])
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        labelmap = dict(enumerate(archive.read("labels/garden.txt").decode().splitlines()))
    _, interpreter = open_interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    found = set()
    with MultiHeadClassifier(joint.output) as classifier:
        for picture in tiny_pictures[::3]:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], classifier.prepare(picture))
            interpreter.invoke()
            scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            shares = scores / scores.sum(axis=0)
            (head,) = classifier.classify(picture, heads=["garden"]).classifications
            assert labelmap[int(np.argmax(shares))] == head.categories[0].category_name
            assert shares.max() == pytest.approx(head.categories[0].score, abs=0.01)
            found.add(head.categories[0].category_name)
    assert len(found) > 1


def _first(part: Part, kind: str) -> Any:
    return next(op for op in part.operators if operator_name(part, op) == kind)


def _other_dilation(part: Part) -> None:
    _first(part, "CONV_2D").builtinOptions.dilationWFactor = 2


def _float_tensor(part: Part) -> None:
    part.tensors[_first(part, "ADD").outputs[0]].type = FLOAT32


def _two_pictures(part: Part) -> None:
    index = _first(part, "ADD").outputs[0]
    part.tensors[index].shape = [2, *list(part.tensors[index].shape)[1:]]


def _open_size(part: Part) -> None:
    index = _first(part, "ADD").outputs[0]
    part.tensors[index].shapeSignature = [-1, *list(part.tensors[index].shape)[1:]]


def _mean_over_the_batch(part: Part) -> None:
    part.set_constant(_first(part, "MEAN").inputs[1], np.array([0, 1], np.int32))


def _mean_over_the_batch_from_behind(part: Part) -> None:
    part.set_constant(_first(part, "MEAN").inputs[1], np.array([-4], np.int32))


def _unlisted(part: Part) -> None:
    add = _first(part, "ADD")
    add.opcodeIndex = part.operator("HARD_SWISH", [], []).opcodeIndex


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (_other_dilation, "CONV_2D", "dilation"),
        (_float_tensor, "ADD", "float32"),
        (_two_pictures, "ADD", "innermost"),
        (_open_size, "ADD", "not constant"),
        (_mean_over_the_batch, "MEAN", "batch"),
        (_mean_over_the_batch_from_behind, "MEAN", "batch"),
        (_unlisted, "HARD_SWISH", "not among"),
    ],
)
def test_what_the_edge_tpu_does_not_take_is_named(
    backbone: Part, spoil: Callable[[Part], None], kind: str, words: str
) -> None:
    assert not_mapped(backbone) == ()
    spoil(backbone)
    found = not_mapped(backbone)
    assert (found[0].operator, operator_name(backbone, backbone.operators[found[0].index])) == (kind, kind)
    assert words in found[0].reason


def test_what_stays_on_the_cpu_is_told(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = read_finished(tiny_file)
    index = finished.parts["backbone"].operators.index(_first(finished.parts["backbone"], "ADD"))
    monkeypatch.setattr(export, "not_mapped", lambda part: not_mapped(_spoilt(part)))
    result = run(tiny_file, "--format", "edgetpu", "--output", tmp_path / "tpu")
    count = len(finished.parts["backbone"].operators)
    assert f"{index} of {count} operators" in result.stdout
    assert f"{index} HARD_SWISH" in result.stdout
    document = json.loads(run(tiny_file, "--format", "edgetpu", "--output", tmp_path / "two", "--json").stdout)
    assert (document["operators"], [found["index"] for found in document["on_cpu"]]) == (count, [index])


def _spoilt(part: Part) -> Part:
    part = copy.deepcopy(part)
    _unlisted(part)
    return part


def test_a_float_backbone_is_none_for_the_edge_tpu(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = read_finished(tiny_file)
    seam = tuple(replace(tensor, quantization=FLOAT) for tensor in finished.metadata.seam)
    other = replace(finished, metadata=replace(finished.metadata, seam=seam))
    monkeypatch.setattr(export, "read_finished", lambda path: other)
    with pytest.raises(ConfigError, match="int8 only, found a backbone in float32"):
        export_edgetpu(tiny_file, tmp_path / "tpu")
    assert list(tmp_path.iterdir()) == []


def test_wrong_choices_are_refused_and_write_nothing(tiny_file: Path, tmp_path: Path) -> None:
    folder, text = tmp_path / "folder", tmp_path / "text.tflite"
    folder.mkdir()
    text.write_text("no model at all")
    (folder / "mine.txt").write_text("precious")
    output = tmp_path / "new"
    refused(run(tiny_file, "--format", "onnx", "--output", output), "onnx", "task")
    refused(run(tiny_file, "--format", "task"), "--output")
    refused(run(tiny_file, "--format", "task", "--output", folder), folder, "found a folder")
    refused(run(tiny_file, "--format", "task", "--output", output, "--head", "cats"), "cats", *HEADS)
    refused(run(tiny_file, "--format", "task", "--output", output, "--head", "joint"), "joint", *HEADS)
    refused(run(tiny_file, "--format", "split", "--output", output, "--head", "animals"), "--head", "split")
    refused(run(tiny_file, "--format", "task", "--output", tiny_file), tiny_file, "choose another output")
    refused(run(tiny_file, "--format", "task", "--output", text / "below.tflite"), text)
    for chosen in ("split", "edgetpu"):
        refused(run(tiny_file, "--format", chosen, "--output", folder), folder, "files in it")
        refused(run(tiny_file, "--format", chosen, "--output", text), text, "found a file")
    for chosen in ("task", "split", "edgetpu"):
        refused(run(text, "--format", chosen, "--output", output), text, "expected a .tflite file")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "mine.txt", "text.tflite"]


@pytest.mark.parametrize("chosen", ["task", "split", "edgetpu"])
def test_a_head_pack_and_a_task_file_are_no_finished_files(chosen: str, tiny_file: Path, tmp_path: Path) -> None:
    export_split(tiny_file, tmp_path / "split")
    export_task(tiny_file, tmp_path / "task.tflite")
    before = sorted(tmp_path.rglob("*"))
    pack = tmp_path / "split" / "tiny.heads" / "things.tflite"
    refused(run(pack, "--format", chosen, "--output", tmp_path / "new"), pack, "a head pack")
    task = tmp_path / "task.tflite"
    refused(run(task, "--format", chosen, "--output", tmp_path / "new"), task, "polyhead.json")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("chosen", ["task", "split"])
def test_a_full_disk_leaves_nothing_half_written(
    chosen: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        written(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    output = tmp_path / "out"
    if chosen == "task":
        output.write_bytes(b"the old file")
    monkeypatch.setattr(Path, "write_bytes", full)
    refused(run(tiny_file, "--format", chosen, "--output", output), os.strerror(errno.ENOSPC))
    assert [path.name for path in tmp_path.rglob("*")] == (["out"] if chosen == "task" else [])
    assert chosen != "task" or output.read_bytes() == b"the old file"


@pytest.mark.parametrize("make", [export_task, export_split])
def test_what_answers_otherwise_is_not_written(
    make: Callable[..., Any], tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MultiHeadClassifier.head_scores

    def off(self: MultiHeadClassifier, features: Any, head: Any) -> np.ndarray:
        scores = real(self, features, head)
        return scores + np.float32(1 / 256) if head == "things" and self.metadata.heads else scores

    monkeypatch.setattr(MultiHeadClassifier, "head_scores", off)
    with pytest.raises(ConversionError, match="things"):
        make(tiny_file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
