"""``edge-runtime camera`` in a separate process: lines, signals, full disks, closed pipes and new models."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.identity import file_digest
from tests.test_camera_sources import Camera as HttpCamera
from tests.test_camera_sources import jpeg, multipart
from tests.test_runtime_cli import refused
from tests.test_runtime_cli import run as invoke
from tests.tiny_models import THREE_HEADS, tiny_picture

SUMMARY = re.compile(r"(\d+) frames answered .* (\d+) captured, (\d+) dropped, (\d+) broken")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edge_runtime", "camera", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)


@contextmanager
def running(*arguments: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=options.pop("stderr", subprocess.PIPE), text=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The rest of both streams, until the process ends. ``communicate`` would lose what ``readline`` has buffered."""
    late = threading.Timer(60, process.kill)
    late.start()
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(stream.read) for stream in (process.stdout, process.stderr)]
        said, errors = (stream.result() for stream in streams)
    late.cancel()
    process.wait()
    return said, errors


@pytest.fixture(scope="module")
def folder(tiny_pictures: list[Path]) -> Path:
    return tiny_pictures[0].parents[1]


def summary(stderr: str) -> list[int]:
    (line,) = [line for line in stderr.splitlines() if SUMMARY.search(line)]
    return [int(number) for number in SUMMARY.search(line).groups()]


def test_a_line_a_frame(tiny_file: Path, tiny_pictures: list[Path], folder: Path) -> None:
    done = run(
        tiny_file, "--source", folder, "--json", "--lines", "frame", "--head", "garden:every=5", "--head", "things"
    )
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [document["source"] for document in documents] == sorted(map(str, tiny_pictures))
    for number, document in enumerate(documents):
        ran = [head["head_name"] for head in document["classifications"]]
        assert ran == (["garden", "things"] if number % 5 == 0 else ["things"])
        assert document["frame"] == number + 1
        assert document["answers"].keys() == {"garden", "things"}
        assert all(isinstance(document[key], (int, float)) for key in ("time", "fps", "dropped"))
    assert summary(done.stderr) == [len(documents), len(documents), 0, 0]


def test_a_line_an_event(tiny_file: Path, folder: Path) -> None:
    settings = ["--smoothing", "0", "--threshold", "0.1", "--hysteresis", "0", "--consensus", "1/1"]
    done = run(tiny_file, "--source", folder, "--json", *settings)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(events) > 5
    last: dict[str, object] = dict.fromkeys(THREE_HEADS)
    for event in events:
        assert set(event) == {"time", "frame", "head_name", "category_name", "score", "previous", "model"}
        assert event["model"] == {"name": tiny_file.stem, "version": None, "digest": file_digest(str(tiny_file))}
        assert event["previous"] == last[event["head_name"]] != event["category_name"]
        last[event["head_name"]] = event["category_name"]


@pytest.mark.parametrize("lines", ["event", "frame"])
def test_lines_for_people(tiny_file: Path, folder: Path, lines: str) -> None:
    done = run(tiny_file, "--source", folder, "--lines", lines, "--max-frames", 4)
    assert done.returncode == 0, done.stderr
    assert all("garden" in line or lines == "event" for line in done.stdout.splitlines())
    assert summary(done.stderr)[0] == 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--source", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--source", "/nowhere.mp4"], "/nowhere.mp4"),
        (["--head", "door"], "animals, garden, things"),
        (["--head", "garden:every=0"], "every=0"),
        (["--threshold", "1.5"], "threshold"),
        (["--consensus", "5"], "3/5"),
        (["--consensus", "2/5"], "more than half"),
        (["--size", "640"], "640x480"),
        (["--size", "1x1"], "640x480"),
        (["--fps", "0"], "--fps"),
        (["--serve", "here:there"], "8080"),
        (["--serve", "70000"], "8080"),
        (["--joint-only", "--head", "garden"], "not both"),
        (["--viewers", "0"], "--viewers"),
        (["--lines", "all"], "--lines"),
        (["--max-frames", "0"], "--max-frames"),
    ],
    ids=" ".join,
)
def test_what_the_user_got_wrong(tiny_file: Path, folder: Path, options: list[str], word: str) -> None:
    source = [] if "--source" in options else ["--source", folder]
    refused(invoke("camera", tiny_file, *source, *options), word)


