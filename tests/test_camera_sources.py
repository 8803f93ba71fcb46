"""Sources: folders, videos and MJPEG as they are; picamera2 against a stub of its API."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from edge_runtime.camera import source_mjpeg
from edge_runtime.camera.opening import open_source
from edge_runtime.camera.source_picamera2 import rgb_of_yuv420, stream_sizes
from edge_runtime.camera.sources import Shot, Source, SourceOptions, shown_address
from edge_runtime.errors import PictureError, SourceError
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import encoded_tensor, image_tensor
from tests.camera_fakes import pixels
from tests.tiny_models import save_pictures, tiny_picture

SPEC = ImageInput(32, 32)
OPTIONS = SourceOptions(SPEC)


def read_all(source: Source) -> list[Shot]:
    shots = list(iter(lambda: source.read(show=False), None))
    source.close()
    return shots


def jpeg(picture: Image.Image, path: Path) -> bytes:
    picture.save(path, "JPEG", quality=90)
    return path.read_bytes()


def test_a_folder_gives_every_picture_once_by_name(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, {"b": 3, "a/inner": 2})
    (tmp_path / "labels.txt").write_text("no picture")
    source = open_source(str(tmp_path), OPTIONS)
    assert not source.live
    assert [shot.name for shot in read_all(source)] == sorted(map(str, paths))


def test_a_folder_can_begin_again(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, {"a": 2})
    source = open_source(str(tmp_path), SourceOptions(SPEC, loop=True))
    assert [source.read(show=False).name for _ in range(5)] == [str(paths[i % 2]) for i in range(5)]


def test_a_single_picture_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "one.PNG"
    tiny_picture(1).save(path)
    (shot,) = read_all(open_source(str(path), OPTIONS))
    np.testing.assert_array_equal(shot.tensor(SPEC), image_tensor(path, SPEC))


@pytest.mark.parametrize("name", ["", "none", "none.jpg", "none.mp4"])
def test_nothing_there_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / name), OPTIONS)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["picamera2:x", "picamera2:-1", "picamera2:"])
def test_camera_numbers_that_are_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match="picamera2"):
        open_source(address, OPTIONS)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.2:554/live?x=1", "rtsp://***@10.0.0.2:554/live?x=1"),
        ("http://user@camera/", "http://***@camera/"),
        ("http://a:p@ss@camera/", "http://***@camera/"),
        ("http://camera/a@b", "http://camera/a@b"),
        ("/dev/video0", "/dev/video0"),
        ("me@home.mp4", "me@home.mp4"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    assert shown_address(address) == shown


@pytest.mark.parametrize(
    ("model", "asked", "size"),
    [
        ((224, 224), None, (320, 240)),
        ((240, 240), None, (320, 240)),
        ((200, 320), None, (320, 240)),
        ((200, 321), None, (640, 480)),
        ((260, 260), None, (640, 480)),
        ((32, 321), None, (640, 480)),
        ((4000, 4000), None, (1920, 1080)),
        ((224, 224), (1280, 720), (1280, 720)),
    ],
)
def test_a_camera_is_asked_for_the_smallest_pictures_that_will_do(model: Any, asked: Any, size: Any) -> None:
    assert SourceOptions(ImageInput(*model), asked).camera_size == size


# Video, through OpenCV.


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of red, green, blue, red, ... of 64 x 48."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(6):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2 - i % 3] = 255  # OpenCV's order is blue, green, red
        writer.write(frame)
    writer.release()
    return path


def test_a_video_gives_rgb_and_ends(video: Path) -> None:
    source = open_source(str(video), OPTIONS)
    shots = read_all(source)
    assert not source.live
    assert len(shots) == 6
    for i, shot in enumerate(shots):
        assert (shot.picture.shape, shot.picture.dtype) == ((48, 64, 3), np.uint8)
        assert shot.picture.mean((0, 1)).argmax() == i % 3


def test_a_video_can_begin_again_and_be_skipped(video: Path) -> None:
    source = open_source(str(video), SourceOptions(SPEC, loop=True))
    found = [source.read(show=False).picture.mean((0, 1)).argmax() for _ in range(14)]
    assert found == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    assert source.skip()
    assert source.read(show=False).picture.mean((0, 1)).argmax() == 0
    source.close()


def test_skipping_ends_where_the_video_does(video: Path) -> None:
    source = open_source(str(video), OPTIONS)
    assert [source.skip() for _ in range(7)] == [True] * 6 + [False]
    source.close()


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    path = tmp_path / "film.mp4"
    path.write_bytes(b"not a film" * 100)
    with pytest.raises(SourceError, match="opens no video") as caught:
        open_source(str(path), OPTIONS)
    assert str(path) in str(caught.value)


def test_a_camera_that_is_not_there() -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    with pytest.raises(SourceError, match="opens no camera"):
        open_source("/dev/video97", OPTIONS)


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SourceError, match=r"polyhead\[camera\]"):
        open_source(str(video), OPTIONS)


# JPEG frames at reduced size.


@pytest.mark.parametrize("size", [(640, 480), (65, 64), (33, 200)])
def test_a_frame_decoded_at_reduced_size_is_near_the_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    data = jpeg(tiny_picture(7, size), tmp_path / "whole.jpg")
    with Image.open(tmp_path / "whole.jpg") as image:
        whole = image_tensor(image, SPEC).astype(int)
    difference = np.abs(encoded_tensor(data, SPEC).astype(int) - whole)
    assert difference.mean() < 4  # the last step of a small picture is a box, not a triangle


def test_reduced_never_means_smaller_than_the_model(tmp_path: Path) -> None:
    """A fine pattern of 64 x 64 for a model of 33: a half of it would have been too small."""
    data = jpeg(tiny_picture(7, (64, 64)), tmp_path / "fine.jpg")
    with Image.open(tmp_path / "fine.jpg") as image:
        whole = image_tensor(image, ImageInput(33, 33))
    np.testing.assert_array_equal(encoded_tensor(data, ImageInput(33, 33)), whole)


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_torn_frames_are_refused_by_name(tmp_path: Path, cut: int) -> None:
    data = jpeg(tiny_picture(7, (640, 480)), tmp_path / "whole.jpg")
    with pytest.raises(PictureError, match=r"^frame of cam: "):
        encoded_tensor(data[:cut], SPEC, name="frame of cam")


# MJPEG over HTTP.


class Camera(ThreadingHTTPServer):
    """``bodies``: the answers to the connections in order, (content type, bytes)."""

    daemon_threads = True

    def __init__(self, *bodies: tuple[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.requests = list(bodies), []


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        if not self.server.bodies:
            self.send_error(404)
            return
        kind, body = self.server.bodies.pop(0)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Camera] = []

    def start(*bodies: tuple[str, bytes]) -> Camera:
        servers.append(Camera(*bodies))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def multipart(frames: list[bytes], *, boundary: str = "b", length: bool = True, end: bytes = b"") -> bytes:
    parts = []
    for frame in frames:
        header = f"Content-Length: {len(frame)}\r\n" if length else ""
        parts.append(f"--{boundary}\r\nContent-Type: image/jpeg\r\n{header}\r\n".encode() + frame + b"\r\n")
    return b"preamble to ignore\r\n" + b"".join(parts) + end


def address(server: Camera, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.server_address[1]}/live"


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace; boundary=b", 'multipart/x-mixed-replace;boundary="--b"'])
def test_mjpeg_gives_each_frame_as_it_was_sent(serve: Any, tmp_path: Path, kind: str, length: bool) -> None:
    frames = [jpeg(tiny_picture(i, (64, 48)), tmp_path / "f.jpg") for i in range(3)]
    server = serve((kind, multipart(frames, length=length, end=b"--b--\r\n")))
    source = open_source(address(server), OPTIONS)
    assert source.live
    assert [source.read(show=False).picture for _ in range(3)] == frames
    with pytest.raises(SourceError, match="the stream ended"):
        source.read(show=False)
    source.close()


def test_mjpeg_user_and_password_go_into_a_header_and_into_no_message(serve: Any) -> None:
    server = serve(("multipart/x-mixed-replace; boundary=b", b""))
    source = open_source(address(server, "admin:s%40crt@"), OPTIONS)
    assert server.requests[0]["Authorization"] == "Basic YWRtaW46c0BjcnQ="
    with pytest.raises(SourceError) as caught:
        source.read(show=False)
    assert "s%40crt" not in str(caught.value)
    source.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (("text/html", b"<html>"), "expected an MJPEG stream"),
        (("image/jpeg", b"\xff\xd8"), "expected an MJPEG stream"),
        (("multipart/x-mixed-replace", b""), "expected an MJPEG stream"),
    ],
)
def test_addresses_that_are_no_stream(serve: Any, body: tuple[str, bytes], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(address(serve(body)), OPTIONS)


def test_addresses_where_nothing_answers(serve: Any) -> None:
    server = serve()
    with pytest.raises(SourceError, match="404"):
        open_source(address(server), OPTIONS)
    with pytest.raises(SourceError, match="refused"):
        open_source("http://127.0.0.1:1/", OPTIONS)
    with pytest.raises(SourceError):
        open_source("http://127.0.0.1:port/", OPTIONS)


@pytest.mark.parametrize(
    "stream",
    [
        b"--b\r\nContent-Length: 9999\r\n\r\nshort",
        b"--b\r\nContent-Length: 99999999999\r\n\r\n",
        b"--b\r\nContent-Length: -5\r\n\r\n",
        b"--b\r\nContent-Length: many\r\n\r\n",
        b"--b\r\nContent-Type: image/jpeg\r\n",
        b"no boundary at all\r\n" * 50,
    ],
)
def test_streams_that_are_damaged_count_as_lost(serve: Any, stream: bytes) -> None:
    source = open_source(address(serve(("multipart/x-mixed-replace; boundary=b", stream))), OPTIONS)
    with pytest.raises(SourceError) as caught:
        source.read(show=False)
    assert "\n" not in str(caught.value)
    source.close()


class Redirecting(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        self.send_response(302)
        self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("host", "sent"), [("127.0.0.1", True), ("127.0.0.2", False), ("localhost", False)])
def test_a_password_goes_to_the_host_that_it_was_given_for(serve: Any, host: str, sent: bool) -> None:
    """Also the port counts: another program may listen there."""
    server = serve()
    if sent:
        server.RequestHandlerClass = type("Once", (Handler,), {"do_GET": once_elsewhere})
        with pytest.raises(SourceError, match="404"):
            open_source(address(server, "me:secret@"), OPTIONS)
        assert ["Authorization" in request for request in server.requests] == [True, True]
        return
    target = ThreadingHTTPServer((host, 0), Handler)
    target.bodies, target.requests = [], []  # type: ignore[attr-defined]
    threading.Thread(target=target.serve_forever, args=(0.01,), daemon=True).start()
    server.RequestHandlerClass, server.location = Redirecting, f"http://{host}:{target.server_port}/live"
    with pytest.raises(SourceError, match="404"):
        open_source(address(server, "me:secret@"), OPTIONS)
    assert "Authorization" in server.requests[0]
    assert ["Authorization" in request for request in target.requests] == [False]  # type: ignore[attr-defined]
    target.shutdown()
    target.server_close()


def once_elsewhere(self: Any) -> None:
    """To another path of the same host, and then nothing is there."""
    self.server.requests.append(dict(self.headers))
    if self.path == "/live":
        self.send_response(302)
        self.send_header("Location", "/other")
        self.end_headers()
    else:
        self.send_error(404)


def test_a_redirect_to_what_is_no_web_address_is_refused(serve: Any) -> None:
    server = serve()
    server.RequestHandlerClass, server.location = Redirecting, "ftp://127.0.0.1/live"
    with pytest.raises(SourceError, match="no web address"):
        open_source(address(server), OPTIONS)


@pytest.mark.parametrize("before", [b"", b"--b\r\n", b"--b\r\nContent-Type: image/jpeg\r\n"])
def test_what_comes_before_a_frame_has_an_end(serve: Any, before: bytes) -> None:
    stream = before + b"x: y\r\n" * source_mjpeg.MAX_BEFORE
    source = open_source(address(serve(("multipart/x-mixed-replace; boundary=b", stream))), OPTIONS)
    with pytest.raises(SourceError, match="and no frame"):
        source.read(show=False)
    source.close()


class Dripping(BaseHTTPRequestHandler):
    """``server.start`` at once, then a byte now and then, for ever."""

    server: Any

    def do_GET(self) -> None:
        try:
            self.wfile.write(self.server.start)
            while not self.server.over.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            self.server.over.set()

    def log_message(self, *_: object) -> None:
        pass


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        ANSWER + b"\r\n",
        ANSWER + b"\r\n--b\r\nX: ",
        ANSWER + b"\r\n--b\r\n\r\n",
        ANSWER + b"\r\n--b\r\nContent-Length: 99999\r\n\r\n",
        ANSWER + b"Transfer-Encoding: chunked\r\n\r\n",
        ANSWER + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n--b\r\n\r\n",
    ],
)
def test_a_frame_has_its_time_however_often_something_comes(
    serve: Any, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(source_mjpeg, "FRAME_TIMEOUT", 0.2)
    monkeypatch.setattr(source_mjpeg, "LOOK", 0.05)
    server = serve()
    server.RequestHandlerClass, server.start, server.over = Dripping, start, threading.Event()
    with pytest.raises(SourceError, match="no whole frame"):
        open_source(address(server), OPTIONS).read(show=False)
    assert server.over.wait(20), "and it is hung up on"


# picamera2: nothing of it runs here, so what it is told and what it returns is held to a stub.


class StubCamera:
    """The part of ``picamera2.Picamera2`` that is used, as its manual (chapters 4 to 6 and appendix A) describes it.

    The scene is one colour, so that a mistake in the order of channels shows.
    """

    COLOUR = (200, 60, 20)
    opened: ClassVar[list[StubCamera]] = []
    pi5 = True
    dead = False

    def __init__(self, number: int = 0) -> None:
        if number > 1:
            raise IndexError("list index out of range")
        self.number, self.events = number, []
        self.outstanding = 0
        StubCamera.opened.append(self)

    def create_preview_configuration(self, **streams: Any) -> dict[str, Any]:
        return streams

    def configure(self, configuration: dict[str, Any]) -> None:
        main, lores = configuration["main"], configuration["lores"]
        if any(a > b for a, b in zip(lores["size"], main["size"], strict=True)):
            raise RuntimeError("lores stream dimensions may not exceed main stream")
        if not self.pi5 and lores["format"] != "YUV420":
            raise RuntimeError("lores stream must be YUV")
        self.configuration = configuration

    def start(self) -> None:
        self.events.append("start")

    def capture_request(self, wait: bool = True) -> Any:
        assert not wait
        assert self.outstanding == 0, "a request was never released"
        job: Future[Any] = Future()
        if not self.dead:
            self.outstanding += 1
            job.set_result(self)
        return types.SimpleNamespace(get_result=lambda timeout: job.result(0.01 if timeout else None))

    def make_array(self, name: str) -> np.ndarray:
        stream = self.configuration[name]
        width, height = stream["size"]
        if stream["format"] == "BGR888":  # the manual: each pixel is [R, G, B] in memory
            return np.full((height, width, 3), self.COLOUR, np.uint8)
        y, cb, cr = Image.new("RGB", (1, 1), self.COLOUR).convert("YCbCr").getpixel((0, 0))
        stride = -(-width // 64) * 64
        planes = np.zeros((height * 3 // 2, stride), np.uint8)  # what lies beyond the width is not picture
        planes[:height, :width] = y
        chroma = planes[height:].reshape(2, height // 2, stride // 2)
        chroma[0, :, : width // 2], chroma[1, :, : width // 2] = cb, cr
        return planes

    def release(self) -> None:
        self.outstanding -= 1

    def stop(self) -> None:
        self.events.append("stop")

    def close(self) -> None:
        self.events.append("close")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubCamera]:
    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=StubCamera))
    monkeypatch.setattr(StubCamera, "opened", [])
    monkeypatch.setattr(StubCamera, "pi5", True)
    monkeypatch.setattr(StubCamera, "dead", False)
    return StubCamera


@pytest.mark.parametrize("pi5", [True, False])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(224, 224), (192, 96), (31, 45)])
def test_picamera2_gives_rgb_of_the_models_size(
    stub: type[StubCamera], monkeypatch: pytest.MonkeyPatch, pi5: bool, fit: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(stub, "pi5", pi5)
    spec = ImageInput(*size, fit=fit)
    source = open_source("picamera2", SourceOptions(spec))
    for show in (True, False, True):
        shot = source.read(show=show)
        tensor = shot.tensor(spec)
        middle = tensor[0, size[0] // 2 - 2 : size[0] // 2 + 2, size[1] // 2 - 2 : size[1] // 2 + 2]
        assert tensor.shape == (1, *size, 3)
        assert np.abs(middle.astype(int) - stub.COLOUR).max() <= 2
        if show:
            assert np.abs(shot.picture.astype(int) - stub.COLOUR).max() <= 2
    source.close()
    (camera,) = stub.opened
    assert camera.events == ["start", "stop", "close"]
    assert camera.outstanding == 0


def test_picamera2_leaves_nothing_to_resize_for_the_cpu(stub: type[StubCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ImageInput(224, 224)
    source = open_source("picamera2:1", SourceOptions(spec))
    monkeypatch.setattr(Image.Image, "resize", None)
    shot = source.read(show=False)
    assert np.shares_memory(shot.tensor(spec), shot.scaled)
    assert stub.opened[0].number == 1


def test_picamera2_that_goes_silent_is_lost(stub: type[StubCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("picamera2", OPTIONS)
    monkeypatch.setattr(stub, "dead", True)
    with pytest.raises(SourceError, match="no picture for 5 s"):
        source.read(show=False)


def test_picamera2_camera_that_is_not_there(stub: type[StubCamera]) -> None:
    with pytest.raises(SourceError, match="no such camera"):
        open_source("picamera2:2", OPTIONS)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("model", [(224, 224), (96, 192), (300, 200), (480, 640), (33, 35)])
def test_both_streams_show_what_the_fit_says(fit: str, model: tuple[int, int]) -> None:
    """(height, width) of the model; the streams are (width, height), even, and the small one is no larger."""
    spec = ImageInput(*model, fit=fit)
    shown, small = stream_sizes(spec, (640, 480))
    assert not any(side % 2 for side in (*shown, *small))
    assert all(a >= b for a, b in zip(shown, small, strict=True))
    aspect = spec.width / spec.height
    if fit == "crop":
        assert shown[0] / shown[1] == pytest.approx(aspect, rel=0.02)
    elif model[0] < 480 and model[1] < 640:
        assert shown == (640, 480)
    if fit == "pad":
        assert small[0] / small[1] == pytest.approx(4 / 3, rel=0.07)
        assert small[0] <= spec.width + 1
        assert small[1] <= spec.height + 1
    else:
        assert abs(small[0] - spec.width) <= 1
        assert abs(small[1] - spec.height) <= 1


@pytest.mark.parametrize("stride", [64, 96, 128])
def test_yuv420_becomes_the_picture_it_was(stride: int) -> None:
    picture = Image.fromarray(pixels(3, (8, 6))).resize((64, 48), Image.Resampling.BICUBIC)
    y, cb, cr = picture.convert("YCbCr").split()
    planes = np.full((72, stride), 99, np.uint8)
    planes[:48, :64] = np.asarray(y)
    chroma = planes[48:].reshape(2, 24, stride // 2)
    for plane, band in zip(chroma, (cb, cr), strict=True):
        plane[:, :32] = np.asarray(band.resize((32, 24), Image.Resampling.BOX))
    found = rgb_of_yuv420(planes, (64, 48)).astype(int)
    difference = np.abs(found - np.asarray(picture))
    assert difference.mean() < 4  # the last step of a small picture is a box, not a triangle
    assert found.shape == (48, 64, 3)


# V4L2 cameras and network streams: OpenCV's part is a stub, since no camera is here.


class StubCapture:
    """The part of ``cv2.VideoCapture`` that is used."""

    made: ClassVar[list[StubCapture]] = []
    frame: ClassVar[Any] = np.full((240, 320, 3), (10, 20, 200), np.uint8)

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.settings, self.released = arguments, {}, 0
        StubCapture.made.append(self)

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        return True

    def set(self, name: str, value: int) -> None:
        self.settings[name] = value

    def read(self) -> tuple[bool, Any]:
        return self.frame is not None, self.frame

    def grab(self) -> bool:
        return self.frame is not None

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def cv2(monkeypatch: pytest.MonkeyPatch) -> Any:
    names = [
        "CAP_V4L2",
        "CAP_FFMPEG",
        "CAP_PROP_FRAME_WIDTH",
        "CAP_PROP_FRAME_HEIGHT",
        "CAP_PROP_BUFFERSIZE",
        "COLOR_BGR2RGB",
    ]
    names += ["CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC"]
    stub = types.SimpleNamespace(**{name: name for name in names}, VideoCapture=StubCapture, error=ZeroDivisionError)
    stub.cvtColor = lambda frame, _: frame[..., ::-1]
    monkeypatch.setitem(sys.modules, "cv2", stub)
    monkeypatch.setattr(StubCapture, "made", [])
    return stub


def test_a_usb_camera_is_asked_for_small_pictures_and_no_queue(cv2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.camera.source_opencv.os.path.exists", lambda path: path == "/dev/video3")
    source = open_source("3", SourceOptions(ImageInput(224, 224)))
    assert source.live
    shot = source.read(show=False)
    assert shot.picture[0, 0].tolist() == [200, 20, 10]
    (capture,) = StubCapture.made
    assert capture.arguments == ("/dev/video3", "CAP_V4L2")
    assert capture.settings == {"CAP_PROP_FRAME_WIDTH": 320, "CAP_PROP_FRAME_HEIGHT": 240, "CAP_PROP_BUFFERSIZE": 1}


def test_an_unplugged_camera_is_lost_though_opencv_gives_its_last_picture(
    cv2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"/dev/video3"}
    monkeypatch.setattr("edge_runtime.camera.source_opencv.os.path.exists", lambda path: path in there)
    source = open_source("/dev/video3", OPTIONS)
    assert source.read(show=False) is not None
    there.clear()
    for call in (lambda: source.read(show=False), source.skip):
        with pytest.raises(SourceError, match="/dev/video3 is gone"):
            call()
    source.close()
    assert StubCapture.made[0].released == 1


@pytest.mark.parametrize("address", ["0", "rtsp://user:secret@127.0.0.1/live"])
def test_a_camera_that_gives_no_more_is_lost_and_does_not_end(
    cv2: Any, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("edge_runtime.camera.source_opencv.os.path.exists", lambda path: True)
    source = open_source(address, OPTIONS)
    monkeypatch.setattr(StubCapture, "frame", None)
    for call in (lambda: source.read(show=False), source.skip):
        with pytest.raises(SourceError, match="no more pictures") as caught:
            call()
        assert "secret" not in str(caught.value)


def test_a_network_stream_has_timeouts_where_opencv_knows_them(cv2: Any) -> None:
    open_source("rtsp://camera/live", OPTIONS)
    del cv2.CAP_PROP_READ_TIMEOUT_MSEC
    open_source("rtsp://camera/live", OPTIONS)
    new, old = (capture.arguments for capture in StubCapture.made)
    assert new[2] == ["CAP_PROP_OPEN_TIMEOUT_MSEC", 5000, "CAP_PROP_READ_TIMEOUT_MSEC", 5000]
    assert old == new[:2] == ("rtsp://camera/live", "CAP_FFMPEG")


def test_what_opencv_throws_means_lost(cv2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("rtsp://camera/live", OPTIONS)
    monkeypatch.setattr(StubCapture, "read", lambda _: 1 / 0)
    with pytest.raises(SourceError):
        source.read(show=False)


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_frames_that_are_none_reach_preparation_which_refuses_them(
    cv2: Any, monkeypatch: pytest.MonkeyPatch, frame: np.ndarray
) -> None:
    monkeypatch.setattr(StubCapture, "frame", frame)
    with pytest.raises(PictureError, match="expected an array"):
        open_source("rtsp://camera/live", OPTIONS).read(show=False).tensor(SPEC)
