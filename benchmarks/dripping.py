"""Measure ``/health`` of the live page while other clients keep connections open and send a byte twice a second.

python -m benchmarks.dripping --connections 200 --seconds 10
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

from edge_runtime.camera.live_page import LivePage

BEGUN = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    chosen = parser.parse_args()
    page = LivePage("127.0.0.1:0", viewers=4, token_file=None, patience=1e9)
    page.answered(time.monotonic())
    port = page.place.address.port
    print(f"no other connections: {1000 * _health(port):.1f} ms")
    with _dripping(port, chosen.connections):
        end, took = time.monotonic() + chosen.seconds, []
        while time.monotonic() < end:
            took.append(_health(port))
    page.close()
    took.sort()
    median, worst = took[len(took) // 2], took[-1]
    print(f"{chosen.connections} slow connections: median {1000 * median:.1f} ms, ", end="")
    print(f"longest of {len(took)} requests {1000 * worst:.1f} ms")


@contextlib.contextmanager
def _dripping(port: int, connections: int) -> Iterator[None]:
    """Keep so many slow connections open. A client that is turned away connects again."""
    over = threading.Event()
    threads = [threading.Thread(target=_drip, args=(port, over), daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(5)


def _drip(port: int, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(BEGUN)
            while not over.wait(0.5):
                connection.sendall(b"x")


def _health(port: int) -> float:
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health")
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"/health answered {response.status}")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