def test_a_file_that_is_not_ours(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 99)
    for options in ([], ["--reload"]):
        refused(invoke("camera", path, "--source", folder, *options), path, "not made by polyhead")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_between_two_lines(tiny_file: Path, folder: Path, number: int) -> None:
    with running(tiny_file, "--source", folder, "--loop", "--json", "--lines", "frame") as process:
        first = [process.stdout.readline() for _ in range(20)]
        process.send_signal(number)
        rest, errors = rest_of(process)
    assert process.returncode == 0, errors
    lines = [*first, *rest.splitlines(keepends=True)]
    assert [json.loads(line)["frame"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1].endswith("\n")
    assert "Traceback" not in errors
    assert summary(errors)[0] == len(lines)


def test_a_reader_that_goes_away_is_no_error(tiny_file: Path, folder: Path) -> None:
    with running(tiny_file, "--source", folder, "--loop", "--json", "--lines", "frame") as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_camera_that_goes_comes_back_and_a_signal_ends_the_waiting(tiny_file: Path, tmp_path: Path) -> None:
    kind = "multipart/x-mixed-replace; boundary=b"
    frames = [jpeg(tiny_picture(i, (64, 48)), tmp_path / "frame.jpg") for i in range(4)]
    server = HttpCamera((kind, multipart(frames[:2])), (kind, multipart([b"torn", *frames[2:]])))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://me:secret@127.0.0.1:{server.server_address[1]}/"
    with running(tiny_file, "--source", address, "--json", "--lines", "frame") as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if sum("camera lost" in one for one in said) == 2:
                break
        answered = []
        while not answered or answered[-1]["frame"] < 5:  # the camera may be lost before its last frame is answered
            answered.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        lines, rest = rest_of(process)
    server.shutdown()
    server.server_close()
    assert process.returncode == 0, rest
    text = "".join(said)
    assert (text.count("camera lost"), text.count("camera back"), text.count("broken")) == (2, 1, 1)
    assert "secret" not in text
    assert lines == ""
    assert {line["source"] for line in answered} == {None}
    assert re.search(r"5 captured, \d dropped, 1 broken, 0 blank; camera lost 2 times", rest)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
def test_a_full_disk_ends_nothing(tiny_file: Path, folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(tiny_file, "--source", folder, "--json", "--lines", "frame"),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No space left on device") == 1
    assert summary(done.stderr)[0] > 10


def test_broken_pictures_among_good_ones(tiny_file: Path, tiny_pictures: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(tiny_pictures[:4]):
        shutil.copyfile(path, tmp_path / f"{number}{path.suffix}")
    (tmp_path / "1_torn.jpg").write_bytes(tiny_pictures[0].read_bytes()[:150])
    (tmp_path / "2_empty.png").write_bytes(b"")
    done = run(tiny_file, "--source", tmp_path, "--json", "--lines", "frame")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [1, 2, 4, 6]
    assert summary(done.stderr) == [4, 6, 0, 2]
    assert done.stderr.count("a broken frame was skipped") == 1


def test_a_new_model_takes_over_and_a_bad_one_does_not(tiny_file: Path, folder: Path, tmp_path: Path) -> None:
    """One process sees a damaged file, which it refuses, then a good one with other labels, which it takes."""
    from edge_runtime.bundle import append_members, read_metadata

    path = tmp_path / "model.tflite"
    shutil.copyfile(tiny_file, path)
    metadata = read_metadata(str(tiny_file))
    document = json.loads(json.dumps(metadata.to_json()).replace("animals 0", "renamed"))
    renamed = append_members(tiny_file.read_bytes()[: metadata.model_bytes], type(metadata).from_json(document))
    options = ["--loop", "--json", "--lines", "frame", "--fps", 50, "--head", "animals", "--reload"]
    said = tmp_path / "said"
    (tmp_path / "new").write_bytes(renamed)
    # Read all the time: a process that cannot write its lines does nothing else either.
    with said.open("w") as errors, running(path, "--source", folder, *options, stderr=errors) as process:
        json.loads(process.stdout.readline())
        path.write_bytes(tiny_file.read_bytes()[:-200])  # in place, as cp does it
        for line in map(json.loads, process.stdout):
            names = {c["category_name"] for c in line["classifications"][0]["categories"]}
            if "renamed" in names:
                assert line["replaces"]["digest"] == file_digest(str(tiny_file))
                assert line["model"]["digest"] == file_digest(str(path))
                break
            assert "replaces" not in line
            assert names == {"animals 0", "animals 1", "animals 2"}, "the old one goes on until then"
            if (tmp_path / "new").exists() and "refused" in said.read_text():
                (tmp_path / "new").replace(path)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0, said.read_text()
    assert [word for line in said.read_text().splitlines() for word in ("refused", "takes over") if word in line] == [
        "refused",
        "takes over",
    ]
    assert str(path) in said.read_text()


def test_help() -> None:
    text = invoke("camera", "--help").stdout
    assert all(option in text for option in ("--source", "--head", "--serve", "--reload", "--consensus"))


def test_importing_the_commands_brings_in_no_camera() -> None:
    program = "import sys, edge_runtime.cli; print([m for m in sys.modules if m in ('cv2', 'cheroot', 'picamera2')])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
