"""``camera --record`` and ``--list``, and folders for ``classify`` and ``features``."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import MultiHeadClassifier
from edge_runtime.camera import listing, vitals
from edge_runtime.camera.capture import Capture
from edge_runtime.camera.opening import open_source
from edge_runtime.camera.record import DIFFERENT, Gallery, record
from edge_runtime.camera.sources import SourceOptions
from edge_runtime.errors import SourceError
from tests.camera_fakes import SPEC, Script, pixels
from tests.test_runtime_cli import refused, run
from tests.tiny_models import save_pictures


def scene(level: int) -> np.ndarray:
    """Bright to the right of ``level``, dark to the left: never blank."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, level:] = 200
    return picture


@given(levels=st.lists(st.integers(1, 31), min_size=1, max_size=12))
def test_what_is_kept_differs_from_all_that_was_kept(levels: list[int]) -> None:
    gallery = Gallery()
    kept = [level for level in levels if gallery.takes(scene(level)[None])]
    for i, level in enumerate(kept):
        for other in kept[:i]:
            assert abs(scene(level).astype(float) - scene(other)).mean() > DIFFERENT / 2
    assert len(kept) == len(set(kept))
    assert levels[0] == kept[0]


def test_a_sensors_noise_makes_no_new_picture() -> None:
    gallery, noise = Gallery(), np.random.default_rng(0)
    still = np.full((1, 64, 64, 3), 128.0)
    pictures = [np.uint8(np.clip(still + noise.normal(0, 20, still.shape), 0, 255)) for _ in range(20)]
    assert [gallery.takes(picture) for picture in pictures] == [True] + [False] * 19


def fill(folder: Path, steps: list[np.ndarray], count: int, most: int = 99) -> tuple[int, list[str]]:
    """``most``: how many pictures there are when it is told to stop."""
    said: list[str] = []
    capture = Capture(Script(steps, live=False), lambda: None, SPEC, keep_all=True)
    capture.start()
    kept = record(capture, count, str(folder), stopped=lambda: len(list(folder.iterdir())) >= most, say=said.append)
    capture.stop()
    return kept, said


def test_a_recording_has_as_many_as_asked_for_and_ends(tmp_path: Path) -> None:
    kept, said = fill(tmp_path / "new", [scene(4 * (i % 7 + 1)) for i in range(50)], 5)
    assert kept == len(list((tmp_path / "new").iterdir())) == 5
    assert "5 of 5" in said[-1]


def test_a_recording_stops_when_it_is_told_to(tmp_path: Path) -> None:
    assert fill(tmp_path, [scene(4 * (i % 7 + 1)) for i in range(50)], 5, most=2)[0] == 2


def test_what_is_alike_is_left_out_to_the_end(tmp_path: Path) -> None:
    assert fill(tmp_path, [scene(8)] * 9 + [scene(20)] * 9, 5)[0] == 2


def test_recording_is_a_command(tiny_file: Path, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "seen", {"a": 3, "b": 3})
    result = run("camera", tiny_file, "--source", tmp_path / "seen", "--record", 4, tmp_path / "kept")
    assert result.exit_code == 0, result.output
    assert {p.read_bytes() for p in (tmp_path / "kept").iterdir()} <= {p.read_bytes() for p in paths}
    assert len(list((tmp_path / "kept").iterdir())) == 4
    again = run("camera", tiny_file, "--source", tmp_path / "seen", "--record", 40, tmp_path / "more")
    assert again.exit_code == 0
    assert "of 40 pictures" in again.stderr
    assert "the source ended" in again.stderr


@pytest.mark.parametrize("given", [("0", "x"), ("-1", "x"), ("many", "x")])
def test_recordings_that_cannot_be(tiny_file: Path, given: tuple[str, str]) -> None:
    refused(run("camera", tiny_file, "--record", *given), "--record")


