"""What ``--serve`` adds to the loop: a hub, a server over it, and whether all is well."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, Optional, Tuple

from edge_runtime.camera.announce import Place
from edge_runtime.camera.lines import say
from edge_runtime.camera.live_access import make_token, parse_address
from edge_runtime.camera.live_hub import Hub
from edge_runtime.camera.live_server import Application, LiveServer

PATIENCE = 10.0  # seconds without an answered picture, after which the loop is not well


class LivePage:
    """``address``: ``[HOST:]PORT``. ``patience``: seconds between pictures at most. Raises ``EdgeRuntimeError``."""

    def __init__(self, address: str, *, viewers: int, token_file: Optional[str], patience: float = PATIENCE) -> None:
        wanted = parse_address(address)
        token = None if wanted.loopback else make_token(token_file)
        self.hub = Hub()
        self._patience = patience
        self._last_answer: Optional[float] = None
        application = Application(self.hub, self.health, token=token, loopback_only=wanted.loopback, viewers=viewers)
        self._server = LiveServer(wanted, application, threads=2 * viewers)
        self.place = Place(self._server.address, token, token_file)

    @property
    def url(self) -> str:
        """With the token, where there is one."""
        return self.place.urls[0]

    def watched(self) -> bool:
        """Does anybody see the picture?"""
        return self.hub.watching > 0

    def answered(self, now: float) -> None:
        """A picture was answered at ``now``, on the monotonic clock."""
        self._last_answer = now

    def report(self, message: str) -> None:
        self.hub.add_events([{"time": round(time.time(), 3), "message": message}])

    def health(self) -> Tuple[bool, Dict[str, Any]]:
        """Well is a loop that answers pictures; and the document of ``/health``."""
        last = self._last_answer
        if last is None:
            return False, {"status": "no picture yet"}
        age = time.monotonic() - last
        well = age < self._patience
        return well, {"status": "ok" if well else "no pictures", "seconds_since_picture": round(age, 1)}

    def close(self) -> None:
        self.hub.close()
        self._server.stop()


@contextlib.contextmanager
def live_page(address: Optional[str], **options: Any) -> Iterator[Optional[LivePage]]:
    """The page while it is open, its address said once; None where ``address`` is."""
    if address is None:
        yield None
        return
    page = LivePage(address, **options)
    try:
        with page.place.announced("live page", say):
            yield page
    finally:
        page.close()
