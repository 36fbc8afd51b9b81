"""Runs tasks on a Dask cluster of any kind: processes of this machine, Slurm, Kubernetes.

A task is a shard. What a worker makes is in the folder and what it returns is small, so that nothing is lost
with a worker but the shard it was at, which the scheduler gives to another. A worker whose code or whose view
of the files is not that of this process is refused before its first task: it would write other bytes, or take
a release that it does not see for missing pictures.
"""

import asyncio
import hashlib
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import ImageNet3D
from ImageNet3D import MAX_ANNOTATION_BYTES, RawTree, Survey, Unusable
from processing.crop import pixels
from processing.runtime.fingerprint import code_fingerprint
from processing.runtime.paths import Place
from processing.runtime.store import attempt
from processing.runtime.tasks import ClusterError, Elsewhere, Result, Results, Task, WorkerDiedError

if TYPE_CHECKING:
    from distributed import Client, Future

WITNESSES = 8  # annotations of the release that a worker must read as they are read here


@dataclass(frozen=True)
class View:
    """What every worker must see as this process does.

    Attributes:
        file: a file in the folder of the command, which is there already.
        tree: the raw release, if the command reads it.
        names: some of its files.
    """

    file: Place
    tree: RawTree | None = None
    names: tuple[str, ...] = ()


