"""``edge-runtime``: its output, its errors and its exit codes."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_runtime import MultiHeadClassifier
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.cli import COMMANDS, main
from edge_runtime.describe import agreement_text
from tests.tiny_models import THREE_HEADS, label_names, tiny_picture

NAMES = list(THREE_HEADS)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, *words: object) -> str:
    """Exit code 2, nothing on stdout, one line (after click's usage) that has all the words."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    message = result.stderr.strip().splitlines()[-1]
    assert message.lower().startswith("error: ")
    assert message == result.stderr.strip() or result.stderr.startswith("Usage: ")
    assert all(str(word) in message for word in words), message
    return message


def test_info_json(tiny_file: Path) -> None:
    result = run("info", tiny_file, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert list(document) == [
        "format_version",
        "input",
        "backbone",
        "heads",
        "joint",
        "min_runtime",
        "quality",
        "built",
        "head_packs",
        "identity",
        "bytes",
    ]
    assert document["format_version"] == 1
    assert document["input"] == {
        "height": 32, "width": 32, "method": "bilinear", "antialias": True, "fit": "stretch", "kind": "image",
        "color": "RGB",
    }  # fmt: skip
    assert set(document["backbone"]) == {"digest", "features", "seam"}
    assert document["joint"] is None
    assert document["bytes"] == tiny_file.stat().st_size
    assert [head["labels"] for head in document["heads"]] == [list(label_names(n, c)) for n, c in THREE_HEADS.items()]
    for head in document["heads"]:
        assert set(head) == {"head_name", "labels", "activation", "bytes"}
        assert 0 < head["bytes"] < document["bytes"]


def test_info_text_names_every_head_and_label(tiny_file: Path) -> None:
    result = run("info", tiny_file)
    assert result.exit_code == 0
    for name, count in THREE_HEADS.items():
        assert all(word in result.stdout for word in (name, *label_names(name, count)))


def test_info_of_a_file_that_did_not_verify_itself(tiny_file: Path, tmp_path: Path) -> None:
    metadata = read_metadata(str(tiny_file))
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(tiny_file.read_bytes()[: metadata.model_bytes], replace(metadata, quality={})))
    assert run("info", path).exit_code == 0


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "expected a .tflite file"), (b"\x1c\0\0\0TFL3" + b"\0" * 99, "not made by polyhead")]
)
@pytest.mark.parametrize("command", ["info", "classify", "benchmark"])
def test_a_file_that_is_not_ours(
    tmp_path: Path, tiny_pictures: list[Path], command: str, content: bytes, words: str
) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(content)
    refused(run(command, path, *([tiny_pictures[0]] if command == "classify" else [])), path, words)


@pytest.mark.parametrize("command", ["info", "classify", "benchmark"])
def test_missing_file_and_folder(tmp_path: Path, command: str) -> None:
    for path in (tmp_path / "none.tflite", tmp_path):
        refused(run(command, path, *(["x.jpg"] if command == "classify" else [])), path)


def test_classify_json(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    result = run("classify", tiny_file, *tiny_pictures[:3], "--json")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert [document["source"] for document in documents] == [str(path) for path in tiny_pictures[:3]]
    for document, path in zip(documents, tiny_pictures, strict=False):
        assert list(document) == ["source", "classifications", "latency_ms"]
        assert list(document["latency_ms"]) == ["preprocess", "backbone", "heads"]
        assert all(isinstance(ms, float) and ms >= 0 for ms in document["latency_ms"].values())
        assert [(head["head_index"], head["head_name"]) for head in document["classifications"]] == list(enumerate(NAMES))
        for head in document["classifications"]:
            assert set(head) == {"head_index", "head_name", "categories"}
            scores = [category["score"] for category in head["categories"]]
            assert scores == sorted(scores, reverse=True)
            assert len(scores) == THREE_HEADS[head["head_name"]]
            assert all(set(category) == {"index", "category_name", "score"} for category in head["categories"])
        with MultiHeadClassifier(tiny_file) as classifier:
            assert document["classifications"] == classifier.classify(path).to_dict()["classifications"]


def test_classify_text_shows_the_winner(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    result = run("classify", tiny_file, tiny_pictures[0], "--head", "garden")
    with MultiHeadClassifier(tiny_file) as classifier:
        (head,) = classifier.classify(tiny_pictures[0], heads=["garden"]).classifications
    assert result.exit_code == 0
    assert f"garden: {head.categories[0].category_name} {head.categories[0].score:.2f}" in result.stdout
    assert "animals" not in result.stdout.replace(str(tiny_pictures[0]), "")


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (["garden"], ["garden"]),
        (["1"], ["garden"]),
        (["things", "animals"], ["things", "animals"]),
        (["2", "0", "garden"], ["things", "animals", "garden"]),
    ],
)
def test_heads_by_name_and_index(
    tiny_file: Path, tiny_pictures: list[Path], heads: list[str], expected: list[str]
) -> None:
    options = [option for head in heads for option in ("--head", head)]
    document = json.loads(run("classify", tiny_file, tiny_pictures[0], "--json", *options).stdout)
    assert [head["head_name"] for head in document["classifications"]] == expected


