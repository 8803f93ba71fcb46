"""``edge-runtime serve``: its answers are those of ``classify``; an error is a status and one line."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime import MultiHeadClassifier
from edge_runtime.camera.live_access import Address
from edge_runtime.camera.live_server import LiveServer
from edge_runtime.serve.application import PATHS, ServeApplication
from edge_runtime.serve.requests import MAX_BATCH, MAX_BODY, read_request
from tests.tiny_models import THREE_HEADS

MODEL = {"name": "doors", "version": "3", "digest": "sha256:1"}


@pytest.fixture(scope="module")
def classifier(tiny_file: Path) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier(tiny_file) as classifier:
        yield classifier


@pytest.fixture(scope="module")
def app(classifier: MultiHeadClassifier) -> ServeApplication:
    return ServeApplication(classifier, MODEL, {"bytes": 1})


def ask(
    app: ServeApplication, path: str, body: bytes | None = None, kind: str = "application/json", **more: Any
) -> tuple[int, Any]:
    environ = {"REQUEST_METHOD": "GET" if body is None else "POST", "PATH_INFO": path, "HTTP_HOST": "127.0.0.1:80",
               "SERVER_PORT": "80", "QUERY_STRING": ""}  # fmt: skip
    if body is not None:
        environ.update(
            {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}  # type: ignore[dict-item]
        )
    said: list[Any] = []
    answer = b"".join(app({**environ, **more}, lambda status, headers: said.extend([status, dict(headers)])))
    assert int(said[1]["Content-Length"]) == len(answer)
    text = answer.decode()
    return int(said[0][:3]), json.loads(text) if said[1]["Content-Type"] == "application/json" else text


def post(app: ServeApplication, **document: Any) -> tuple[int, Any]:
    return ask(app, "/classify", json.dumps(document).encode())


def without_time(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "latency_ms"}


def test_answers_are_those_of_classify(
    app: ServeApplication, classifier: MultiHeadClassifier, tiny_pictures: list[Path]
) -> None:
    batch = [base64.b64encode(path.read_bytes()).decode() for path in tiny_pictures[:5]]
    status, answer = post(app, pictures=batch, top_k=2)
    assert (status, answer["model"]) == (200, MODEL)
    expected = [classifier.classify(path, top_k=2).to_dict() for path in tiny_pictures[:5]]
    assert [without_time(r) for r in answer["results"]] == [without_time(e) for e in expected]


def test_a_picture_may_come_as_it_is(
    app: ServeApplication, classifier: MultiHeadClassifier, tiny_pictures: list[Path]
) -> None:
    data = tiny_pictures[0].read_bytes()
    status, answer = ask(app, "/classify", data, "image/png", QUERY_STRING="head=things&head=0&top_k=1")
    expected = classifier.classify(tiny_pictures[0], heads=["things", 0], top_k=1).to_dict()
    assert (status, list(map(without_time, answer["results"]))) == (200, [without_time(expected)])


@pytest.mark.parametrize("heads", [["garden"], [1], ["things", 0]])
def test_heads_by_name_and_by_index(app: ServeApplication, tiny_pictures: list[Path], heads: list) -> None:
    picture = base64.b64encode(tiny_pictures[0].read_bytes()).decode()
    (result,) = post(app, pictures=[picture], heads=heads)[1]["results"]
    names = list(THREE_HEADS)
    assert [c["head_name"] for c in result["classifications"]] == [h if isinstance(h, str) else names[h] for h in heads]


def test_a_broken_picture_is_named_and_the_others_go_on(app: ServeApplication, tiny_pictures: list[Path]) -> None:
    good = base64.b64encode(tiny_pictures[0].read_bytes()).decode()
    status, answer = post(app, pictures=[good, base64.b64encode(b"torn").decode(), good])
    assert status == 200
    assert [set(result) for result in answer["results"]][1] == {"error"}
    assert "classifications" in answer["results"][2]
    assert "/tmp" not in answer["results"][1]["error"], "no path of this machine"


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({}, "pictures or texts"),
        ({"pictures": [], "texts": []}, "pictures or texts"),
        ({"pictures": ["aaaa"], "other": 1}, "pictures or texts"),
        ({"pictures": []}, "found 0"),
        ({"pictures": ["aaaa"] * (MAX_BATCH + 1)}, str(MAX_BATCH)),
        ({"pictures": "aaaa"}, "list"),
        ({"pictures": [3]}, "list"),
        ({"pictures": ["no base64!"]}, "base64"),
        ({"pictures": ["aaaa"], "heads": "garden"}, "heads"),
        ({"pictures": ["aaaa"], "heads": []}, "heads"),
        ({"pictures": ["aaaa"], "heads": [True]}, "heads"),
        ({"pictures": ["aaaa"], "heads": ["door"]}, "animals, garden, things"),
        ({"pictures": ["aaaa"], "heads": [99]}, "animals, garden, things"),
        ({"pictures": ["aaaa"], "heads": [-1]}, "animals, garden, things"),
        ({"pictures": ["aaaa"], "top_k": 0}, "top_k"),
        ({"pictures": ["aaaa"], "top_k": True}, "top_k"),
        ({"pictures": ["aaaa"], "joint": 1}, "joint"),
        ({"pictures": ["aaaa"], "joint": True}, "joint head"),
        ({"pictures": ["aaaa"], "threshold": 0.5}, "joint"),
        ({"texts": ["a"]}, "pictures, not texts"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(app: ServeApplication, document: dict, word: str) -> None:
    status, answer = post(app, **document)
    assert status == 400
    assert word in answer["error"]
    assert "\n" not in answer["error"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["pictures", "texts", "heads", "top_k", "joint", "threshold"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.dictionaries(keys, values) | values, raw=st.binary(max_size=20))
def test_no_request_is_a_traceback(app: ServeApplication, document: Any, raw: bytes) -> None:
    for body in (json.dumps(document).encode(), raw):
        assert ask(app, "/classify", body)[0] in (200, 400)
        assert ask(app, "/classify", body, "image/jpeg", QUERY_STRING=raw.decode("latin-1"))[0] in (200, 400)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"CONTENT_TYPE": "text/html"}, 415),
        ({"CONTENT_TYPE": ""}, 415),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ({"CONTENT_LENGTH": str(MAX_BODY + 1)}, 400),
        ({"CONTENT_LENGTH": "0"}, 400),
        ({"CONTENT_LENGTH": "9"}, 408),
        ({"HTTP_HOST": "rebound.example"}, 403),
        ({"REQUEST_METHOD": "GET"}, 405),
        ({"REQUEST_METHOD": "PUT"}, 405),
        ({"PATH_INFO": "/classify/"}, 404),
    ],
)
def test_each_refusal_has_its_status(app: ServeApplication, more: dict, status: int) -> None:
    assert ask(app, "/classify", b"{}", **more)[0] == status


@pytest.mark.parametrize("path", PATHS)
def test_each_path_has_its_method_and_what_is_read_can_be_asked_for_its_head(app: ServeApplication, path: str) -> None:
    reading = PATHS[path] == "GET"
    for method, ok in (("GET", reading), ("HEAD", reading), ("POST", not reading), ("PUT", False), ("get", False)):
        status = ask(app, path, None if reading else b"{}", REQUEST_METHOD=method)[0]
        assert (status != 405) == ok, (path, method)


def test_a_number_is_a_name_before_it_is_an_index() -> None:
    query = "head=2&head=1&head=door&head=12345678&joint=1&joint=0"
    environ = {"CONTENT_TYPE": "image/png", "CONTENT_LENGTH": "1", "QUERY_STRING": query, "wsgi.input": io.BytesIO(b"x")}
    wanted = read_request(environ, ["2", "door"])
    assert (wanted.heads, wanted.joint) == (("2", 1, "door", "12345678"), False)  # of what is given twice the last counts


def test_only_requests_within_the_limits_are_answered(app: ServeApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"pictures": ["AA=="] * MAX_BATCH}).encode()
    monkeypatch.setattr("edge_runtime.serve.requests.MAX_BODY", len(body))
    assert ask(app, "/classify", body)[0] == 200
    assert ask(app, "/classify", body + b" ")[0] == 400
    more = json.dumps({"pictures": [""] * (MAX_BATCH + 1)}).encode()
    assert f"expected 1 to {MAX_BATCH} samples" in ask(app, "/classify", more)[1]["error"]


def test_a_token_opens_all_but_health_is_for_everyone(classifier: MultiHeadClassifier) -> None:
    app = ServeApplication(classifier, MODEL, {}, token="abcdefgh12345678", loopback_only=False)
    for path, method in PATHS.items():
        body = None if method == "GET" else b"{}"
        assert (ask(app, path, body)[0] == 401) == (path != "/health")
        assert ask(app, path, body, HTTP_AUTHORIZATION="Bearer abcdefgh12345678")[0] != 401
        assert ask(app, path, body, HTTP_AUTHORIZATION="Bearer wrong")[0] == (200 if path == "/health" else 401)


def test_the_description_names_every_path_and_head(app: ServeApplication) -> None:
    document = ask(app, "/openapi.json")[1]
    assert set(document["paths"]) == set(PATHS)
    text = json.dumps(document)
    assert all(f'"{name}"' in text for name in THREE_HEADS)
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references == set(document["components"]["schemas"])


def test_metrics_count(classifier: MultiHeadClassifier, tiny_pictures: list[Path]) -> None:
    app = ServeApplication(classifier, MODEL, {})
    picture = base64.b64encode(tiny_pictures[0].read_bytes()).decode()
    post(app, pictures=[picture] * 3)
    ask(app, "/nothing")
    text = ask(app, "/metrics")[1]
    assert 'edge_runtime_model_info{name="doors",version="3",digest="sha256:1"} 1' in text
    assert 'edge_runtime_requests_total{status="200"} 1' in text
    assert 'edge_runtime_requests_total{status="404"} 1' in text
    assert "edge_runtime_samples_total 3\n" in text


def test_requests_beyond_the_room_are_told_to_come_again_and_the_room_is_free_after(
    classifier: MultiHeadClassifier,
) -> None:
    app = ServeApplication(classifier, MODEL, {}, at_once=1)
    reading, go = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reading.set()
            go.wait(20)
            return super().read(size)

    first = threading.Thread(target=ask, args=(app, "/classify", b"{}"), kwargs={"wsgi.input": Slow(b"{}")})
    first.start()
    assert reading.wait(20)
    assert ask(app, "/classify", b"{}")[0] == 503
    assert ask(app, "/health")[0] == 200
    go.set()
    first.join(20)
    assert ask(app, "/classify", b"{}")[0] == 400


def test_health_is_answered_while_bodies_drip(app: ServeApplication) -> None:
    pytest.importorskip("cheroot")
    server = LiveServer(Address("127.0.0.1", 0), app, threads=8, max_body=MAX_BODY)
    begun = (
        b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.address.port), timeout=20))
            connection.sendall(begun)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.address.port}/health", timeout=5) as response:
            assert json.load(response) == {"status": "ok"}
    server.stop()


def test_the_whole_command(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    pytest.importorskip("cheroot")
    command = [sys.executable, "-m", "edge_runtime", "serve", str(tiny_file), "--address", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        url = next(line for line in iter(process.stderr.readline, "") if "http://" in line).split()[-1]
        assert urllib.request.urlopen(url + "health", timeout=10).status == 200
        info = json.load(urllib.request.urlopen(url + "info", timeout=10))
        assert [head["head_name"] for head in info["heads"]] == list(THREE_HEADS)
        picture = urllib.request.Request(
            url + "classify?top_k=1", tiny_pictures[0].read_bytes(), {"Content-Type": "image/png"}
        )
        answer = json.load(urllib.request.urlopen(picture, timeout=20))
        assert answer["model"]["digest"] == info["identity"]["digest"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url + "nothing", timeout=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
