"""The live page: access, content, slow viewers that delay nobody, and its look in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.camera import live_server
from edge_runtime.camera.announce import Place, qr_code
from edge_runtime.camera.live_access import (
    Address,
    knows_token,
    make_token,
    names_loopback,
    parse_address,
    reachable,
)
from edge_runtime.camera.live_hub import MAX_EVENTS, MAX_RATE, Hub, encode
from edge_runtime.camera.live_page import LivePage
from edge_runtime.camera.live_server import Application, LiveServer
from edge_runtime.camera.opening import open_source
from edge_runtime.camera.sources import Shot, SourceOptions
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.escape import printable
from tests import chromium
from tests.camera_fakes import SPEC, pixels
from tests.test_camera_command import running
from tests.tiny_models import tiny_picture

WELL = (True, {"status": "ok"})


def application(hub: Hub | None = None, **options: Any) -> Application:
    return Application(hub or Hub(), lambda: WELL, **options)


def ask(app: Application, path: str = "/", query: str = "", method: str = "GET", **headers: str) -> tuple[int, dict, Any]:
    """Status, headers and body (an iterable) of a request, without a server."""
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_PORT": "80"}
    environ.update({"HTTP_HOST": "127.0.0.1", **{f"HTTP_{k.upper()}": v for k, v in headers.items()}})
    answer: list[Any] = []
    body = app(environ, lambda status, headers: answer.extend([int(status.split()[0]), dict(headers)]))
    return answer[0], answer[1], body


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("8080", ("127.0.0.1", 8080), True),
        (":8080", ("127.0.0.1", 8080), True),
        ("localhost:1", ("localhost", 1), True),
        ("127.0.0.2:1", ("127.0.0.2", 1), True),
        ("[::1]:8080", ("::1", 8080), True),
        ("0.0.0.0:8080", ("0.0.0.0", 8080), False),
        ("[::]:8080", ("::", 8080), False),
        ("192.168.0.9:80", ("192.168.0.9", 80), False),
        ("camera.local:80", ("camera.local", 80), False),
        ("localhost.evil.example:80", ("localhost.evil.example", 80), False),
    ],
)
def test_addresses(text: str, address: tuple[str, int], loopback: bool) -> None:
    found = parse_address(text)
    assert (found.host, found.port, found.loopback) == (*address, loopback)
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "http://0.0.0.0:80", "80:0.0.0.0", "::1:80x", "::8080", "host:", "-1", "65536", "a:b"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(EdgeRuntimeError, match="8080"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8080", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:80", True), ("[::1]", True),
        ("127.1.2.3", True), ("evil.example:8080", False), ("127.0.0.1.evil.example", False), ("", False),
        ("192.168.0.1:80", False), ("localhost.evil.example", False), ("[::2]", False),
    ],
)  # fmt: skip
def test_names_of_this_machine(host: str, own: bool) -> None:
    assert names_loopback(host) == own


def test_a_page_elsewhere_cannot_read_the_camera_through_a_name_of_its_own() -> None:
    app = application()
    assert ask(app, "/state.json", host="rebound.example:8080")[0] == 403
    assert ask(app, "/state.json", host="localhost:8080")[0] == 200
    assert ask(application(loopback_only=False), "/state.json", host="camera.local")[0] == 200


def test_the_token_opens_and_nothing_else_does() -> None:
    app = application(token="correct-token", loopback_only=False)
    for path in ("/", "/state.json", "/picture.jpg", "/stream.mjpg", "/events", "/nothing"):
        assert ask(app, path)[0] == 401
        assert ask(app, path, query="token=wrong")[0] == 401
        assert ask(app, path, query="token=")[0] == 401
        assert ask(app, path, authorization="Bearer correct-toke")[0] == 401
        assert ask(app, path, authorization="Basic correct-token")[0] == 401
        assert ask(app, path, cookie="edge_runtime_80=wrong")[0] == 401
        assert ask(app, path, cookie="edge_runtime_81=correct-token")[0] == 401
        assert ask(app, path, cookie='"')[0] == 401
    assert ask(app, "/state.json", query="token=correct-token")[0] == 200
    assert ask(app, "/state.json", authorization="Bearer correct-token")[0] == 200
    assert ask(app, "/state.json", cookie="other=1; edge_runtime_80=correct-token")[0] == 200


def test_the_token_leaves_the_address_for_a_cookie() -> None:
    app = application(token="correct-token", loopback_only=False)
    status, headers, _ = ask(app, "/", query="token=correct-token")
    assert (status, headers["Location"]) == (303, "/")
    assert all(word in headers["Set-Cookie"] for word in ("HttpOnly", "SameSite=Strict"))
    assert ask(app, "/", cookie=headers["Set-Cookie"].split(";")[0])[0] == 200


def test_health_needs_no_token_and_says_when_it_is_bad() -> None:
    state = [WELL]
    app = Application(Hub(), lambda: state[0], token="correct-token", loopback_only=False)
    status, _, body = ask(app, "/health")
    assert (status, json.loads(b"".join(body))) == (200, {"status": "ok"})
    state[0] = (False, {"status": "no pictures"})
    assert ask(app, "/health")[0] == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(method: str) -> None:
    assert ask(application(), "/", method=method)[0] == 405


@pytest.mark.parametrize(("key", "value"), [("CONTENT_LENGTH", "5"), ("HTTP_TRANSFER_ENCODING", "chunked")])
def test_a_body_is_refused(key: str, value: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health", "HTTP_HOST": "127.0.0.1", key: value}
    said: list[str] = []
    application()(environ, lambda status, headers: said.append(status))
    assert said == ["400 Bad Request"]


@pytest.mark.parametrize("path", ["/live_page.html", "/../../etc/passwd", "/state", "//", "/%2e%2e"])
def test_there_is_nothing_else(path: str) -> None:
    status, headers, body = ask(application(), path)
    assert status == 404
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"/stream.mjpg" in b"".join(body)


def test_tokens_are_long_and_never_twice(tmp_path: Path) -> None:
    assert len({make_token(None) for _ in range(100)}) == 100
    path = tmp_path / "token"
    token = make_token(str(path))
    assert len(token) >= 20
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_token(str(path)) == token


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        ("short\n", 0o600, "8 to 512"),
        ("x" * 513, 0o600, "8 to 512"),
        ("two-tokens\non-two-lines\n", 0o600, "one line"),
        ("a token; Path=/\n", 0o600, "letters, digits"),
        ("long-enough&more=1", 0o600, "letters, digits"),
        ("long-enöugh", 0o600, "letters, digits"),
        ("", 0o600, "8 to 512"),
        ("long-enough\n", 0o640, "chmod 600"),
        ("long-enough\n", 0o604, "chmod 600"),
    ],
)
def test_files_that_keep_no_token(tmp_path: Path, content: str, mode: int, word: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(EdgeRuntimeError, match=word) as caught:
        make_token(str(path))
    assert content.strip() not in str(caught.value) or not content.strip(), "a token is shown in no message"


TOKENS = string.ascii_letters + string.digits + "-._~+/="


@given(token=st.text(TOKENS, min_size=8, max_size=40), port=st.integers(1, 65535))
def test_the_address_that_is_printed_lets_in(token: str, port: int) -> None:
    for url in Place(Address("0.0.0.0", port), token).urls:
        parts = urlsplit(url)
        assert parts.hostname not in (None, "0.0.0.0")
        assert knows_token({"QUERY_STRING": parts.query, "SERVER_PORT": str(port)}, token)
    assert knows_token({"QUERY_STRING": f"a=1&token={token}", "SERVER_PORT": "1"}, token), "typed as it is"


@given(
    before=st.lists(st.text(st.characters(codec="latin-1", exclude_characters=";")), max_size=4),
    after=st.lists(st.text(st.characters(codec="latin-1", exclude_characters=";")), max_size=4),
)
def test_no_cookie_of_another_program_hides_the_viewers_own(before: list[str], after: list[str]) -> None:
    cookies = "; ".join([*before, "edge_runtime_8080=abcdefgh12345678", *after])
    assert knows_token({"HTTP_COOKIE": cookies, "SERVER_PORT": "8080"}, "abcdefgh12345678")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_address_of_all_interfaces_is_one_that_opens(host: str) -> None:
    found = reachable(Address(host, 80))
    assert found
    assert not {"0.0.0.0", "::"} & {address.host for address in found}


def test_a_named_address_stays_as_it_is() -> None:
    assert reachable(Address("camera.local", 80)) == [Address("camera.local", 80)]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_token_is_printed_on_a_terminal_alone(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    said: list[str] = []
    with Place(Address("0.0.0.0", 80), "abcdefgh12345678").announced("page", said.append):
        text = "\n".join(said)
        assert ("abcdefgh12345678" in text) == terminal
        if not terminal:
            file = Path(text.split()[-1])
            assert file.read_text() == "abcdefgh12345678\n"
            assert file.stat().st_mode & 0o777 == 0o600
    assert terminal or not file.exists()


def test_a_phone_reads_the_address_from_the_terminal() -> None:
    segno = pytest.importorskip("segno")
    url = "http://192.0.2.2:8080/?token=" + "x" * 22
    lines = qr_code(url).splitlines()
    assert len(lines) == (segno.make(url, error="l").symbol_size(border=2)[1] + 1) // 2


# The hub.


def test_states_are_held_to_a_rate() -> None:
    hub, published = Hub(), 0
    for step in range(1000):
        if hub.due(step / 100):
            hub.publish(step / 100, None, {})
            published += 1
    assert published == pytest.approx(10 * MAX_RATE, abs=2 * MAX_RATE)


def test_a_viewer_gets_the_newest_state_once() -> None:
    hub = Hub()
    assert hub.newer(0, 0) is None
    for number in range(5):
        hub.publish(number, None, {"n": number})
    newest = hub.newer(0, 0)
    assert (newest.sequence, newest.document["n"]) == (5, 4)
    assert hub.newer(newest.sequence, 0) is None


def test_events_are_numbered_and_only_the_latest_are_kept() -> None:
    hub = Hub()
    hub.add_events({"n": i} for i in range(MAX_EVENTS + 10))
    hub.publish(0, None, {})
    kept = hub.latest.document["events"]
    assert [event["id"] for event in kept] == list(range(11, MAX_EVENTS + 11))


def test_a_picture_is_encoded_once_for_all_and_not_at_all_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("edge_runtime.camera.live_hub.encode", lambda shot: calls.append(shot) or b"jpeg")
    hub = Hub()
    for number in range(10):
        hub.publish(number, Shot(pixels(number)), {})
    assert calls == []
    assert [hub.latest.jpeg() for _ in range(5)] == [b"jpeg"] * 5
    assert len(calls) == 1


def test_pictures_of_every_kind_are_encoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    tiny_picture(1, (2000, 1000)).save(path)
    with Image.open(io.BytesIO(encode(Shot(str(path))))) as image:
        assert (image.format, image.size) == ("JPEG", (960, 480))
    assert encode(Shot(b"as it came")) == b"as it came"
    assert encode(Shot(pixels(1)))[:2] == b"\xff\xd8"
    assert encode(Shot(str(tmp_path / "gone.png"))) is None
    assert encode(Shot(np.zeros((3, 3), np.float64))) is None


# The server.


@pytest.fixture
def live() -> Iterator[Any]:
    """Starts a server over a hub; what is still open is closed at the end."""
    started: list[tuple[Hub, LiveServer]] = []

    def start(viewers: int = 4, **options: Any) -> tuple[Hub, int]:
        pytest.importorskip("cheroot")
        hub = Hub()
        server = LiveServer(Address("127.0.0.1", 0), application(hub, viewers=viewers, **options), threads=2 * viewers)
        started.append((hub, server))
        return hub, server.address.port

    yield start
    for hub, server in started:
        hub.close()
        server.stop()


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_state_and_picture(live: Any) -> None:
    hub, port = live()
    assert get(port, "/state.json") == (200, b"{}")
    assert get(port, "/picture.jpg")[0] == 503
    hub.publish(0, Shot(pixels(1)), {"fps": 1.5})
    assert json.loads(get(port, "/state.json")[1]) == {"fps": 1.5, "events": []}
    assert get(port, "/picture.jpg")[1][:2] == b"\xff\xd8"
    assert b"EventSource" in get(port, "/")[1]


def test_the_stream_is_one_that_our_own_source_reads(live: Any) -> None:
    hub, port = live()
    frames = [encode(Shot(pixels(i))) for i in range(3)]
    hub.publish(0, Shot(frames[0]), {})
    source = open_source(f"http://127.0.0.1:{port}/stream.mjpg", SourceOptions(SPEC))
    assert source.read(show=False).picture == frames[0]
    assert hub.watching == 1
    for number in (1, 2):
        hub.publish(number, Shot(frames[number]), {})
        assert source.read(show=False).picture == frames[number]
    source.close()


def test_events_are_sent_as_they_come(live: Any) -> None:
    hub, port = live()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "text/event-stream"
    for number in range(3):
        hub.add_events([{"n": number}])
        hub.publish(number, None, {"state": number})
        line = next(line for line in iter(response.readline, b"") if line.startswith(b"data: "))
        document = json.loads(line[6:])
        assert (document["state"], len(document["events"])) == (number, number + 1)
    connection.close()


def until(condition: Any) -> bool:
    """Has it come true, in a minute at most? Other threads do what is waited for."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.01)
    return True


