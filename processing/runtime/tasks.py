"""Runs independent tasks, here, in worker processes or on a cluster: what `build`, `crop` and `verify` share.

The results come in the order of the tasks, whatever the number of workers. Only a few tasks are on their way
at a time, so that memory stays flat. A worker can be killed at any time: what it makes has no name before it
is whole, and what is whole is not made again.

On Linux workers are forked from a server, a process that has imported what they need and does nothing else:
`datasets` alone takes a second, and a fork some milliseconds. The server has one thread of Python, and those
that numpy and Arrow start when they are imported, OpenBLAS's and jemalloc's, which both allow for forks;
Arrow's own begin with its first work. Elsewhere every worker imports for itself.
"""

import gc
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, forkserver, get_context, parent_process, resource_tracker
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
    meanwhile: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Do all tasks, with progress bars on a terminal; then their results in the order of the tasks.

    Args:
        workers: processes; as many as there are cores for this one where None; 1 does the work here.
        command: the word before the progress bars.
        elsewhere: does the work instead, on a cluster.
        meanwhile: called once while processes work, before any result is waited for; takes a second at most.

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
        done = stack.enter_context(
            closing(elsewhere(tasks) if elsewhere else _run(tasks, workers, meanwhile))
        )
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


# As Python 3.14 has it: to fork without `exec` is not safe on macOS, and unknown to Windows.
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def start_server(workers: int | None, *modules: str) -> None:
    """Have the process that workers are forked from import these modules, if there are to be any workers.

    `run` does so itself. Told before this process imports the same, both import side by side.

    Args:
        workers: as for `run`.
        modules: what workers need; one that cannot be imported is left to them.
    """
    if _METHOD != "forkserver" or (workers or cores()) <= 1:
        return
    forkserver.set_forkserver_preload(list(modules))  # heeded by a server that is not there yet
    # The server does not know this process's `sys.path` (until Python 3.14), and would look first in the
    # current folder, which may hold anything.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is that folder
    resource_tracker.ensure_running()  # not in there: it lets interrupts through when it has begun
    with _interrupts_held(), _environment({"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}):
        forkserver.ensure_running()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for a process that is started in here."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(
    tasks: Sequence[Task[Result]], workers: int | None, meanwhile: Callable[[], None] | None
) -> Results[Result]:
    workers = min(workers or cores(), len(tasks))
    if workers <= 1:
        return ((number, task.function(*task.arguments)) for number, task in enumerate(tasks))
    return _run_in_processes(tasks, workers, meanwhile)


def _run_in_processes(
    tasks: Sequence[Task[Result]], workers: int, meanwhile: Callable[[], None] | None
) -> Results[Result]:
    """Results as they come."""
    waiting = iter(enumerate(tasks))
    running: dict[Future[Result], int] = {}
    others, own = set(active_children()), set[BaseProcess]()
    start_server(workers, *{task.function.__module__: None for task in tasks})
    with tempfile.TemporaryDirectory(prefix="imagenet3d-") as scratch:
        context, given = get_context(_METHOD), (scratch, dict(os.environ))
        pool = ProcessPoolExecutor(workers, context, _begin_worker, given)
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
                if meanwhile is not None:
                    with _interrupts_deferred():
                        meanwhile()
                    meanwhile = None
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


_UNTOLD = 255  # the exit code of a worker whose server was killed: nobody else knows how it ended


def _died(workers: set[BaseProcess]) -> WorkerDiedError:
    """What to say of workers of which one ended by itself; the pool has stopped the others."""
    for worker in workers:
        worker.join(1)
    codes = {worker.exitcode or 0 for worker in workers} - {0, -signal.SIGTERM, _UNTOLD}
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


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C comes after it, for this process: raised in an import it may be dropped, or end all in C++.

    A mask would not do, for it is of one thread, and libraries have others that the signal may come to.
    """
    of_python = signal.getsignal(signal.SIGINT) is not None
    if threading.current_thread() is not threading.main_thread() or not of_python:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _begin_worker(scratch: str, environment: Mapping[str, str]) -> None:
    tempfile.tempdir = scratch  # which the parent removes, also when it has killed this process
    os.environ.clear()  # the server's, which may have begun long ago, and with other variables
    os.environ.update(environment)
    gc.freeze()  # what was imported stays; looking through it again and again took a build 3 % of its time
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan would write beside the next build."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
