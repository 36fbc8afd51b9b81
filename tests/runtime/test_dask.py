"""Build, crop and verify on a Dask cluster: bytes as of a local build, whatever becomes of workers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support import PROJECT
from support.folders import files_of, files_on
from support.object_store import ObjectStore
from support.processes import heed_interrupts, wait_for
from support.raw_tree import TOP, RawTreeWriter

import ImageNet3D
from ImageNet3D import RawTree
from processing.__main__ import main
from processing.build import shards
from processing.build.command import build
from processing.build.plan import plan_shards
from processing.built import RUN
from processing.crop import command as crop_tree
from processing.crop.command import write_crop_tree
from processing.crop.place import CropOptions
from processing.run import ReplacedError, Run, read_run
from processing.runtime import store
from processing.runtime.cluster import connected, observed, on_cluster, shared_view
from processing.runtime.store import half_written
from processing.runtime.tasks import ClusterError, Task, WorkerDiedError, run
from processing.verify.command import verify

pytestmark = pytest.mark.slow

dask = pytest.importorskip("dask", reason="no Dask (the extra `dask`)")
distributed = pytest.importorskip("distributed", reason="no Dask (the extra `dask`)")

OPTIONS = {"configs": ["classification", "object_centric"], "shard_size": "3KB"}  # nine shards
DASK = [sys.executable, "-m", "dask"]
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


@pytest.fixture(scope="module")
def tree() -> RawTreeWriter:
    """Two categories, of which one is held out."""
    writer = RawTreeWriter()
    for category in ("bed", "kettle"):
        writer.sound(category, tuple("abcdefghi"), tuple("vwxyz"))
    return writer.captions({f"bed/{stem}": "a bed" for stem in "abcdefghivwxyz"})


@pytest.fixture(scope="module")
def raw(tree: RawTreeWriter, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small release."""
    return tree.folder(tmp_path_factory.mktemp("dask") / "raw")


