"""Who may see the live page: this machine, or who has the token."""

from __future__ import annotations

import hmac
import http.cookies
import ipaddress
import os
import secrets
from typing import Any, Mapping, NamedTuple, Optional
from urllib.parse import parse_qs

from edge_runtime.errors import EdgeRuntimeError

MIN_TOKEN = 8  # characters


class Address(NamedTuple):
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or _is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``8080``, ``0.0.0.0:8080`` or ``[::1]:8080``; without a host it is loopback. Raises ``EdgeRuntimeError``."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not port.isdecimal() or int(port) > 65535 or (":" in host and not _is_ip(host)):
        raise EdgeRuntimeError(f"--serve {text}: expected PORT or HOST:PORT, as in 8080, 0.0.0.0:8080 or [::]:8080")
    return Address(host or "127.0.0.1", int(port))


def make_token(path: Optional[str]) -> str:
    """A token for an address that others can reach: kept in the file at ``path``, made if it is not there."""
    if path is None:
        return secrets.token_urlsafe(16)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
        if len(token) < MIN_TOKEN:
            raise EdgeRuntimeError(
                f"{path}: expected a token of {MIN_TOKEN} or more characters; delete the file to have one made"
            )
        return token
    token = secrets.token_urlsafe(16)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token + "\n")
    return token


def cookie_name(environ: Mapping[str, Any]) -> str:
    return f"edge_runtime_{environ.get('SERVER_PORT', '')}"  # cookies do not tell ports apart


def knows_token(environ: Mapping[str, Any], token: str) -> bool:
    """Does the WSGI request bring ``token``, in its address, as a bearer token or in the cookie?"""
    given = list(parse_qs(environ.get("QUERY_STRING", "")).get("token", []))
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(credentials.strip())
    try:
        cookie = http.cookies.SimpleCookie(environ.get("HTTP_COOKIE", "")).get(cookie_name(environ))
    except http.cookies.CookieError:
        cookie = None
    if cookie is not None:
        given.append(cookie.value)
    return any(hmac.compare_digest(text.encode("utf-8", "replace"), token.encode()) for text in given)


def names_loopback(host: str) -> bool:
    """Is ``host``, a Host header, a name of this machine itself?"""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))


def _is_loopback(host: str) -> bool:
    return _is_ip(host) and ipaddress.ip_address(host).is_loopback


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