def test_no_more_viewers_than_allowed_and_a_place_is_free_again(live: Any) -> None:
    hub, port = live(viewers=2)
    hub.publish(0, Shot(pixels(1)), {})
    open_ = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(2)]
    responses = []
    for connection in open_:
        connection.request("GET", "/stream.mjpg")
        responses.append(connection.getresponse())
        assert responses[-1].status == 200
    status, body = get(port, "/stream.mjpg")
    assert status == 503
    assert b"too many viewers" in body
    assert get(port, "/state.json")[0] == 200, "the rest is served still"
    assert until(lambda: hub.watching == 2)
    responses[0].close()
    open_[0].close()

    def admitted() -> bool:
        hub.publish(time.monotonic(), Shot(pixels(2)), {})  # only sending finds out who has gone
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/stream.mjpg")
        open_.append(connection)
        return connection.getresponse().status == 200

    assert until(admitted)
    for connection in open_:
        connection.close()


def test_a_viewer_that_takes_nothing_slows_nobody_and_is_cut_off(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server, "VIEWER_TIMEOUT", 0.5)
    hub, port = live(viewers=2)
    large = encode(Shot(pixels(1, (900, 900))))
    with socket.create_connection(("127.0.0.1", port)) as hanging:
        hanging.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hanging.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert until(lambda: hub.watching == 1)
        good = open_source(f"http://127.0.0.1:{port}/stream.mjpg", SourceOptions(SPEC))
        for number in range(60):
            hub.publish(number, Shot(large), {"n": number})
            assert good.read(show=False).picture == large, "the other viewer gets every picture meanwhile"
        good.close()
        assert until(lambda: hub.publish(0, Shot(large), {}) or hub.watching == 0), "its place is free again"


