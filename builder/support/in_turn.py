"""Hand out tasks to workers, and take their results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Task = TypeVar("Task")
Handed = TypeVar("Handed")
Result = TypeVar("Result")
_IN_HAND = 2  # tasks for each worker: one running and one waiting


def in_turn(
    tasks: Iterable[Task], hand_out: Callable[[Task], Handed], fetch: Callable[[Handed], Result], workers: int
) -> Iterator[Result]:
    """Yield the result of each task. Only a few are pending at a time, so that memory does not grow with their number.

    ``hand_out``: starts a task, as ``Executor.submit`` does; ``fetch``: waits for its result.
    """
    waiting: deque[Handed] = deque()
    for task in tasks:
        waiting.append(hand_out(task))
        if len(waiting) >= _IN_HAND * workers:
            yield fetch(waiting.popleft())
    while waiting:
        yield fetch(waiting.popleft())


def processors() -> int:
    """The processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # of Linux
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
