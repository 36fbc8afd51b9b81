"""Runs independent tasks, here, in worker processes or on a cluster: what `build`, `crop` and `verify` share.

The results come in the order of the tasks, whatever the number of workers. Only a few tasks are on their way
at a time, so that memory stays flat.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process was killed from outside; running the same command again goes on."""


class ClusterError(RuntimeError):
    """A cluster cannot be used, or not any longer; the message says why and what to do."""


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A call for a worker; all of it can be sent to another process.

    Attributes:
        pictures: how many it handles.
        name: of what it is about, for messages.
    """

    function: Callable[..., Result]
    arguments: tuple[Any, ...]
    pictures: int
    name: str


# Does all tasks and gives the number of a task and its result, as they come.
Elsewhere = Callable[[Sequence[Task[Any]]], Iterator[tuple[int, Any]]]


def run(
    tasks: Sequence[Task[Result]],
    workers: int | None,
    command: str,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Result]:
    """Do all tasks, with a progress bar on a terminal; then their results in the order of the tasks.

    Args:
        workers: processes; as many as there are cores where None; 1 does the work in this process.
        command: the word before the progress bar.
        elsewhere: does the work instead, on a cluster.

    Raises:
        WorkerDiedError: if a worker is killed; on a cluster, if those that a task is given to go on dying.
        ClusterError: if a cluster is lost or cannot be used. What a task raises is raised here.
    """
    with tqdm(total=sum(t.pictures for t in tasks), desc=command, unit=" pictures", disable=None) as bar:
        done = elsewhere(tasks) if elsewhere else _run(tasks, workers)
        results: dict[int, Result] = {}
        for number, result in done:
            results[number] = result
            bar.update(tasks[number].pictures)
    yield from (results[number] for number in range(len(tasks)))


def _run(tasks: Sequence[Task[Result]], workers: int | None) -> Iterator[tuple[int, Result]]:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    return _run_here(tasks) if workers <= 1 else _run_in_processes(tasks, workers)


def _run_here(tasks: Sequence[Task[Result]]) -> Iterator[tuple[int, Result]]:
    for number, task in enumerate(tasks):
        yield number, task.function(*task.arguments)


def _run_in_processes(tasks: Sequence[Task[Result]], workers: int) -> Iterator[tuple[int, Result]]:
    """Results as they come."""
    waiting = iter(enumerate(tasks))
    running: dict[Future[Result], int] = {}
    others = active_children()
    with (
        _one_interrupt(),
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker) as pool,
    ):
        try:
            while True:
                for number, task in waiting:
                    with _interrupts_ignored():
                        running[pool.submit(_do, task)] = number
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker died, perhaps for want of memory; run the same command again to go on, "
                "with fewer --workers if it happens again"
            ) from error
        except KeyboardInterrupt:
            for process in active_children():
                if process not in others:
                    process.terminate()  # see `_begin_worker`; a shard may take long to come to its end
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt once: another while workers are being stopped could leave them waiting."""

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # the caller has a way of its own
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started in here never sees Ctrl-C; the one that started it tells it when to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change this, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _do(task: Task[Result]) -> Result:
    """What a worker is given."""
    try:
        return task.function(*task.arguments)
    except SystemExit:  # stopped; the pool would hand this on as a result, and have the worker wait for more
        os._exit(1)


def _begin_worker() -> None:
    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pool says it again while a task clears up
        raise SystemExit  # out of the task, which clears up behind itself, or out of waiting for one

    signal.signal(signal.SIGTERM, stop)
    _end_with_parent()
    gc.freeze()  # what was imported stays; looking through it again and again took a build 3 % of its time


def _end_with_parent() -> None:
    """Make this worker end when its parent is killed: an orphan would write beside the next build."""

    def wait_for_the_end() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