def test_publishing_waits_for_no_viewer(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is for one that waits for ever, not for a slow machine."""
    monkeypatch.setattr(live_server, "VIEWER_TIMEOUT", 600)
    hub, port = live()
    large = encode(Shot(pixels(1, (900, 900))))
    with socket.create_connection(("127.0.0.1", port)) as hanging:
        hanging.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hanging.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert until(lambda: hub.watching == 1)
        publishing = threading.Thread(target=lambda: [hub.publish(n, Shot(large), {}) for n in range(60)], daemon=True)
        publishing.start()
        publishing.join(60)
        assert not publishing.is_alive()


def test_streams_end_with_the_hub(live: Any) -> None:
    hub, port = live()
    hub.publish(0, Shot(pixels(1)), {})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/stream.mjpg")
    response = connection.getresponse()
    hub.close()
    assert response.read().startswith(b"--frame")


def test_a_request_without_end_is_refused(live: Any) -> None:
    _, port = live()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert get(port, "/state.json")[0] == 200


def test_an_address_in_use_is_said_in_one_line(live: Any) -> None:
    _, port = live()
    with pytest.raises(EdgeRuntimeError, match=str(port)):
        LiveServer(Address("127.0.0.1", port), application())


def test_a_page_that_nobody_closed_holds_no_process_up() -> None:
    pytest.importorskip("cheroot")
    program = "from edge_runtime.camera.live_page import LivePage; LivePage('0', viewers=1, token_file=None)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_without_cheroot_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cheroot", None)
    with pytest.raises(EdgeRuntimeError, match=r"polyhead\[web\]"):
        LiveServer(Address("127.0.0.1", 0), application())


def test_health_follows_the_pictures() -> None:
    pytest.importorskip("cheroot")
    page = LivePage("127.0.0.1:0", viewers=1, token_file=None, patience=5)
    try:
        assert page.health()[0] is False
        page.answered(time.monotonic())
        assert page.health() == (True, {"status": "ok", "seconds_since_picture": 0.0})
        page.answered(time.monotonic() - 6)
        assert page.health()[0] is False
        assert "token" not in page.url
    finally:
        page.close()


def test_other_addresses_get_a_token(tmp_path: Path) -> None:
    pytest.importorskip("cheroot")
    page = LivePage("0.0.0.0:0", viewers=1, token_file=str(tmp_path / "token"))
    try:
        port = int(page.url.split(":")[2].split("/")[0])
        assert page.url.endswith((tmp_path / "token").read_text().strip())
        assert get(port, "/state.json")[0] == 401
        assert get(port, page.url.partition("/?")[2].join(["/state.json?", ""]))[0] == 200
    finally:
        page.close()


# The whole tool, and a browser.


@pytest.fixture(scope="module")
def film(tiny_pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the pictures in turn, eight frames each."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 96))
    for picture in (tiny_pictures[0], tiny_pictures[5]):
        frame = cv2.resize(cv2.imread(str(picture)), (96, 96))
        for _ in range(8):
            writer.write(frame)
    writer.release()
    return path


def first_line(stream: Any, word: str) -> str:
    return next(line for line in iter(stream.readline, "") if word in line)


@pytest.mark.skipif(chromium.BINARY is None, reason="needs chromium")
def test_in_a_browser_the_bars_move_with_the_picture(tiny_file: Path, film: Path, tmp_path: Path) -> None:
    pytest.importorskip("cheroot")
    options = ["--loop", "--fps", 10, "--serve", "127.0.0.1:0", "--smoothing", 0.3, "--threshold", 0.3, "--viewers", 1]
    with running(tiny_file, "--source", film, *options) as process:
        url = first_line(process.stderr, "live page").split()[-1]
        with chromium.Page(tmp_path / "profile") as page:
            page.open(url)
            page.wait_for("document.querySelectorAll('#heads section').length === 3")
            heads = page.run("[...document.querySelectorAll('#heads section')].map(s => s.dataset.head)")
            assert heads == ["animals", "garden", "things"]
            page.wait_for("document.getElementById('picture').naturalWidth === 96")
            widths = "[...document.querySelectorAll('.bar')].map(b => b.style.width).join()"
            assert len(page.run(widths).split(",")) == 3 + 4 + 2
            page.run(f"window.before = {widths}")
            page.wait_for(f"{widths} !== window.before && (window.before = {widths})")
            page.wait_for(f"{widths} !== window.before")
            page.wait_for("document.querySelectorAll('#events li').length > 2")
            assert "frames/s" in page.run("document.getElementById('fps').textContent")
            page.resize(380, 700)  # a phone: one column, nothing to the side
            assert page.run("document.documentElement.scrollWidth") <= 380
            assert page.run("getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length") == 1
            process.send_signal(signal.SIGTERM)
            page.wait_for("document.getElementById('camera').className === 'bad'")
        assert process.wait(20) == 0


@pytest.mark.skipif(chromium.BINARY is None, reason="needs chromium")
def test_what_turns_a_direction_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    """As in a terminal, for every character there is."""
    script = re.search(r"<script>\n(.*?)let lastEvent", Path(live_server.PAGE).read_text(), re.DOTALL)
    assert script is not None
    with chromium.Page(tmp_path / "profile") as page:
        page.open("about:blank")
        page.run(f"{script[1]} window.printable = printable; null")
        every = "[...Array(0x10000).keys()].map((i) => String.fromCharCode(i))"
        shown = page.run(f"{every}.filter((c) => printable(c) !== c).map(printable)")
        assert page.run("printable('\\ud83d\\ude00')") == "\U0001f600"
    assert shown == [printable(c) for c in map(chr, range(0x10000)) if printable(c) != c]


@pytest.mark.parametrize("colour", [(250, 10, 10), (10, 200, 20), (10, 20, 220)], ids=["red", "green", "blue"])
def test_colours_of_a_video_are_those_of_the_picture(colour: tuple[int, int, int], tmp_path: Path) -> None:
    """A video written as OpenCV wants it, BGR: its colour at the model and on the page."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    path = tmp_path / "colour.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 96))
    frame = np.full((96, 96, 3), colour[::-1], np.uint8)
    frame[:8] = 0  # contrast
    for _ in range(3):
        writer.write(frame)
    writer.release()
    source = open_source(str(path), SourceOptions(SPEC))
    shot = source.read(show=True)
    source.close()
    assert shot is not None
    page = encode(shot)
    assert page is not None
    for shown in (shot.tensor(SPEC)[0], np.asarray(Image.open(io.BytesIO(page)))):
        np.testing.assert_allclose(shown[-8:].reshape(-1, 3).mean(0), colour, atol=12)


def test_labels_are_text_and_never_markup() -> None:
    page = Path(live_server.PAGE).read_text()
    assert "innerHTML" not in page
    assert "insertAdjacent" not in page
    assert "//" not in page.replace("// ", "").replace("  // ", ""), "nothing is fetched from elsewhere"


def test_the_state_tells_what_the_page_needs(tiny_file: Path, film: Path) -> None:
    pytest.importorskip("cheroot")
    with running(tiny_file, "--source", film, "--loop", "--fps", 20, "--serve", "127.0.0.1:0") as process:
        port = int(first_line(process.stderr, "live page").rstrip("/\n").rpartition(":")[2])
        assert until(lambda: len(json.loads(get(port, "/state.json")[1])) > 5)
        state = json.loads(get(port, "/state.json")[1])
        status, body = get(port, "/health")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert set(state) == {
        "model", "source", "connected", "time", "frame", "fps", "answered", "captured", "dropped", "broken", "blank",
        "temperature", "latency_ms", "heads", "events", "identity",
    }  # fmt: skip
    assert [head["head_name"] for head in state["heads"]] == ["animals", "garden", "things"]
