"""MJPEG over HTTP, as network cameras and our own live page send it; nothing but the standard library."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from typing import Any, Optional
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_runtime.camera.sources import Shot, Source, shown_address
from edge_runtime.errors import SourceError

TIMEOUT = 10.0  # seconds without a byte
MAX_FRAME = 16 << 20  # bytes; a stream is untrusted
MAX_LINE = 4096
_BROKEN = (OSError, http.client.HTTPException, ValueError)


class MjpegStream(Source):
    """``address``: ``http://[user:password@]host/path`` that answers with ``multipart/x-mixed-replace``.

    Frames stay as the JPEG bytes that were sent: preparation decodes them at reduced size, viewers get them as they are.
    """

    def __init__(self, address: str) -> None:
        self._name = shown_address(address)
        try:
            self._response = _open(address)
            kind = self._response.headers.get_content_type()
            boundary = self._response.headers.get_param("boundary")
        except _BROKEN as error:
            raise SourceError(f"{self._name}: {_reason(error)}") from error
        if kind != "multipart/x-mixed-replace" or not isinstance(boundary, str):
            self._response.close()
            raise SourceError(f"{self._name}: expected an MJPEG stream (multipart/x-mixed-replace), found {kind}")
        self._boundary = boundary.encode("latin-1").strip(b"-")  # some servers count the leading dashes as part of it
        self._at_boundary = False

    def read(self, *, show: bool) -> Optional[Shot]:
        try:
            length = self._headers()
            data = self._exactly(length) if length else self._until_boundary()
        except _BROKEN as error:
            raise SourceError(f"{self._name}: {_reason(error)}") from error
        return Shot(data)

    def close(self) -> None:
        self._response.close()

    def _headers(self) -> int:
        """Past the next boundary and the headers behind it; returns the length they promise, 0 where they do not."""
        while not self._at_boundary:
            self._at_boundary = self._is_boundary(self._line())
        self._at_boundary = False
        length = 0
        for line in iter(lambda: self._line().strip(), b""):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        if not 0 <= length <= MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        return length

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


def _open(address: str) -> Any:
    """The response; user and password go into a header, where they belong. No proxy: cameras are near."""
    parts = urlsplit(address)
    headers = {"User-Agent": "edge-runtime"}
    if "@" in parts.netloc:
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode("ascii")
        address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)


def _reason(error: Exception) -> str:
    plain = isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)
    return " ".join(str(error.reason if plain else error).split()) or type(error).__name__  # type: ignore[attr-defined]