def shared_view(file: Place, survey: Survey | None) -> View:
    """A file of the folder, and some annotations from all over the release."""
    if survey is None:
        return View(file)
    entries = [entry for split in survey.entries.values() for entry in split if entry.size]
    some = entries[:: max(1, len(entries) // WITNESSES)][:WITNESSES]
    return View(file, survey.release.tree, tuple(entry.annotation_file for entry in some))


@contextmanager
def connected(scheduler: str | None) -> "Iterator[Client | None]":
    """A connection to a cluster; None without a scheduler.

    Args:
        scheduler: an address such as tcp://host:8786, or the path of a scheduler file.

    Raises:
        ClusterError: if Dask is not installed, no scheduler answers there, or one of another version.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError(
            '--scheduler needs Dask: pip install "dask[distributed]", in the version that the cluster has'
        ) from None
    is_file = Path(scheduler).is_file()
    if not is_file and ":" not in scheduler:
        raise ClusterError(f"{scheduler}: no such scheduler file, and no address such as tcp://host:8786")
    place = {"scheduler_file" if is_file else "address": scheduler}
    try:
        client = Client(**place, name="ImageNet3D", set_as_default=False)
    except Exception as error:  # one of another version may answer anything
        raise ClusterError(
            f"{scheduler}: no Dask scheduler answers there, or one of another version ({error}); start one, "
            "or correct the address"
        ) from error
    with client:
        _refuse_other_dask(client)
        yield client


def _refuse_other_dask(client: "Client") -> None:
    """Scheduler and workers of another version than this process's may wait for each other for ever."""
    versions: Any = client.get_versions()
    mine = versions["client"]["packages"]["distributed"]
    for who, found in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        if (theirs := found["packages"]["distributed"]) != mine:
            raise ClusterError(
                f"{_address(client)}: {who} has Dask {theirs}, this command has {mine}; "
                "install the same on all machines"
            )


def _address(client: "Client") -> str:
    return str(client.scheduler.address) if client.scheduler else "the scheduler"


def on_cluster(client: "Client | None", view: View) -> Elsewhere | None:
    """The way in which `tasks.run` has a cluster do the work."""
    return None if client is None else partial(_run, client, view)


def _run(client: "Client", view: View, tasks: Sequence[Task[Result]]) -> Results[Result]:
    """Do all tasks: the number of a task and its result, as they come.

    Leaving early cancels what is queued. A task that a worker is at goes on there: what it finishes, the next
    run of the same command need not do again, and a folder that another command has begun it leaves alone.

    Raises:
        ClusterError: if the scheduler is lost, or a worker has another view or other code.
        WorkerDiedError: if the workers that are given one task go on dying. What a task raises is raised.
    """
    from distributed import as_completed

    if not client.nthreads():
        tqdm.write(f"{_address(client)}: has no worker; waiting for one", file=sys.stderr)
    expected, waiting = observed(view), iter(enumerate(tasks))
    running: dict[Future, int] = {}

    def begin(count: int) -> "list[Future]":
        """Give tasks to the cluster: a few at a time, for the list of a release's files goes with each."""
        begun = []
        for number, task in islice(waiting, count):
            call = pickle.dumps(_Call(view, expected, task))
            key = f"{task.function.__name__}-{attempt()}"  # which Dask's logs and pages show
            begun.append(client.submit(pickle.loads, call, key=key, pure=False))
            running[begun[-1]] = number
        return begun

    try:
        done = as_completed(begin(2), loop=client.loop)
        for future in done:
            number = running.pop(future)
            suspects = partial(_suspects, client, running, tasks)
            yield number, _result(client, future, tasks[number].name, suspects)
            done.update(begin(max(1, 2 * sum(client.nthreads().values()) - len(running))))
    finally:
        with suppress(Exception):  # of a scheduler that is gone
            client.cancel(list(running))


def _suspects(client: "Client", running: "Mapping[Future, int]", tasks: Sequence[Task[Any]]) -> list[str]:
    """The names of the other tasks that the scheduler has given up.

    A worker holds a task or two beside the one it is at, and the scheduler blames all of them for its death.
    """
    client.sync(asyncio.sleep, 0)  # what came in one message with the first is known then
    return [tasks[number].name for future, number in running.items() if future.status == "error"]


def _result(client: "Client", future: "Future", name: str, suspects: Callable[[], list[str]]) -> Any:
    from distributed import CancelledError, KilledWorker

    address = _address(client)
    try:
        return future.result()
    except KilledWorker as error:
        others = suspects()
        raise WorkerDiedError(
            f"{', '.join([name, *others])}: {error.allowed_failures + 1} workers died at "
            f"{'one of these' if others else 'it'}, the last on {error.last_worker.address}, perhaps for "
            "want of memory; look at their logs, give workers more memory, and run the same command again"
        ) from error
    except (ImportError, AttributeError) as error:
        if isinstance(error, AttributeError) and "Can't get attribute" not in str(error):
            raise
        raise ClusterError(
            f"a worker of {address} cannot import this command's code ({error}); install it on all machines: "
            "pip install --editable . in the folder of this project"
        ) from error
    except CancelledError as error:
        raise ClusterError(
            f"{address}: the scheduler was lost; start it again, and run the same command again"
        ) from error


# --------------------------------------------------------------------------------------------------------
# On a worker
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A task in a form that any worker and the scheduler take: to unpickle it is to do it.

    A function of this module would make a worker that cannot import it end, without a word to anybody.
    """

    view: View
    expected: Mapping[str, str]
    task: Task[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return perform, (self.view, self.expected, self.task.function, self.task.arguments)


def perform(
    view: View, expected: Mapping[str, str], function: Callable[..., Result], arguments: tuple[Any, ...]
) -> Result:
    """Do a task in a worker, which looks around first if it has not yet.

    Args:
        expected: what it must see, as of `observed`.

    Raises:
        ClusterError: if this process sees anything else.
    """
    _look_around(view, expected)
    try:
        return function(*arguments)
    except RecursionError as error:
        message = f"{function.__name__}: {error}"
    raise RuntimeError(message)  # Dask cannot send so deep a traceback, and would wait for it for ever


_alike: set[tuple[tuple[str, str], ...]] = set()  # what this worker has compared and found the same


def _look_around(view: View, expected: Mapping[str, str]) -> None:
    key = tuple(expected.items())
    if key in _alike:
        return
    seen = observed(view)
    for what, state in expected.items():
        if seen[what] != state:
            raise ClusterError(
                f"{what}: a worker on {socket.gethostname()} has {seen[what]}, this command has {state}; "
                + _remedy(what, view)
            )
    _alike.add(key)


def _remedy(what: str, view: View) -> str:
    if what == str(view.file):
        return "OUT must be on storage that all machines share, under the same path"
    if view.tree is not None and what.startswith(view.tree.path):
        return "RAW must be on storage that all machines share, under the same path"
    return "install the same on all machines"


def observed(view: View) -> dict[str, str]:
    """What this process sees of all that a result depends on: what -> its state."""
    seen = {"the code of ImageNet3D": code_fingerprint()[:12], **_versions()}
    try:
        seen[str(view.file)] = _digest(view.file.read_bytes())
    except OSError as error:
        seen[str(view.file)] = str(error.strerror)
    if (tree := view.tree) is None:
        return seen
    for name in view.names:
        try:
            data = tree.read(name, MAX_ANNOTATION_BYTES, "annotation_too_large")
            state = _digest(data)
        except (OSError, Unusable, ImageNet3D.ReleaseError) as error:
            state = "no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
        seen[f"{tree.path}: {name}"] = state
    return seen


def _versions() -> dict[str, str]:
    """The packages that bytes depend on."""
    names = ("pyarrow", "datasets", "numpy")
    return {
        **{name: metadata.version(name) for name in names},
        "Pillow and its resizer": str(pixels.libraries()),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
