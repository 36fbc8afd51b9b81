"""Runs independent tasks, here, in worker processes or on a cluster: what `build`, `crop` and `verify` share.

The results come in the order of the tasks, whatever the number of workers. Only a few tasks are on their way
at a time, so that memory stays flat. A worker can be killed at any time: what it makes has no name before it
is whole, and what is whole is not made again.
"""

import gc
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process ended before its task; running the same command again goes on."""


class ClusterError(RuntimeError):
    """A cluster cannot be used, or not any longer; the message says why and what to do."""


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A call for a worker; all of it can be sent to another process.

    Attributes:
        count: how many things it handles.
        name: of what it is about, for messages.
        unit: what is counted: each has a progress bar.
    """

    function: Callable[..., Result]
    arguments: tuple[Any, ...]
    count: int
    name: str
    unit: str = "pictures"


# The number of a task and its result, as they come.
Results = Generator[tuple[int, Result], None, None]
# Does all tasks.
Elsewhere = Callable[[Sequence[Task[Any]]], Results[Any]]


def run(
    tasks: Sequence[Task[Result]],
    workers: int | None,
    command: str,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Result]:
    """Do all tasks, with progress bars on a terminal; then their results in the order of the tasks.

    Args:
        workers: processes; as many as there are cores for this one where None; 1 does the work here.
        command: the word before the progress bars.
        elsewhere: does the work instead, on a cluster.

    Raises:
        WorkerDiedError: if a worker is killed; on a cluster, if those that a task is given to go on dying.
        ClusterError: if a cluster is lost or cannot be used. What a task raises is raised here.
    """
    results: dict[int, Result] = {}
    totals: Counter[str] = Counter()
    for task in tasks:
        totals[task.unit] += task.count
    with ExitStack() as stack:
        bars = {
            unit: stack.enter_context(tqdm(total=total, desc=command, unit=f" {unit}", disable=None))
            for unit, total in totals.items()
        }
        done = stack.enter_context(closing(elsewhere(tasks) if elsewhere else _run(tasks, workers)))
        for number, result in done:
            results[number] = result
            bars[tasks[number].unit].update(tasks[number].count)
    yield from (results[number] for number in range(len(tasks)))


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Say on a terminal what is being done where nothing is counted."""
    with tqdm(desc=text, bar_format="{desc} [{elapsed}]", disable=None, leave=False):
        yield


def cores() -> int:
    """How many cores this process may use: on a shared machine not all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(tasks: Sequence[Task[Result]], workers: int | None) -> Results[Result]:
    workers = min(workers or cores(), len(tasks))
    if workers <= 1:
        return ((number, task.function(*task.arguments)) for number, task in enumerate(tasks))
    return _run_in_processes(tasks, workers)


def _run_in_processes(tasks: Sequence[Task[Result]], workers: int) -> Results[Result]:
    """Results as they come."""
    waiting = iter(enumerate(tasks))
    running: dict[Future[Result], int] = {}
    others, own = set(active_children()), set[BaseProcess]()
    with tempfile.TemporaryDirectory(prefix="imagenet3d-") as scratch:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, (scratch,))
        try:
            while True:
                for number, task in waiting:
                    with _interrupts_held():
                        running[pool.submit(task.function, *task.arguments)] = number
                        own |= set(active_children()) - others
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise _died(own) from error
        except (KeyboardInterrupt, GeneratorExit):  # the second where it came while no result was waited for
            for process in own:
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _died(workers: set[BaseProcess]) -> WorkerDiedError:
    """What to say of workers of which one ended by itself; the pool has stopped the others."""
    for worker in workers:
        worker.join(1)
    codes = {worker.exitcode or 0 for worker in workers} - {0, -signal.SIGTERM}
    if any(code > 0 for code in codes):
        return WorkerDiedError("a worker could not work: its own message is above")
    signals = ", ".join(sorted(signal.Signals(-code).name for code in codes)) or "a signal"
    return WorkerDiedError(
        f"a worker was ended by {signals}, perhaps for want of memory; run the same command again to go on, "
        "with fewer --workers if it happens again"
    )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C comes after it. A process started in here never sees it: the one that began it ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(scratch: str) -> None:
    tempfile.tempdir = scratch  # which the parent removes, also when it has killed this process
    gc.freeze()  # what was imported stays; looking through it again and again took a build 3 % of its time
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan would write beside the next build."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
