"""Tasks side by side, in processes of this machine or on a Ray cluster; results in the order of the tasks.

Only a few tasks are in hand at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from builder.support.errors import ConfigError

Task = TypeVar("Task")
Result = TypeVar("Result")
_IN_HAND = 2  # tasks of each worker: one that it works on and one that waits

_worker: Any = None  # of a process of this machine


def side_by_side(
    make: Callable[..., Callable[[Task], Result]],
    arguments: Mapping[str, Any],
    tasks: Iterable[Task],
    *,
    jobs: int = 1,
    address: str | None = None,
) -> Iterator[Result]:
    """What a worker says of each task, in their order.

    Args:
        make: A class or function at the top of a module; ``make(**arguments)`` is made once by each process.
        arguments: What can be pickled, like tasks and results.
        tasks: They are asked for as workers come free.
        jobs: Processes; 1 is this one.
        address: Of a Ray cluster, where the processes run instead. A worker that dies is started again.

    Raises:
        ConfigError: A process of this machine died, or Ray is not installed.
        Exception: Whatever a worker raises.
    """
    if address is not None:
        yield from _on_ray(make, arguments, tasks, jobs, address)
    elif jobs == 1:
        yield from map(make(**arguments), tasks)
    else:
        yield from _in_processes(make, arguments, tasks, jobs)


def _in_processes(
    make: Callable[..., Any], arguments: Mapping[str, Any], tasks: Iterable[Task], jobs: int
) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")  # a copy of this one would share what interpreters hold
    with ProcessPoolExecutor(jobs, context, _start, (make, dict(arguments))) as pool:
        try:
            yield from _in_turn(tasks, lambda task: pool.submit(_work, task), lambda future: future.result(), jobs)
        except BrokenProcessPool as error:
            raise ConfigError("a worker was ended from outside, perhaps for want of memory; try fewer --jobs") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[..., Any], arguments: dict[str, Any]) -> None:
    global _worker
    _worker = make(**arguments)


def _work(task: Any) -> Any:
    return _worker(task)


def _on_ray(
    make: Callable[..., Any], arguments: Mapping[str, Any], tasks: Iterable[Task], jobs: int, address: str
) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--address needs Ray: pip install 'polyhead[cluster]'") from error
    with cluster(address=address):
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(_Actor)
        actors = deque(actor.remote(make, dict(arguments)) for _ in range(jobs))

        def hand_out(task: Task) -> Any:
            actors.rotate(-1)
            return actors[-1].work.remote(task)

        def fetch(reference: Any) -> Any:
            try:
                return ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error

        yield from _in_turn(tasks, hand_out, fetch, jobs)


class _Actor:
    def __init__(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._worker = make(**arguments)

    def work(self, task: Any) -> Any:
        return self._worker(task)


def _in_turn(
    tasks: Iterable[Task], hand_out: Callable[[Task], Any], fetch: Callable[[Any], Any], jobs: int
) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for task in tasks:
        waiting.append(hand_out(task))
        if len(waiting) >= _IN_HAND * jobs:
            yield fetch(waiting.popleft())
    while waiting:
        yield fetch(waiting.popleft())


@contextlib.contextmanager
def cluster(*, address: str | None = None, jobs: int | None = None) -> Iterator[None]:
    """A Ray cluster to work on: the one at ``address``, or one of this machine with ``jobs`` processors.

    One that this process is connected to already is taken, and left as it was.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"include_dashboard": False} if address is None else {}
    ray.init(
        address=address or "local", num_cpus=None if address else jobs, logging_level="ERROR", log_to_driver=False,
        configure_logging=False, **quiet,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