@pytest.mark.parametrize("top_k", [1, 2, 50])
def test_top_k(tiny_file: Path, tiny_pictures: list[Path], top_k: int) -> None:
    document = json.loads(run("classify", tiny_file, tiny_pictures[0], "--json", "--top-k", top_k).stdout)
    found = {head["head_name"]: len(head["categories"]) for head in document["classifications"]}
    assert found == {name: min(top_k, count) for name, count in THREE_HEADS.items()}


@pytest.mark.parametrize("head", ["plants", "3", "-1", "", "Garden", "²", "٣", "backbone", "serving_default"])
def test_unknown_head_lists_the_heads(tiny_file: Path, tiny_pictures: list[Path], head: str) -> None:
    refused(run("classify", tiny_file, tiny_pictures[0], "--head", "garden", "--head", head), "animals, garden, things")


def test_a_broken_picture_among_good_ones(tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    missing = tmp_path / "missing.png"
    result = run("classify", tiny_file, broken, tiny_pictures[0], missing, tiny_pictures[1], "--json")
    assert result.exit_code == 2
    answered = [json.loads(line)["source"] for line in result.stdout.splitlines()]
    assert answered == [str(path) for path in tiny_pictures[:2]]
    errors = result.stderr.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"error: {broken}: ")
    assert errors[1] == f"error: {missing}: No such file or directory"


@pytest.mark.parametrize(
    "options",
    [
        ["--interpreter", "tflite"],
        ["--top-k", "0"],
        ["--top-k", "-1"],
        ["--top-k", "many"],
        ["--threads", "0"],
        ["--threads", "1.5"],
        ["--heads", "garden"],
    ],
    ids=" ".join,
)
def test_wrong_options(tiny_file: Path, tiny_pictures: list[Path], options: list[str]) -> None:
    refused(run("classify", tiny_file, tiny_pictures[0], *options), options[0])


def test_unknown_interpreter_lists_those_there_are(tiny_file: Path) -> None:
    refused(run("benchmark", tiny_file, "--interpreter", "tflite"), "ai_edge_litert", "tflite_runtime", "tensorflow")


def test_classify_wants_a_picture(tiny_file: Path) -> None:
    refused(run("classify", tiny_file), "PICTURE")


def test_benchmark_json(tiny_file: Path) -> None:
    result = run("benchmark", tiny_file, "--runs", 2, "--json", "--threads", 1)
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(document) == {"interpreter", "heads", "runs", "open_ms", "open_to_first_answer_ms", "latency_ms"}
    assert (document["heads"], document["runs"]) == (3, 2)
    assert 0 < document["open_ms"] < document["open_to_first_answer_ms"]
    parts = {"preprocess", "backbone", "one_head", "all_heads", "picture_all_heads"}
    assert set(document["latency_ms"]) == parts
    for part in document["latency_ms"].values():
        assert 0 < part["p5"] <= part["median"] <= part["p95"]


def test_benchmark_text(tiny_file: Path) -> None:
    result = run("benchmark", tiny_file, "--runs", 1)
    assert result.exit_code == 0
    assert all(part in result.stdout for part in ("backbone", "one head", "all heads", "open to first answer"))


@pytest.mark.parametrize("runs", ["0", "-1", "x"])
def test_benchmark_wants_a_run(tiny_file: Path, runs: str) -> None:
    refused(run("benchmark", tiny_file, "--runs", runs), "--runs")


