"""Who may see the live page: this machine, or who has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
import stat
from typing import Any, List, Mapping, NamedTuple, Optional
from urllib.parse import unquote

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.files import open_file

MIN_TOKEN, MAX_TOKEN = 8, 512  # characters
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what a header, a cookie and an address can carry
# Addresses for documentation: to route a packet there tells which of the own addresses it would leave by; none is sent.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


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
        raise EdgeRuntimeError(
            f"expected an address PORT or HOST:PORT, as in 8080, 0.0.0.0:8080 or [::]:8080, found {text!r:.80}"
        )
    return Address(host or "127.0.0.1", int(port))


def reachable(address: Address) -> List[Address]:
    """Where a browser finds what is served at ``address``: for 0.0.0.0 and ::, this machine's own addresses."""
    if not (_is_ip(address.host) and ipaddress.ip_address(address.host).is_unspecified):
        return [address]
    families = [f for f in _ELSEWHERE if ":" in address.host or f[0] == socket.AF_INET]
    found = [own for own in (_own_address(*family) for family in families) if own is not None]
    return [Address(host, address.port) for host in found or ["127.0.0.1"]]


def _own_address(family: int, elsewhere: str) -> Optional[str]:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:  # no such network
        return None


def make_token(path: Optional[str]) -> str:
    """A token for an address that others can reach: kept in the file at ``path``, made if it is not there.

    Raises ``EdgeRuntimeError`` for a file that holds no token, or that others may read.
    """
    if path is None:
        return secrets.token_urlsafe(16)
    if os.path.exists(path):
        return _read_token(path)
    token = secrets.token_urlsafe(16)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token + "\n")
    return token


def _read_token(path: str) -> str:
    with open_file(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read(4 * MAX_TOKEN)
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EdgeRuntimeError(
            f"{path}: others may read this token (mode {mode & 0o777:o}, expected 600); run: chmod 600 {path}"
        )
    token = text.decode("utf-8", "replace").strip()
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise EdgeRuntimeError(
            f"{path}: expected one line with a token of {MIN_TOKEN} to {MAX_TOKEN} letters, digits and -._~+/=; "
            "delete the file to have one made"
        )
    return token


def cookie_name(environ: Mapping[str, Any]) -> str:
    return f"edge_runtime_{environ.get('SERVER_PORT', '')}"  # cookies do not tell ports apart


def knows_token(environ: Mapping[str, Any], token: str) -> bool:
    """Does the WSGI request bring ``token``, in its address, as a bearer token or in the cookie?"""
    # By hand: + is a plus here, and no cookie of another program on this host may hide ours, whatever it holds.
    given = [unquote(value) for value in _values(environ.get("QUERY_STRING", ""), "&", "token")]
    given += _values(environ.get("HTTP_COOKIE", ""), ";", cookie_name(environ))
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(credentials.strip())
    return any(hmac.compare_digest(text.encode("utf-8", "replace"), token.encode()) for text in given)


def _values(text: str, separator: str, name: str) -> List[str]:
    pairs = (part.strip().partition("=") for part in text.split(separator))
    return [value.strip('"') for key, _, value in pairs if key == name]


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
