"""The same function on many items, on all processors at once.

For work that does not hold Python's lock, as that of NumPy, Pillow and the interpreters.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from builder.support.in_turn import in_turn, processors

Made = TypeVar("Made")
Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 4  # threads: more would wait for Python's lock


def beside(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None) -> Iterator[Result]:
    """Yield what ``work`` makes of each item, in order; ``work`` must be safe to call from several threads.

    ``threads``: None takes one for each processor, but not many.
    """
    threads = threads or min(processors(), _MOST)
    pool = ThreadPoolExecutor(threads)
    try:
        yield from in_turn(items, lambda item: pool.submit(work, item), Future.result, threads)
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
