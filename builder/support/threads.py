"""The same function on many items, on all processors at once.

For work that does not hold Python's lock, as that of NumPy, Pillow and the interpreters.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")
Item = TypeVar("Item")
Result = TypeVar("Result")
_IN_HAND = 4  # items for each thread that are computed ahead: memory does not grow with their number
_MOST = 4  # threads: more would wait for Python's lock


def processors() -> int:
    """The processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # of Linux
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def beside(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None) -> Iterator[Result]:
    """Yield what ``work`` makes of each item, in order; ``work`` must be safe to call from several threads.

    ``threads``: None takes one for each processor, but not many.
    """
    threads = threads or min(processors(), _MOST)
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _IN_HAND * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class OfEachThread(Generic[Made]):
    """What ``make`` gives, made once for each thread that asks: interpreters cannot be shared."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make, self._own = make, threading.local()

    def __call__(self) -> Made:
        if not hasattr(self._own, "made"):
            self._own.made = self._make()
        found: Made = self._own.made
        return found
