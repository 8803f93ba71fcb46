"""A client that sends slowly, or never ends, delays nobody: the door before the server, and the whole server."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.camera import live_door
from edge_runtime.camera.live_door import (
    BODY_DEADLINE,
    HEADER_DEADLINE,
    MAX_REQUEST,
    MAX_WAITING,
    MAX_WAITING_OF_ONE,
    Door,
)
from edge_runtime.camera.live_page import LivePage
from tests.camera_fakes import Clock

WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Connection:
    """A connection like cheroot's, over a pair of sockets. ``other`` is the sender's end."""

    def __init__(self, address: str = "1.1.1.1") -> None:
        self.socket, self.other = socket.socketpair()
        self.remote_addr, self.closed = address, False

    def close(self) -> None:
        self.closed = True
        self.socket.close()


class Hall:
    """A door with the test's clock and without its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Door, "_run", lambda self: None)
        self.clock = Clock()
        self.admitted: list[Connection] = []
        self.silent: list[Connection] = []
        self.door = Door(self.admitted.append, self.silent.append, clock=self.clock)

    def arrive(self, data: bytes = b"", address: str = "1.1.1.1") -> Connection:
        connection = Connection(address)
        connection.other.sendall(data)
        self.door.offer(connection)
        return connection


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch) -> Hall:
    return Hall(monkeypatch)


def hung_up(connection: Connection) -> bool:
    connection.other.settimeout(5)
    try:
        return connection.other.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_whole_header_is_let_in_at_once_and_nothing_of_it_is_taken(hall: Hall) -> None:
    connection = hall.arrive(WHOLE)
    assert hall.admitted == [connection]
    assert connection.socket.recv(1000) == WHOLE


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_header_in_two_parts_is_let_in_when_it_is_whole(hall: Hall, cut: int) -> None:
    connection = hall.arrive(WHOLE[:cut])
    hall.door.look()
    assert hall.admitted == []
    connection.other.sendall(WHOLE[cut:])
    hall.door.look()
    assert hall.admitted == [connection]


def test_who_says_nothing_waits_without_being_looked_at(hall: Hall) -> None:
    connection = hall.arrive()
    assert hall.silent == [connection]
    connection.other.sendall(WHOLE)
    hall.door.offer(connection)
    assert hall.admitted == [connection]


def test_a_header_without_end_is_left_to_the_server_to_refuse(hall: Hall) -> None:
    assert hall.admitted == [hall.arrive(b"x" * MAX_REQUEST)]


def test_who_has_gone_is_closed(hall: Hall) -> None:
    connection = Connection()
    connection.other.close()
    hall.door.offer(connection)
    assert connection.closed


@pytest.mark.parametrize("data", [b"", b"G", WHOLE[:-1]])
def test_a_header_has_its_time_however_often_something_comes(hall: Hall, data: bytes) -> None:
    connection = hall.arrive(data)
    for _ in range(int(HEADER_DEADLINE)):
        hall.clock.now += 1
        if data:
            connection.other.sendall(b"x")
        hall.door.look()
        assert not connection.closed
    hall.clock.now += 1
    hall.door.look()
    assert hung_up(connection)
    assert hall.admitted == []


@pytest.mark.parametrize("data", [b"", b"G"])
def test_of_one_address_the_oldest_goes_and_others_stay(hall: Hall, data: bytes) -> None:
    other = hall.arrive(data, "2.2.2.2")
    crowd = [hall.arrive(data) for _ in range(MAX_WAITING_OF_ONE + 3)]
    assert all(hung_up(connection) for connection in crowd[:3])
    for connection in [other, *crowd[3:]]:
        connection.other.sendall(WHOLE if not data else WHOLE[1:])
        hall.door.offer(connection)
    assert hall.admitted == [other, *crowd[3:]]


@pytest.mark.parametrize("limit", [MAX_WAITING_OF_ONE, MAX_WAITING])
def test_who_came_just_now_stays_where_others_have_begun_and_do_not_end(hall: Hall, limit: int) -> None:
    """However many come between its connection and its request, which a busy machine may hold up."""
    crowd_of_one = limit == MAX_WAITING_OF_ONE
    fresh = hall.arrive()
    crowd = [hall.arrive(b"G", "1.1.1.1" if crowd_of_one else f"1.1.{i}.2") for i in range(limit + 10)]
    assert [c.closed for c in crowd] == [True] * 11 + [False] * (limit - 1)
    fresh.other.sendall(WHOLE)
    hall.door.offer(fresh)
    assert hall.admitted == [fresh]


@pytest.mark.parametrize("data", [b"", WHOLE[:3]])
def test_a_header_that_is_whole_by_now_stays_though_nobody_has_looked(hall: Hall, data: bytes) -> None:
    waiting = hall.arrive(data)
    waiting.other.sendall(WHOLE[len(data) :])
    crowd = [hall.arrive(data) for _ in range(MAX_WAITING_OF_ONE + 2)]
    assert hung_up(crowd[0])
    hall.door.offer(waiting)
    assert hall.admitted == [waiting]


def test_of_many_addresses_the_oldest_goes(hall: Hall) -> None:
    crowd = [hall.arrive(b"G", f"1.1.{i}.1") for i in range(MAX_WAITING + 3)]
    assert [c.closed for c in crowd] == [True] * 3 + [False] * MAX_WAITING


@pytest.mark.parametrize("header", ["Content-Length: 9", "TRANSFER-ENCODING: chunked"])
def test_a_body_has_its_time(hall: Hall, header: str) -> None:
    connection = hall.arrive(WHOLE[:-2] + header.encode() + b"\r\n\r\n")
    assert hall.admitted == [connection]
    connection.socket.recv(1000)
    hall.clock.now += BODY_DEADLINE + 1
    hall.door.look()
    assert connection.socket.recv(1) == b"", "the thread that reads finds the end"
    connection.socket.sendall(b"408")
    assert connection.other.recv(3) == b"408", "and can answer"


def test_a_stream_has_all_the_time_there_is(hall: Hall) -> None:
    connection = hall.arrive(WHOLE)
    hall.clock.now += 1e6
    hall.door.look()
    connection.other.sendall(b"more")
    assert connection.socket.recv(1000) == WHOLE + b"more"


# The whole server.


@pytest.fixture
def page() -> Iterator[LivePage]:
    pytest.importorskip("cheroot")
    page = LivePage("127.0.0.1:0", viewers=1, token_file=None, patience=1e9)
    page.answered(time.monotonic())
    yield page
    page.close()


def port_of(page: LivePage) -> int:
    return page.place.address.port


def ask_for_health(page: LivePage) -> None:
    """Returns when it is answered. The time limit is for a server that never answers, not for a slow machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=60)
    connection.request("GET", "/health")
    response = connection.getresponse()
    assert response.status == 200
    response.read()
    connection.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-a: ",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    ],
)
def test_health_is_answered_under_200_dripping_connections(
    page: LivePage, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_door, "HEADER_DEADLINE", 1e9)  # not even then
    with contextlib.ExitStack() as stack:
        dripping: list[Any] = []
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(page)), timeout=20))
            connection.sendall(begun)
            dripping.append(connection)
        for _ in range(3):
            for connection in dripping:
                with contextlib.suppress(OSError):  # turned away
                    connection.sendall(b"x")
            ask_for_health(page)


def test_content_length_with_chunked_is_refused(page: LivePage) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(page)), timeout=10) as connection:
        connection.sendall(request + b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answers = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1") == 1, "what follows is no second request"
