"""Between the listening socket and the server's threads: a request comes in once its header is whole.

Cheroot gives each new connection a thread, which then waits for the header: a few senders of a line every some seconds
hold all of them, and none of cheroot's settings is a deadline for a request. So a connection waits here without a thread.
It has ``HEADER_DEADLINE`` seconds for its header, and where there are too many, of one address or of all, the one that
has waited longest goes, of those that have begun first: who sends a request at once is always let in.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Callable, Dict, Optional

HEADER_DEADLINE = 5.0  # seconds
BODY_DEADLINE = 30.0  # seconds, from the header's end
MAX_WAITING = 128  # connections
MAX_WAITING_OF_ONE = 32  # of one address; behind a proxy all have one
MAX_REQUEST = 16 << 10  # bytes of a header; the server refuses what is longer
TICK = 0.02  # seconds between looks at the headers that have begun
_WITH_BODY = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")


class Door:
    """``admit`` gives a connection to a thread. ``wait`` calls ``offer`` again when there is more to read.

    A connection is cheroot's: it has ``socket``, ``remote_addr`` and ``close``. Each brings one request.
    """

    def __init__(
        self,
        admit: Callable[[Any], None],
        wait: Callable[[Any], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admit, self._wait, self._clock = admit, wait, clock
        self._changed = threading.Condition()
        self._since: Dict[Any, float] = {}  # connections that have sent nothing or too little, the oldest first
        self._begun: Dict[Any, None] = {}  # those of them that have sent too little
        self._bodies: Dict[Any, float] = {}  # admitted connections, and until when their bodies may come
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def offer(self, connection: Any) -> None:
        """A new connection, or one that ``wait`` found readable."""
        head = _peek(connection.socket)
        if head is None or (head and not _is_whole(head)):
            self._keep(connection, begun=head is not None)
            return
        self._forget(connection)
        if not head:
            _close(connection)
            return
        if any(name in head.lower() for name in _WITH_BODY):
            with self._changed:
                self._bodies[connection] = self._clock() + BODY_DEADLINE
                self._changed.notify_all()
        self._admit(connection)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(1)

    def look(self) -> None:
        """At what has begun, and at who is late; the thread does it every ``TICK`` seconds."""
        now = self._clock()
        with self._changed:
            begun = list(self._begun)
            late = [c for c, since in self._since.items() if now - since > HEADER_DEADLINE]
            stuck = [c for c, until in self._bodies.items() if now > until]
            for connection in stuck:
                del self._bodies[connection]
        for connection in begun:
            self.offer(connection)
        for connection in late:
            self._turn_away(connection)
        for connection in stuck:
            _hang_up(connection, socket.SHUT_RD)  # the thread that reads finds the end, and answers if it can

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                while not (self._closed or self._since or self._bodies):
                    self._changed.wait()
                self._changed.wait(TICK if self._begun else 10 * TICK)
            if not self._closed:
                self.look()

    def _keep(self, connection: Any, *, begun: bool) -> None:
        with self._changed:
            new = connection not in self._since
            self._since.setdefault(connection, self._clock())
            if begun:
                self._begun[connection] = None
            self._changed.notify_all()
            oldest = self._one_too_many(connection) if new else None
        if not begun:
            self._wait(connection)
        if oldest is not None:
            self._turn_away(oldest)

    def _one_too_many(self, connection: Any) -> Optional[Any]:
        """The oldest of those that wait, where with ``connection`` they are more than allowed.

        Those that have begun and do not end go first: one that has sent nothing may have come just now, and how soon it
        sends is up to the machine too. One whose header is whole by now stays, though nobody has looked at it yet.
        """
        crowd = [other for other in self._since if other.remote_addr == connection.remote_addr]
        if len(crowd) <= MAX_WAITING_OF_ONE:
            crowd = list(self._since) if len(self._since) > MAX_WAITING else []
        crowd.sort(key=lambda other: (other is connection, other not in self._begun))
        return next((other for other in crowd if not _is_whole(_peek(other.socket))), None)

    def _turn_away(self, connection: Any) -> None:
        """One that has sent nothing is with ``wait``: hanging up makes it readable, and ``offer`` closes it."""
        with self._changed:
            begun = connection in self._begun
        self._forget(connection)
        _hang_up(connection, socket.SHUT_RDWR)
        if begun:
            _close(connection)

    def _forget(self, connection: Any) -> None:
        with self._changed:
            self._since.pop(connection, None)
            self._begun.pop(connection, None)


def _peek(connection: socket.socket) -> Optional[bytes]:
    """Return received bytes without consuming them, at most ``MAX_REQUEST``; None if there are none, empty at the end."""
    timeout = connection.gettimeout()
    head: Optional[bytes] = None
    try:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError, InterruptedError):
            head = connection.recv(MAX_REQUEST, socket.MSG_PEEK)
        connection.settimeout(timeout)
    except OSError:  # also: another thread has turned it away
        return b""
    return head


def _is_whole(head: Optional[bytes]) -> bool:
    return head is not None and (b"\r\n\r\n" in head or len(head) >= MAX_REQUEST)


def _hang_up(connection: Any, how: int) -> None:
    with contextlib.suppress(OSError):  # it may have gone by itself
        connection.socket.shutdown(how)


def _close(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.close()