def test_in_a_process_of_its_own(tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path) -> None:
    """With names that are not UTF-8, and one that Pillow would warn of: stdout has answers only, stderr errors only."""
    strange = tmp_path / os.fsdecode(b"\xff strange.png")
    tiny_picture(1).save(strange)
    warned = tmp_path / "exif.jpg"
    tiny_picture(1).save(warned, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    paths = [os.fsencode(str(p)) for p in (strange, warned, broken, tiny_pictures[0])]
    command = [sys.executable, "-m", "edge_runtime", "classify", "--json", str(tiny_file), *paths]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    documents = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert done.returncode == 2
    assert [Path(document["source"]).name for document in documents] == [
        "\ufffd strange.png",
        "exif.jpg",
        tiny_pictures[0].name,
    ]
    ours = done.stderr.decode().splitlines()
    assert len(ours) == 1
    assert ours[0].startswith(f"error: {broken}: ")


def test_a_reader_that_goes_away_is_no_error(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    program = [sys.executable, "-m", "edge_runtime", "classify", "--json", str(tiny_file), *map(str, tiny_pictures * 40)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read().decode()
        assert "Traceback" not in errors
        assert "Error" not in errors
        assert running.wait() == 0


def test_help_of_every_command() -> None:
    for command in ([], ["info"], ["classify"], ["benchmark"]):
        for option in ("-h", "--help"):
            result = run(*command, option)
            assert result.exit_code == 0, result.output
            assert result.stdout.startswith("Usage: ")


def test_importing_the_runtime_imports_neither_tensorflow_nor_the_builder() -> None:
    program = (
        "import sys, edge_runtime, edge_runtime.cli, edge_runtime.benchmark\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'builder', 'ai_edge_litert')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_picture_is_classified_without_what_other_commands_import(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    """Most of a cold start is importing. numpy.ma: what np.unique brings in takes longer than checking a small file."""
    program = (
        "import sys; from edge_runtime.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", program, "classify", str(tiny_file), str(tiny_pictures[0])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found = set(done.stderr.split())
    needless = {f"edge_runtime.{name}" for name in OTHERS}
    if int(np.__version__.split(".")[0]) >= 2:  # NumPy 1 imports it by itself
        needless.add("numpy.ma")
    assert not sorted(name for name in found if any(name == other or name.startswith(f"{other}.") for other in needless))
    assert "edge_runtime.engine" in found and "PIL.Image" in found


OTHERS = ("beam", "benchmark", "camera", "describe", "feature_file", "isolate", "probe", "profiling", "serve", "signing",
          "trial", "versions")  # fmt: skip


@pytest.mark.parametrize("program", ["edge_runtime.cli", "builder.commands.front"])
def test_help_and_unknown_commands_know_every_command(program: str) -> None:
    group = importlib.import_module(program).main
    assert {command.name for command in group.commands.values()} == set(group.commands)
    assert set(COMMANDS) <= set(group.commands)


def test_an_agreement_is_shown_as_the_build_printed_it() -> None:
    """Of the rounded share in the member, whatever it was of; what no build wrote is shown as it is."""
    for count in range(1, 300):
        for same in range(count + 1):
            quality = {"agreement": round(same / count, 4), "pictures": count}
            assert agreement_text(quality) == f"{same / count:.3f}", quality
    for share, count in ((0.5, 0), (0.25, -3), (1e308, 9), (-1.0, 5)):
        assert agreement_text({"agreement": share, "pictures": count}) == f"{share:.3f}"


@pytest.mark.parametrize(("option", "command"), [("--serve", "camera"), ("--address", "serve")])
def test_an_address_that_is_none_is_one_line_for_both(tiny_file: Path, option: str, command: str) -> None:
    source = ("--source", str(tiny_file.parent)) if command == "camera" else ()
    refused(run(command, tiny_file, option, "here", *source), "expected an address PORT or HOST:PORT", "found 'here'")


def test_an_address_that_is_taken_is_one_line(tiny_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = refused(run("serve", tiny_file, "--address", taken.getsockname()[1]), "cannot serve at 127.0.0.1:")
    assert "Errno" not in words and "(" not in words