@pytest.fixture(scope="module")
def built(raw: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this machine alone builds of it."""
    out = tmp_path_factory.mktemp("dask") / "out"
    build(raw, out, workers=1, **OPTIONS)
    return out


@pytest.fixture(scope="module")
def cluster(s3: ObjectStore) -> Iterator["distributed.LocalCluster"]:
    """Two worker processes that take their time for a shard; they know the store."""
    with (
        dask.config.set(
            {"distributed.scheduler.worker-ttl": "10s", "distributed.worker.profile.enabled": False}
        ),
        distributed.LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0", preload=[_SLOWER]
        ) as made,
    ):
        yield made


@pytest.fixture
def address(cluster: "distributed.LocalCluster") -> str:
    """Of the cluster, with at least two workers, whatever became of others before."""
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        wait_for(lambda: len(client.scheduler_info()["workers"]) >= 2)
    return cluster.scheduler_address


@pytest.fixture(scope="module")
def lone_scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scheduler(tmp_path_factory.mktemp("scheduler")) as (file, _):
        yield file


@pytest.fixture
def scheduler(lone_scheduler: str) -> str:
    """The file of a scheduler that the command line started; the workers of others are gone."""
    with distributed.Client(scheduler_file=lone_scheduler, set_as_default=False) as client:
        wait_for(lambda: not client.scheduler_info()["workers"])
    return lone_scheduler


# Loaded by workers: a shard takes long enough for a test to see it being written.
_SLOWER = """
import time
from processing.build import shards
def slower(*arguments, read_group=shards.read_group):
    time.sleep(0.2)
    return read_group(*arguments)
if shards.read_group.__name__ != "slower":  # a preload may be loaded twice
    shards.read_group = slower
"""


@contextmanager
def a_scheduler(folder: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The path of the file of a scheduler that the command line starts, and its process."""
    file = folder / "scheduler.json"
    command = [*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"]
    with a_process([*command, "--scheduler-file", str(file)], folder, variables) as process:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"), process)
        yield str(file), process


@contextmanager
def a_worker(file: str, *options: str, prefix: Sequence[str] = (), **variables: str) -> Iterator[None]:
    """A worker that the command line starts, in a folder of its own."""
    folder = Path(file).parent / f"worker-{time.monotonic_ns()}"
    folder.mkdir()
    command = [*prefix, *DASK, "worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard"]
    with a_process([*command, *options], folder, variables):
        yield


@contextmanager
def a_process(
    command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A process in a session of its own, ended with all that it started."""
    with (folder / "log.txt").open("wb") as log:
        environment = {**os.environ, **SETTINGS, **(variables or {})}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def processes_at_work(out: Path) -> list[int]:
    """The processes that are writing a shard at this moment; this one writes what tells of them."""
    found = []
    if not list(out.rglob(f"*{store.UNFINISHED}")):
        return found
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        if int(link.parts[2]) == os.getpid():
            continue
        try:
            target = str(link.readlink())
            if target.startswith(f"{out}/") and target.endswith(store.UNFINISHED):
                found.append(int(link.parts[2]))
        except OSError:
            continue
    return found


@contextmanager
def meanwhile(out: Path, event: Callable[[int], object]) -> Iterator[list[int]]:
    """Let something happen to the first process that is seen in the middle of a shard; to which."""
    happened: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not happened:
            for pid in processes_at_work(out)[:1]:
                os.kill(pid, signal.SIGSTOP)  # it may have finished the shard since
                if pid in processes_at_work(out):
                    event(pid)
                    happened.append(pid)
                else:
                    os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield happened
    finally:
        over.set()
        thread.join()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def too_deep(number: int) -> int:
    return too_deep(number + 1)


def nap(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number


class TestSameBytes:
    def test_build_verify_and_crop(self, address: str, raw: str, tmp_path: Path) -> None:
        for name, where in (("here", {"workers": 1}), ("there", {"scheduler": address})):
            build(raw, tmp_path / name, shard_size="10KB", **where)
            write_crop_tree(raw, tmp_path / f"crops-{name}", **where)
        out, crops = tmp_path / "there", tmp_path / "crops-there"
        assert files_of(out) == files_of(tmp_path / "here")
        assert crops_of(crops) == crops_of(tmp_path / "crops-here")
        assert len(crops_of(crops)) > 20
        assert half_written(out) + half_written(crops) == []
        assert verify(out, raw, scheduler=address) == []
        shard = sorted(out.glob("pose/*.parquet"))[1]
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        problems = verify(out, raw, scheduler=address)
        assert problems == verify(out, raw, workers=1) != []

    def test_two_threads_a_worker(self, raw: str, built: Path, tmp_path: Path) -> None:
        with distributed.LocalCluster(
            processes=False, n_workers=1, threads_per_worker=3, dashboard_address=":0"
        ) as made:
            build(raw, tmp_path / "out", scheduler=made.scheduler_address, **OPTIONS)
        assert files_of(tmp_path / "out") == files_of(built)

    def test_results_in_the_order_of_the_tasks(self, address: str, built: Path) -> None:
        """Many more than are on their way at a time, the first of them the slowest."""
        tasks = [Task(nap, (number,), 1, str(number)) for number in range(200)]
        with connected(address) as client:
            results = list(run(tasks, None, "test", on_cluster(client, shared_view(built / RUN, None))))
        assert results == list(range(200))

    @pytest.mark.parametrize(("function", "error"), [(too_deep, "recursion"), (int, "invalid literal")])
    def test_what_a_task_raises(
        self, address: str, built: Path, function: Callable[..., int], error: str
    ) -> None:
        tasks = [Task(function, ("x" if function is int else 0,), 1, "the task")]
        with connected(address) as client, pytest.raises((ValueError, RuntimeError), match=error):
            list(run(tasks, None, "test", on_cluster(client, shared_view(built / RUN, None))))


def crops_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder of crops, without the bookkeeping."""
    paths = [path for split in ("train", "val") for path in (folder / split).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


class TestStore:
    def test_raw_and_out_on_a_store(
        self, address: str, tree: RawTreeWriter, raw: str, built: Path, s3: ObjectStore, tmp_path: Path
    ) -> None:
        """No disk is shared."""
        bucket = s3.bucket()
        s3.fs.pipe({f"{bucket}/raw/{TOP}{name}": data for name, data in tree.files.items()})
        there, out, crops = (f"s3://{bucket}/{name}" for name in ("raw", "out", "crops"))
        build(there, out, scheduler=address, **OPTIONS)
        assert files_on(s3, f"{bucket}/out") == files_of(built)
        assert verify(out, there, scheduler=address) == []
        write_crop_tree(there, crops, scheduler=address)
        write_crop_tree(raw, tmp_path / "crops", workers=1)
        assert files_on(s3, f"{bucket}/crops") == crops_of(tmp_path / "crops")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to find the worker at a shard in")
class TestWorkers:
    def test_killed_in_the_middle_of_a_shard(
        self, address: str, raw: str, built: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with meanwhile(out, kill) as killed:
            build(raw, out, scheduler=address, **OPTIONS)
        assert len(killed) == 1
        assert files_of(out) == files_of(built)
        assert not list(out.rglob(f"*{store.UNFINISHED}")), "what the killed one left is removed"

    def test_one_that_stands_still(
        self, cluster: "distributed.LocalCluster", address: str, raw: str, built: Path, tmp_path: Path
    ) -> None:
        """Dask gives its shard to another when it has not been heard of; when it wakes up it does no harm."""
        out = tmp_path / "out"
        stopped: list[int] = []
        try:
            with meanwhile(out, lambda pid: os.kill(pid, signal.SIGSTOP)) as stopped:
                build(raw, out, scheduler=address, **OPTIONS)
            assert stopped
            assert files_of(out) == files_of(built)
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):  # its nanny has ended it
                    os.kill(pid, signal.SIGCONT)
            # In case its nanny has not replaced it.
            cluster.scale(len(cluster.worker_spec) + len(stopped))
        wait_for(lambda: not processes_at_work(out))
        assert files_of(out) == files_of(built)

    def test_killed_and_not_replaced(self, scheduler: str, built: Path) -> None:
        """While all are busy there is one worker fewer than tasks on their way."""
        tasks = [Task(time.sleep, (1.5,), 1, str(number)) for number in range(4)]
        with (
            a_worker(scheduler, "--no-nanny"),
            connected(scheduler) as client,
            ExitStack() as second,
        ):
            second.enter_context(a_worker(scheduler, "--no-nanny"))
            client.wait_for_workers(2)
            threading.Timer(0.5, second.close).start()
            results = list(run(tasks, None, "test", on_cluster(client, shared_view(built / RUN, None))))
        assert results == [None] * 4

    def test_all_that_get_a_task_die(self, scheduler: str, raw: str, built: Path, tmp_path: Path) -> None:
        """The error names the shard; when the cause is gone, the same command goes on."""
        out, cause = tmp_path / "out", tmp_path / "cause"
        cause.write_text("")
        # Not the first: a worker that dies as it is started is given up by its nanny.
        cursed = max(path.stem for path in built.glob(".build/done/train-*.json"))
        preload = tmp_path / "preload.py"
        preload.write_text(_DIES_AT.format(shard=cursed, cause=str(cause)))
        with a_worker(scheduler, "--preload", str(preload)):
            with pytest.raises(WorkerDiedError, match=f"{cursed}.*: 2 workers died at .*same command again"):
                build(raw, out, scheduler=scheduler, **OPTIONS)
            assert not (out / "README.md").exists()
            done = {path: path.stat().st_mtime_ns for path in out.glob(".build/done/[!.]*.json")}
            assert done
            cause.unlink()
            build(raw, out, scheduler=scheduler, **OPTIONS)
        assert files_of(out) == files_of(built)
        assert {path: path.stat().st_mtime_ns for path in done} == done


_DIES_AT = """
import os
from functools import partial
from pathlib import Path
from processing.build import shards
def dies(release, group, configs, result, read_group=shards.read_group):
    if result.name == "{shard}" and Path("{cause}").exists():
        os._exit(1)
    return read_group(release, group, configs, result)
if shards.read_group.__name__ != "dies":  # a preload may be loaded twice
    shards.read_group = dies
"""


class TestScheduler:
    def test_lost_and_found_again(self, address: str, raw: str, built: Path, tmp_path: Path) -> None:
        """Before that, scheduler, worker and command are processes of their own, in folders of their own."""
        out = tmp_path / "out"
        with a_scheduler(tmp_path) as (file, process), a_worker(file, "--no-nanny", "--preload", _SLOWER):
            with distributed.Client(scheduler_file=file, set_as_default=False) as client:
                client.wait_for_workers(1)  # or the command says that it waits for one
            first = arguments("build", raw, tmp_path / "first", "--scheduler", file)
            done = subprocess.run(first, cwd=PROJECT, capture_output=True, text=True, timeout=300)
            assert (done.returncode, done.stderr) == (0, "")
            assert files_of(tmp_path / "first") == files_of(built)
            with (
                meanwhile(out, lambda _: process.kill()),
                pytest.raises(ClusterError, match="scheduler was lost"),
            ):
                build(raw, out, scheduler=file, **OPTIONS)
        assert not (out / "README.md").exists()
        build(raw, out, scheduler=address, **OPTIONS)
        assert files_of(out) == files_of(built)

    def test_without_workers_yet(
        self, scheduler: str, built: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It says what it waits for, and goes on when one comes."""
        task = Task(abs, (-1,), 1, "one")
        with connected(scheduler) as client, ExitStack() as workers:
            start = partial(workers.enter_context, a_worker(scheduler, "--no-nanny"))
            timer = threading.Timer(0.5, start)
            timer.start()
            results = list(run([task], None, "test", on_cluster(client, shared_view(built / RUN, None))))
            timer.join()
        assert results == [1]
        assert capsys.readouterr().err.endswith(": has no worker; waiting for one\n")

    def test_none_there(self, raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import dask.config

        with (
            dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
            pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler answers there"),
        ):
            build(raw, tmp_path / "out", scheduler="tcp://127.0.0.1:1")
        with pytest.raises(ClusterError, match="no such scheduler file"):
            build(raw, tmp_path / "out", scheduler=str(tmp_path / "scheduler.json"))
        assert not (tmp_path / "out").exists()

    def test_of_another_version(self, raw: str, tmp_path: Path) -> None:
        installed = tmp_path / "other/distributed-2024.1.0.dist-info"
        installed.mkdir(parents=True)
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: distributed\nVersion: 2024.1.0\n")
        (installed / "entry_points.txt").write_text(
            "[dask_cli]\nscheduler = distributed.cli.dask_scheduler:main\n"
        )
        with (
            a_scheduler(tmp_path, PYTHONPATH=str(tmp_path / "other")) as (file, _),
            pytest.raises(ClusterError, match=r"the scheduler has Dask 2024\.1\.0, .*install the same"),
        ):
            build(raw, tmp_path / "out", scheduler=file)
        assert not (tmp_path / "out").exists()

    def test_without_dask(self, raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(ClusterError, match=r'pip install "dask\[distributed\]"'):
            build(raw, tmp_path / "out", scheduler="tcp://127.0.0.1:1")


class TestView:
    """A worker that sees other files or has other code is refused before it writes anything."""

    def test_folders_are_not_shared(self, scheduler: str, raw: str, built: Path, tmp_path: Path) -> None:
        """RAW, else every picture would be left out as missing, and the build would succeed; and OUT.

        Nor is what an earlier build of the same input left on a worker's own disk taken for this one's.
        """
        hidden_raw, empty, begun = tmp_path / "raw", tmp_path / "empty/out", tmp_path / "mine/out"
        shutil.copytree(raw, hidden_raw)
        empty.parent.mkdir()
        shutil.copytree(built, begun)
        other = shutil.copytree(begun.parent, tmp_path / "other")
        hidden = [*hide(hidden_raw), *hide(empty.parent), *hide(begun.parent, behind=other)]
        with a_worker(scheduler, "--no-nanny", prefix=hidden):
            for its_raw, out, name in (
                (hidden_raw, tmp_path / "out", "RAW"),
                (raw, empty, "OUT"),
                (raw, begun, "OUT"),
            ):
                with pytest.raises(ClusterError, match=f"{name} must be on storage that all machines share"):
                    build(str(its_raw), out, scheduler=scheduler, **OPTIONS)
        assert list(empty.glob("*/*.parquet")) == []

    def test_other_code(self, scheduler: str, raw: str, tmp_path: Path) -> None:
        copy = tmp_path / "code"
        shutil.copytree(PROJECT / "processing", copy / "processing")
        shutil.copy(PROJECT / "ImageNet3D.py", copy)
        module = copy / "processing/runtime/cluster.py"
        sound = module.read_text("utf-8")
        path = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
        module.write_text("raise ModuleNotFoundError('No module named processing')", "utf-8")
        with a_worker(scheduler, "--no-nanny", PYTHONPATH=path):
            with pytest.raises(ClusterError, match=r"cannot import.*pip install"):
                build(raw, tmp_path / "out", scheduler=scheduler, **OPTIONS)
            module.write_text(f"{sound}\n# changed\n", "utf-8")
            with pytest.raises(ClusterError, match=r"the code of ImageNet3D: .*install the same"):
                build(raw, tmp_path / "out", scheduler=scheduler, **OPTIONS)

    def test_every_remedy(self, raw: str, built: Path) -> None:
        survey = ImageNet3D.survey(RawTree(raw))
        seen = observed(shared_view(built / RUN, survey))
        assert {"pyarrow", "the code of ImageNet3D", str(built / RUN)} < seen.keys()
        assert sum(what.startswith(raw) for what in seen) >= 8


def hide(folder: Path, behind: Path | None = None) -> list[str]:
    """What starts a process that sees an empty folder, or another one, in the stead of a folder."""
    mount = f"mount --bind {behind} {folder}" if behind else f"mount -t tmpfs tmpfs {folder}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no right to give a process its own view of the file system")
    return command


class TestReplaced:
    """A worker that a command has lost finishes its shard when another command has the folder."""

    def test_build(self, raw: str, tmp_path: Path) -> None:
        out = tmp_path / "out"
        survey = ImageNet3D.survey(RawTree(raw))
        build(raw, out, workers=1, seed=1, **OPTIONS)
        before = files_of(out)
        shard = plan_shards(survey, 3_000)[0]
        earlier = Run(out, "the key of an earlier build")
        with pytest.raises(
            ReplacedError, match=f"{shard.name} is of a command that another one has replaced"
        ):
            shards.write_shard(survey.release, shard, ["classification"], earlier)
        assert files_of(out) == before
        assert verify(out, raw, workers=1) == []

    def test_crop(self, raw: str, tmp_path: Path) -> None:
        out = tmp_path / "out"
        survey = ImageNet3D.survey(RawTree(raw))
        write_crop_tree(raw, out, workers=1)
        before = crops_of(out)
        entries = [e for e in survey.entries["train"] if e.category == survey.entries["train"][0].category]
        options = CropOptions("fit", (64, 64))
        with pytest.raises(ReplacedError, match="another one has replaced"):
            crop_tree.write_category(survey.release, entries, options, Run(out, "another key", ".crop"))
        assert crops_of(out) == before

    def test_two_attempts_at_once(self, raw: str, built: Path, tmp_path: Path) -> None:
        """A slow worker's and its replacement's, with the same process id: here in two threads."""
        out = shutil.copytree(built, tmp_path / "out")
        survey = ImageNet3D.survey(RawTree(raw))
        work = Run(out, read_run(out).key)
        shard = plan_shards(survey, 3_000)[0]
        tables = OPTIONS["configs"]
        for _ in range(3):
            (out / f".build/done/{shard.name}.json").unlink()
            with ThreadPoolExecutor(2) as pool:
                attempts = [
                    pool.submit(shards.write_shard, survey.release, shard, tables, work) for _ in range(2)
                ]
            assert attempts[0].result() == attempts[1].result()
            assert files_of(out) == files_of(built)


class TestCommandLine:
    def test_crop_and_verify(
        self, address: str, raw: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = command("crop", os.path.relpath(raw, tmp_path), "out", "--scheduler", address)
        assert (done.exit_code, done.stderr) == (0, "")
        assert len(crops_of(tmp_path / "out")) > 20
        done = command("verify", built, "--raw", raw, "--scheduler", address)
        assert (done.exit_code, done.stderr) == (0, "")

    def test_ctrl_c(self, address: str, raw: str, built: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        process = subprocess.Popen(
            arguments("build", raw, out, "--scheduler", address),
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        wait_for(lambda: list(out.glob(".build/done/[!.]*.json")), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert errors.splitlines() == ["Error: interrupted; run the same command again to go on"]
        assert process.returncode == 1
        with distributed.Client(address, set_as_default=False) as client:
            workers = set(client.nthreads())
            wait_for(lambda: not any(client.processing().values()))
            assert workers <= set(client.nthreads())
        assert not (out / "README.md").exists()
        build(raw, out, scheduler=address, **OPTIONS)
        assert files_of(out) == files_of(built)

    def test_wrong_usage(self, tmp_path: Path) -> None:
        done = command("build", tmp_path, tmp_path / "out", "--scheduler", "tcp://a:1", "--workers", "2")
        assert done.exit_code == 2
        done = command("build", tmp_path, tmp_path / "out", "--scheduler", "nothing")
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: nothing: no such scheduler file")


def arguments(*words: object) -> list[str]:
    options = [f"--config={name}" for name in OPTIONS["configs"]]
    return [
        *(sys.executable, "-m", "processing", *map(str, words)),
        *options,
        *("--shard-size", OPTIONS["shard_size"]),
    ]


def command(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))