def test_cameras_are_listed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, index, name in (("video0", "0", "HD Webcam: HD Webcam"), ("video1", "1", "HD Webcam: HD Webcam"),
                              ("video10", "0", "bcm2835-codec-decode"), ("video2", "0", "Second\x1b[2J")):  # fmt: skip
        (tmp_path / node).mkdir()
        (tmp_path / node / "index").write_text(index + "\n")
        (tmp_path / node / "name").write_text(name + "\n")
    module = types.SimpleNamespace(
        Picamera2=types.SimpleNamespace(global_camera_info=lambda: [{"Model": "imx708", "Num": 0}])
    )
    monkeypatch.setitem(sys.modules, "picamera2", module)
    found = listing.cameras(str(tmp_path))
    assert [camera.source for camera in found] == ["picamera2:0", "/dev/video0", "/dev/video2"]
    assert [camera.name for camera in found][:2] == ["imx708", "HD Webcam: HD Webcam"]
    monkeypatch.setattr(listing, "cameras", lambda: found)
    result = run("camera", "--list")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "imx708" in result.stdout


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_where_there_is_no_camera_it_says_what_to_try(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "cameras", lambda: [])
    monkeypatch.setattr("sys.platform", platform)
    result = run("camera", "--list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "\n" not in result.stderr.strip()


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_have_no_glibc_to_be_asked(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(vitals.ctypes, "CDLL", lambda name: pytest.fail("opened"))
    assert vitals.keep_memory_flat() is False


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_a_camera_has_a_number_and_no_file(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("sys.platform", platform)
    closed = types.SimpleNamespace(set=lambda *_: True, isOpened=lambda: False, release=lambda: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: asked.append(given) or closed)
    with pytest.raises(SourceError, match="opens no camera"):
        open_source("1", SourceOptions(SPEC))
    assert asked == [(1,)]


# Folders.


def test_a_folder_is_classified_picture_by_picture_by_name(tiny_file: Path, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "in", {"b": 2, "a/inner": 2})
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "._a.png").write_bytes(b"what macOS leaves")
    result = run("classify", tiny_file, tmp_path / "in", paths[0], "--json", "--top-k", 1)
    assert result.exit_code == 0
    found = [json.loads(line)["source"] for line in result.stdout.splitlines()]
    assert found == [*sorted(map(str, paths)), str(paths[0])]


def test_a_folder_without_pictures_is_named(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(run("classify", tiny_file, tmp_path / "empty"), tmp_path / "empty", "none in it")
    refused(run("features", tiny_file, tmp_path / "empty", "-o", tmp_path / "f.npz"), "none in it")


def test_features_are_those_of_the_backbone(tiny_file: Path, tmp_path: Path) -> None:
    paths = sorted(map(str, save_pictures(tmp_path / "in", {"a": 3})))
    (tmp_path / "in" / "torn.png").write_bytes(b"no picture")
    output = tmp_path / "out.npz"
    result = run("features", tiny_file, tmp_path / "in", "-o", output)
    assert result.exit_code == 2
    assert "torn.png" in result.stderr
    assert "3 pictures, 1 left out" in result.stdout
    found = np.load(output)
    assert found["paths"].tolist() == paths
    with MultiHeadClassifier(tiny_file) as classifier:
        assert str(found["backbone_digest"]) == classifier.metadata.backbone_digest
        for row, path in zip(found["features"], paths, strict=True):
            np.testing.assert_array_equal(row, classifier.features(path)[0])
        quantization = classifier.metadata.seam[0].quantization
        assert float(found["features_scale"]) == pytest.approx(quantization.scale)
        assert int(found["features_zero_point"]) == quantization.zero_point


def test_the_file_that_was_there_survives_what_fails(tiny_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    output.write_bytes(b"before")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    result = run("features", tiny_file, tmp_path / "torn.png", "-o", output)
    assert result.exit_code == 2
    assert output.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "torn.png"]
    refused(run("features", tiny_file, tmp_path / "torn.png", "-o", tmp_path / "out.csv"), ".npz")


def test_a_shot_that_came_as_a_jpeg_stays_as_it_came(tmp_path: Path) -> None:
    from edge_runtime.camera.live_hub import encode
    from edge_runtime.camera.sources import Shot

    jpegs = [encode(Shot(pixels(i))) for i in range(3)]
    assert fill(tmp_path, jpegs, 3)[0] >= 1
    assert {p.read_bytes() for p in tmp_path.iterdir()} <= set(jpegs)
