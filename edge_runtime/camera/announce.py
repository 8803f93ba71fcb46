"""Prints the address of a served page: for a person with the token, for a log without it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional
from urllib.parse import quote

from edge_runtime.camera.live_access import Address, reachable
from edge_runtime.temporary import TemporaryFolder


@dataclass(frozen=True)
class Place:
    """``address``: that is listened on. ``token_file``: where the user keeps the token."""

    address: Address
    token: Optional[str] = None
    token_file: Optional[str] = None

    @property
    def urls(self) -> List[str]:
        """Addresses that open, the likeliest first; they let in who has them."""
        query = "" if self.token is None else f"?token={quote(self.token, safe='')}"
        return [url + query for url in self.bare_urls]

    @property
    def bare_urls(self) -> List[str]:
        """The addresses without the token."""
        return [f"http://{address}/" for address in reachable(self.address)]

    @contextlib.contextmanager
    def announced(self, what: str, say: Callable[[str], None]) -> Iterator[None]:
        """Say where ``what`` is: with the token and a QR code on a terminal, elsewhere with the token's file.

        Where there is no such file one is made, for as long as the context lasts.
        """
        if self.token is None or sys.stderr.isatty():
            say(f"{what}: {' or '.join(self.urls)}")
            code = "" if self.token is None else qr_code(self.urls[0])
            if code:
                say(code)
            yield
            return
        with _kept(self.token, self.token_file) as path:
            say(f"{what}: {' or '.join(self.bare_urls)} with ?token= and the token in {path}")
            yield


@contextlib.contextmanager
def _kept(token: str, path: Optional[str]) -> Iterator[str]:
    if path is not None:
        yield path
        return
    with TemporaryFolder() as folder:  # its owner's alone, and so is the file
        path = os.path.join(folder, "token")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
        yield path


def qr_code(text: str) -> str:
    """For a phone's camera, in the characters of a terminal; empty where segno is not installed."""
    try:
        import segno
    except ImportError:
        return ""
    drawn = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(drawn, compact=True, border=2)
    return drawn.getvalue().rstrip("\n")
