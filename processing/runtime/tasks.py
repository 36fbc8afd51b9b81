"""Runs independent tasks, here, in worker processes or on a cluster: what `build`, `crop` and `verify` share.

The results come in the order of the tasks, whatever the number of workers. Only a few tasks are on their way
at a time, so that memory stays flat.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from types import FrameType
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
    """Do all tasks, with a progress bar on a terminal; then their results in the order of the tasks.

    Args:
        workers: processes; as many as there are cores where None; 1 does the work in this process.
        command: the word before the progress bar.
        elsewhere: does the work instead, on a cluster.

    Raises:
        WorkerDiedError: if a worker is killed; on a cluster, if those that a task is given to go on dying.
        ClusterError: if a cluster is lost or cannot be used. What a task raises is raised here.
    """
    results: dict[int, Result] = {}
    with (
        tqdm(total=sum(t.pictures for t in tasks), desc=command, unit=" pictures", disable=None) as bar,
        closing(elsewhere(tasks) if elsewhere else _run(tasks, workers)) as done,
    ):
        for number, result in done:
            results[number] = result
            bar.update(tasks[number].pictures)
    yield from (results[number] for number in range(len(tasks)))


def _run(tasks: Sequence[Task[Result]], workers: int | None) -> Results[Result]:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    return _run_here(tasks) if workers <= 1 else _run_in_processes(tasks, workers)


def _run_here(tasks: Sequence[Task[Result]]) -> Results[Result]:
    with _heeding_interrupts() as check_for_interrupt:
        for number, task in enumerate(tasks):
            result = task.function(*task.arguments)
            check_for_interrupt()
            yield number, result


def _run_in_processes(tasks: Sequence[Task[Result]], workers: int) -> Results[Result]:
    """Results as they come."""
    waiting = iter(enumerate(tasks))
    running: dict[Future[Result], int] = {}
    others = active_children()
    with (
        _heeding_interrupts(once=True) as check_for_interrupt,
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
                done = wait(running, return_when=FIRST_COMPLETED).done
                check_for_interrupt()
                for future in done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker died, perhaps for want of memory; run the same command again to go on, "
                "with fewer --workers if it happens again"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):  # the second where it came while no result was waited for
            for process in active_children():
                if process not in others:
                    process.terminate()  # see `_end`; a shard may take long to come to its end
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _heeding_interrupts(once: bool = False) -> Iterator[Callable[[], None]]:
    """Ctrl-C raises KeyboardInterrupt, at the latest when the function given is called between two tasks.

    Python drops what is raised while an object is deleted, and goes on as if there had been no Ctrl-C.

    Args:
        once: heed the first only; another while workers are being stopped could leave them waiting.
    """
    pressed = False

    def interrupted(_: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if once and pressed:
            return
        pressed = True
        if not _in_deletion(frame):
            raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check  # the caller has a way of its own
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_deletion(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


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


@dataclass
class _Worker:
    at_work: bool = False
    told_to_end: bool = False


_worker = _Worker()  # of this process, where it is one


def _do(task: Task[Result]) -> Result:
    """What a worker is given. One that is told to end lets the task clear up, and has no result.

    The pool would hand an exception on as a result, and have the worker wait for the next task.
    """
    try:
        try:
            _worker.at_work = True
            if _worker.told_to_end:
                raise SystemExit
            return task.function(*task.arguments)
        finally:
            _worker.at_work = False
            if _worker.told_to_end:
                raise SystemExit
    except SystemExit:
        os._exit(1)


def _begin_worker() -> None:
    _end_with_parent()
    gc.freeze()  # what was imported stays; looking through it again and again took a build 3 % of its time
    signal.signal(signal.SIGTERM, _end)


def _end(_: int, frame: FrameType | None) -> None:
    """Handle the signal that tells a worker to end. The pool may send it again while a task clears up."""
    told_before, _worker.told_to_end = _worker.told_to_end, True
    if _worker.at_work:
        if not told_before and not _in_deletion(frame):
            raise SystemExit
    else:
        signal.alarm(1)  # ends the process; until then a result that is on its way can be sent whole


def _end_with_parent() -> None:
    """Make this worker end when its parent is killed: an orphan would write beside the next build."""

    def wait_for_the_end() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
