"""MJPEG over HTTP, as network cameras and our own live page send it; nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Iterator, Optional
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_runtime.camera.sources import Shot, Source, shown_address
from edge_runtime.errors import SourceError

TIMEOUT = 10.0  # seconds without a byte
FRAME_TIMEOUT = 15.0  # seconds for a whole frame; for an answer to begin with too
LOOK = 1.0  # seconds between looks at who is late
MAX_FRAME = 16 << 20  # bytes; a stream is untrusted
MAX_BEFORE = 64 << 10  # bytes before a frame: what comes before its boundary, and its headers
MAX_LINE = 4096
_BROKEN = (OSError, http.client.HTTPException, ValueError)


class MjpegStream(Source):
    """``address``: ``http://[user:password@]host/path`` that answers with ``multipart/x-mixed-replace``.

    Frames stay as the JPEG bytes that were sent: preparation decodes them at reduced size, viewers get them as they are.
    """

    def __init__(self, address: str) -> None:
        self._name = shown_address(address)
        self._deadline = _Deadline()
        try:
            with self._deadline.within(FRAME_TIMEOUT):
                self._response = _open(address, self._deadline)
            kind = self._response.headers.get_content_type()
            boundary = self._response.headers.get_param("boundary")
        except _BROKEN as error:
            self._deadline.close()
            raise SourceError(f"{self._name}: {_reason(error)}") from error
        if kind != "multipart/x-mixed-replace" or not isinstance(boundary, str):
            self.close()
            raise SourceError(f"{self._name}: expected an MJPEG stream (multipart/x-mixed-replace), found {kind}")
        self._boundary = boundary.encode("latin-1").strip(b"-")  # some servers count the leading dashes as part of it
        self._at_boundary = False
        self._before = 0  # bytes of MAX_BEFORE that are left

    def read(self, *, show: bool) -> Optional[Shot]:
        try:
            with self._deadline.within(FRAME_TIMEOUT):
                length = self._headers()
                data = self._exactly(length) if length else self._until_boundary()
        except _BROKEN as error:
            raise SourceError(f"{self._name}: {_reason(error)}") from error
        return Shot(data)

    def close(self) -> None:
        self._deadline.close()
        self._response.close()

    def _headers(self) -> int:
        """Past the next boundary and the headers behind it; returns the length they promise, 0 where they do not."""
        self._before = MAX_BEFORE
        while not self._at_boundary:
            self._at_boundary = self._is_boundary(self._line_before())
        self._at_boundary = False
        length = 0
        for line in iter(lambda: self._line_before().strip(), b""):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        if not 0 <= length <= MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        return length

    def _line_before(self) -> bytes:
        line = self._line()
        self._before -= len(line)
        if self._before < 0:
            raise ValueError(f"{MAX_BEFORE} bytes and no frame")
        return line

    def _line(self) -> bytes:
        line: bytes = self._response.readline(MAX_LINE)
        if not line:
            raise ConnectionError("the stream ended")
        return line

    def _is_boundary(self, line: bytes) -> bool:
        return line.startswith(b"--") and line.strip().strip(b"-") == self._boundary

    def _exactly(self, length: int) -> bytes:
        data: bytes = self._response.read(length)
        if len(data) < length:
            raise ConnectionError("the stream ended")
        return data

    def _until_boundary(self) -> bytes:
        """Some cameras tell no length: a frame then ends where the next boundary begins."""
        data = bytearray()
        while len(data) <= MAX_FRAME:
            line = self._line()
            if self._is_boundary(line):
                self._at_boundary = True
                return bytes(data).rstrip(b"\r\n")
            data += line
        raise ValueError(f"a frame of more than {MAX_FRAME} bytes")


class _Deadline:
    """Hangs up on a sender that takes too long: a timeout of the socket begins anew with every byte."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._connection: Optional[socket.socket] = None
        self._until: Optional[float] = None
        self._late = self._closed = False
        threading.Thread(target=self._run, name="mjpeg deadline", daemon=True).start()

    def watch(self, connection: socket.socket) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raises ``TimeoutError``, whatever else the hanging up made of it."""
        self._until = time.monotonic() + seconds
        try:
            yield
        except _BROKEN:
            if not self._late:
                raise
        finally:
            self._until = None
        if self._late:
            raise TimeoutError(f"no whole frame in {seconds:.0f} s")

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                self._changed.wait(LOOK)
                until = self._until
                if until is not None and time.monotonic() > until and self._connection is not None:
                    self._late = True
                    with contextlib.suppress(OSError):
                        self._connection.shutdown(socket.SHUT_RDWR)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Who may see the password is the host that it was given for, by the protocol that it was given for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise ValueError(f"redirected to {newurl!r:.80}, which is no web address")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            request.remove_header("Authorization")
        return request


def _open(address: str, deadline: _Deadline) -> Any:
    """The response; user and password go into a header, where they belong. No proxy: cameras are near."""
    parts = urlsplit(address)
    headers = {"User-Agent": "edge-runtime"}
    if "@" in parts.netloc:
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode("ascii")
        address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    handlers = (urllib.request.ProxyHandler({}), _Redirects(), *_watched(deadline))
    opener = urllib.request.build_opener(*handlers)
    return opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)


def _watched(deadline: _Deadline) -> Iterator[urllib.request.BaseHandler]:
    """Handlers that tell ``deadline`` of each socket they open."""

    def connection_of(kind: Any) -> Any:
        class Connection(kind):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                deadline.watch(self.sock)

        return Connection

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(connection_of(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(connection_of(http.client.HTTPSConnection), req)

    yield Http()
    yield Https()


def _reason(error: Exception) -> str:
    plain = isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)
    return " ".join(str(error.reason if plain else error).split()) or type(error).__name__  # type: ignore[attr-defined]
