"""Run tasks in parallel, in processes of this machine or on a Ray cluster; results come in the order of tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from builder.support.errors import ClusterError, ConfigError
from builder.support.in_turn import in_turn
from edge_runtime.errors import reason

Task = TypeVar("Task")
Result = TypeVar("Result")

_STARTS = 3  # attempts: Ray gives up where its own processes take more than 15 seconds, as on a busy machine
_worker: Any = None  # of a local process


def side_by_side(
    make: Callable[..., Callable[[Task], Result]],
    arguments: Mapping[str, Any],
    tasks: Iterable[Task],
    *,
    jobs: int = 1,
    address: str | None = None,
) -> Iterator[Result]:
    """Yield the result of each task, in order.

    Args:
        make: A class or function at the top of a module; each process calls ``make(**arguments)`` once for its worker.
        arguments: Picklable arguments; tasks and results must be picklable too.
        tasks: Consumed as workers become free.
        jobs: Number of processes; 1 is this process.
        address: Address of a Ray cluster to run on instead. A worker that dies is restarted.

    Raises:
        ConfigError: A local process died, or Ray is not installed.
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
    context = multiprocessing.get_context("spawn")  # a fork would share the state of interpreters
    with ProcessPoolExecutor(jobs, context, _start, (make, dict(arguments))) as pool:
        try:
            yield from in_turn(tasks, lambda task: pool.submit(_work, task), Future.result, jobs)
        except BrokenProcessPool as error:
            raise ConfigError("a worker process was killed, perhaps because memory ran out; try fewer --jobs") from error
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

        yield from in_turn(tasks, hand_out, fetch, jobs)


class _Actor:
    def __init__(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._worker = make(**arguments)

    def work(self, task: Any) -> Any:
        return self._worker(task)


@contextlib.contextmanager
def cluster(*, address: str | None = None, jobs: int | None = None) -> Iterator[None]:
    """A Ray cluster: the one at ``address``, or a local one with ``jobs`` processors.

    An existing connection of this process is used and left open. Raises ``ClusterError``.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    _start_ray(address, jobs)
    try:
        yield
    finally:
        ray.shutdown()


def _start_ray(address: str | None, jobs: int | None) -> None:
    import ray

    quiet = {"include_dashboard": False} if address is None else {}
    for left in reversed(range(_STARTS if address in (None, "local") else 1)):
        try:
            ray.init(
                address=address or "local", num_cpus=None if address else jobs, logging_level="ERROR",
                log_to_driver=False, configure_logging=False, **quiet,
            )  # fmt: skip
            return
        except Exception as error:  # Ray raises no class of its own here
            ray.shutdown()
            if not left:
                what = f"Ray at {address} cannot be used" if address else "Ray does not start on this machine"
                raise ClusterError(f"{what}: {reason(error)}") from error
