"""The live page: picture, bars and events in a browser. Cheroot serves it, one thread for each stream.

A thread that blocks on a slow viewer is that viewer's own; one that takes nothing for ``VIEWER_TIMEOUT`` seconds is cut
off. Servers that buffer what a viewer does not take would hand out old pictures, and more of them the slower it is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from traceback import format_exc
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from edge_runtime.camera.lines import say
from edge_runtime.camera.live_access import Address, cookie_name, knows_token, names_loopback
from edge_runtime.camera.live_door import MAX_REQUEST, Door
from edge_runtime.camera.live_hub import Hub, encoded
from edge_runtime.camera.metrics import KIND as METRICS
from edge_runtime.camera.metrics import metrics_text
from edge_runtime.errors import EdgeRuntimeError, said

VIEWER_TIMEOUT = 10.0  # seconds
KEEP_ALIVE = 3.0  # seconds after which something is sent though nothing is new: only sending finds out who has gone
BACKLOG = 128  # connections that the system accepts while nobody looks
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "live_page.html")
PATHS = ("/", "/stream.mjpg", "/events", "/state.json", "/labels.json", "/metrics", "/picture.jpg", "/health")
_BOUNDARY = b"frame"
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "frame-ancestors 'none'",
    ),
]
_Start = Callable[[str, List[Tuple[str, str]]], Any]


class Viewers:
    """At most ``limit`` at a time."""

    def __init__(self, limit: int) -> None:
        self._free = threading.BoundedSemaphore(limit)

    def enter(self) -> bool:
        return self._free.acquire(blocking=False)

    def leave(self) -> None:
        self._free.release()


class Application:
    """WSGI. ``health``: (well, document), asked on each call."""

    def __init__(
        self,
        hub: Hub,
        health: Callable[[], Tuple[bool, Mapping[str, Any]]],
        *,
        token: Optional[str] = None,
        loopback_only: bool = True,
        viewers: int = 4,
    ) -> None:
        self._hub, self._health, self._token, self._loopback_only = hub, health, token, loopback_only
        self._pictures, self._states = Viewers(viewers), Viewers(viewers)
        with open(PAGE, "rb") as file:
            self._page = file.read()

    def __call__(self, environ: Dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO") or "/"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text(start, "405 Method Not Allowed", "only GET and HEAD")
        if "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH") not in (None, "", "0"):
            # A proxy and this server might disagree on where such a request ends.
            return _text(start, "400 Bad Request", "expected a request without a body")
        if self._loopback_only and not names_loopback(environ.get("HTTP_HOST", "")):
            # A page from elsewhere whose name was pointed at this machine must not read the camera.
            return _text(start, "403 Forbidden", "this page is for this machine only: use 127.0.0.1 or localhost")
        if path == "/health":  # tells nothing worth a token
            return self._send_health(start)
        if self._token is not None and not knows_token(environ, self._token):
            return _text(start, "401 Unauthorized", "a token is needed: use the address that was printed at the start")
        if path == "/" and "token=" in environ.get("QUERY_STRING", ""):
            return self._send_cookie(environ, start)
        return self._send(path, start, environ["REQUEST_METHOD"] == "HEAD")

    def _send(self, path: str, start: _Start, head: bool) -> Iterable[bytes]:
        if path == "/":
            return _reply(start, "200 OK", "text/html; charset=utf-8", self._page)
        if path == "/state.json":
            latest = self._hub.latest
            return _reply(start, "200 OK", "application/json", b"{}" if latest is None else latest.json())
        if path == "/metrics":
            latest = self._hub.latest
            return _reply(start, "200 OK", METRICS, b"" if latest is None else metrics_text(latest.document))
        if path == "/labels.json":
            latest = self._hub.latest
            return _reply(start, "200 OK", "application/json", encoded({} if latest is None else latest.labels()))
        if path == "/picture.jpg":
            return self._send_picture(start)
        if path == "/stream.mjpg" and not head:
            kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
            return self._stream(start, kind, self._pictures, self._mjpeg)
        if path == "/events" and not head:
            return self._stream(start, "text/event-stream", self._states, self._server_sent_events)
        return _text(start, "404 Not Found", f"there are {', '.join(PATHS)}")

    def _send_picture(self, start: _Start) -> Iterable[bytes]:
        latest = self._hub.latest
        data = None if latest is None else latest.jpeg()
        if data is None:
            return _text(start, "503 Service Unavailable", "no picture yet")
        return _reply(start, "200 OK", "image/jpeg", data)

    def _send_health(self, start: _Start) -> Iterable[bytes]:
        well, document = self._health()
        body = json.dumps(document).encode()
        return _reply(start, "200 OK" if well else "503 Service Unavailable", "application/json", body)

    def _send_cookie(self, environ: Mapping[str, Any], start: _Start) -> Iterable[bytes]:
        """The token goes from the address, which ends in histories, into a cookie."""
        cookie = f"{cookie_name(environ)}={self._token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000"
        start("303 See Other", [*_HEADERS, ("Location", "/"), ("Set-Cookie", cookie), ("Content-Length", "0")])
        return []

    def _stream(self, start: _Start, kind: str, viewers: Viewers, body: Callable[[], Iterator[bytes]]) -> Iterable[bytes]:
        if not viewers.enter():
            return _text(start, "503 Service Unavailable", "too many viewers; --viewers allows more")
        start("200 OK", [*_HEADERS, ("Content-Type", kind)])
        return _Stream(body(), viewers)

    def _mjpeg(self) -> Iterator[bytes]:
        """The boundary follows each picture at once: a browser shows a picture when it sees where the picture ends."""
        hub, sequence, last = self._hub, 0, b""
        hub.enter()
        try:
            yield b"--" + _BOUNDARY + b"\r\n"
            while not hub.closed:
                newer = hub.newer(sequence, KEEP_ALIVE)
                if newer is not None:
                    sequence, last = newer.sequence, newer.jpeg() or last
                if last:
                    yield b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(last)
                    yield last + b"\r\n--" + _BOUNDARY + b"\r\n"
        finally:
            hub.leave()

    def _server_sent_events(self) -> Iterator[bytes]:
        hub, sequence = self._hub, 0
        yield b"retry: 2000\n\n"
        while not hub.closed:
            newer = hub.newer(sequence, KEEP_ALIVE)
            if newer is None:
                yield b": still here\n\n"
            else:
                sequence = newer.sequence
                yield b"data: " + newer.json() + b"\n\n"


class _Stream:
    """What a server iterates over and closes, whether the iteration began or not."""

    def __init__(self, chunks: Iterator[bytes], viewers: Viewers) -> None:
        self._chunks: Any = chunks
        self._viewers: Optional[Viewers] = viewers

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        self._chunks.close()
        viewers, self._viewers = self._viewers, None
        if viewers is not None:
            viewers.leave()


class LiveServer:
    """Serves ``application`` at ``address`` from threads of its own. Raises ``EdgeRuntimeError`` and ``OSError``.

    ``threads``: of them as many as last; four more are for what ends at once. ``max_body``: bytes of a request's body.
    """

    def __init__(
        self,
        address: Address,
        application: Callable[..., Iterable[bytes]],
        *,
        threads: int = 8,
        max_body: int = MAX_REQUEST,
    ) -> None:
        try:
            from cheroot import wsgi
        except ImportError as error:
            raise EdgeRuntimeError(
                f"a server needs cheroot, which cannot be imported ({error}); pip install 'polyhead[web]'"
            ) from error
        self._server = server = wsgi.Server(
            (address.host, address.port), application, numthreads=threads + 4, max=threads + 4,
            timeout=VIEWER_TIMEOUT, shutdown_timeout=2, server_name="edge-runtime", request_queue_size=BACKLOG,
        )  # fmt: skip
        server.max_request_header_size, server.max_request_body_size = MAX_REQUEST, max_body
        server.keep_alive_conn_limit = 0  # a second request would hold a thread until it comes
        server.error_log = _report
        failed: List[OSError] = []
        # Cheroot's threads are daemons where the one that starts them is: a page that nobody closed holds no process up.
        starter = threading.Thread(target=_prepare, args=(server, failed), daemon=True)
        starter.start()
        starter.join()
        if failed:
            why = said(failed[0]).rpartition("] ")[2].rstrip(")")  # cheroot's words hold the system's
            raise EdgeRuntimeError(f"cannot serve at {address}: {why}; choose another address or port") from failed[0]
        self.address = Address(address.host, server.bind_addr[1])
        self._door = Door(server.process_conn, server.put_conn)
        server.process_conn = self._door.offer
        self._thread = threading.Thread(target=server.serve, name="live page", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the hub first: streams end with it."""
        self._door.close()
        self._server.stop()
        self._thread.join(3)


def _prepare(server: Any, failed: List[OSError]) -> None:
    try:
        server.prepare()
    except OSError as error:
        failed.append(error)


def _report(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """A viewer that goes away is no news; what nobody thought of is."""
    if level >= logging.ERROR:
        say(f"live page: {message}" + (f"\n{format_exc()}" if traceback else ""))


def _reply(start: _Start, status: str, kind: str, body: bytes) -> Iterable[bytes]:
    start(status, [*_HEADERS, ("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _text(start: _Start, status: str, text: str) -> Iterable[bytes]:
    return _reply(start, status, "text/plain; charset=utf-8", (text + "\n").encode())
