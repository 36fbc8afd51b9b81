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
from pathlib import Path

import pytest
from support import PROJECT
from support.folders import files_of, files_on
from support.object_store import ObjectStore
from support.processes import heed_interrupts, wait_for

import ImageNet3D
from ImageNet3D import RawTree
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
from processing.sample.command import write_sample
from processing.verify.command import verify

pytestmark = pytest.mark.slow

dask = pytest.importorskip("dask", reason="no Dask (the extra `dask`)")
distributed = pytest.importorskip("distributed", reason="no Dask (the extra `dask`)")

SIZE = "200KB"  # as of `built_sample`
DASK = [sys.executable, "-m", "dask"]
SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two real worker processes."""
    with two_slow_workers() as made:
        yield made.scheduler_address


def two_slow_workers() -> "distributed.LocalCluster":
    """A cluster of processes that take their time for a shard."""
    return distributed.LocalCluster(
        processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0", preload=[_SLOWER]
    )


# Loaded by workers: a shard takes long enough for a test to see it being written.
_SLOWER = """
import time
from processing.build import shards
def slower(*arguments, read_group=shards.read_group):
    time.sleep(0.15)
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
            time.sleep(0.001)

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
    def test_build(self, cluster: str, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        build(str(sample_folder), tmp_path / "out", scheduler=cluster, shard_size=SIZE)
        assert files_of(tmp_path / "out") == files_of(built_sample)
        assert not list((tmp_path / "out").rglob(f"*{store.UNFINISHED}"))

    def test_crop(self, cluster: str, sample_folder: Path, tmp_path: Path) -> None:
        write_crop_tree(str(sample_folder), tmp_path / "there", scheduler=cluster)
        write_crop_tree(str(sample_folder), tmp_path / "here", workers=1)
        crops = [files(tmp_path / name) for name in ("here", "there")]
        assert crops[0] == crops[1]
        assert len(crops[0]) > 20
        assert half_written(tmp_path / "there") == []

    def test_verify(self, cluster: str, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        out = shutil.copytree(built_sample, tmp_path / "out")
        assert verify(out, str(sample_folder), scheduler=cluster) == []
        shard = sorted(out.glob("pose/*.parquet"))[1]
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        problems = verify(out, str(sample_folder), scheduler=cluster)
        assert problems == verify(out, str(sample_folder), workers=1) != []

    def test_two_threads_a_worker(self, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        with distributed.LocalCluster(
            processes=True, n_workers=1, threads_per_worker=3, dashboard_address=":0"
        ) as made:
            build(str(sample_folder), tmp_path / "out", scheduler=made.scheduler_address, shard_size=SIZE)
        assert files_of(tmp_path / "out") == files_of(built_sample)

    def test_results_in_the_order_of_the_tasks(self, cluster: str, built_sample: Path) -> None:
        """Many more than are on their way at a time, the first of them the slowest."""
        tasks = [Task(nap, (number,), 1, str(number)) for number in range(200)]
        with connected(cluster) as client:
            results = list(
                run(tasks, None, "test", on_cluster(client, shared_view(built_sample / RUN, None)))
            )
        assert results == list(range(200))

    @pytest.mark.parametrize(("function", "error"), [(too_deep, "recursion"), (int, "invalid literal")])
    def test_what_a_task_raises(
        self, cluster: str, built_sample: Path, function: Callable[..., int], error: str
    ) -> None:
        tasks = [Task(function, ("x" if function is int else 0,), 1, "the task")]
        with connected(cluster) as client, pytest.raises((ValueError, RuntimeError), match=error):
            list(run(tasks, None, "test", on_cluster(client, shared_view(built_sample / RUN, None))))


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder of crops, without the bookkeeping."""
    paths = [path for split in ("train", "val") for path in (folder / split).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


class TestStore:
    def test_raw_and_out_on_a_store(self, s3: ObjectStore, bucket: str, tmp_path: Path) -> None:
        """No disk is shared, and a worker is killed when the first shard is on its way."""
        write_sample(tmp_path / "raw", categories=4, images_per_category=4)
        build(str(tmp_path / "raw"), tmp_path / "out", configs=["pose"], workers=1, shard_size="50KB")
        s3.fs.put(str(tmp_path / "raw"), f"{bucket}/raw", recursive=True)
        raw, out, crops = (f"s3://{bucket}/{name}" for name in ("raw", "out", "crops"))
        with two_slow_workers() as made:
            first = {worker.pid for worker in made.workers.values()}
            with ThreadPoolExecutor(1) as watch:
                killed = watch.submit(_kill_at, s3, f"{bucket}/out/pose/", min(first))
                build(raw, out, configs=["pose"], scheduler=made.scheduler_address, shard_size="50KB")
                killed.result()
            assert {worker.pid for worker in made.workers.values()} != first
            assert verify(out, raw, scheduler=made.scheduler_address) == []
            write_crop_tree(raw, crops, scheduler=made.scheduler_address)
        assert files_on(s3, f"{bucket}/out") == files_of(tmp_path / "out")
        write_crop_tree(str(tmp_path / "raw"), tmp_path / "crops", workers=1)
        assert files_on(s3, f"{bucket}/crops") == files(tmp_path / "crops")


def _kill_at(s3: ObjectStore, path: str, pid: int) -> None:
    """Kill a process as soon as a file below a path is being written."""
    while not s3.seen("POST", path) + s3.seen("PUT", path):
        time.sleep(0.01)
    kill(pid)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to find the worker at a shard in")
class TestWorkers:
    def test_killed_in_the_middle_of_a_shard(
        self, cluster: str, sample_folder: Path, built_sample: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with meanwhile(out, kill) as killed:
            build(str(sample_folder), out, scheduler=cluster, shard_size=SIZE)
        assert len(killed) == 1
        assert files_of(out) == files_of(built_sample)
        assert not list(out.rglob(f"*{store.UNFINISHED}")), "what the killed one left is removed"
        assert verify(out, str(sample_folder), scheduler=cluster) == []

    def test_one_that_stands_still(self, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        """Dask gives its shard to another when it has not been heard of; when it wakes up it does no harm."""
        out = tmp_path / "out"
        stopped: list[int] = []
        with dask.config.set({"distributed.scheduler.worker-ttl": "20s"}), two_slow_workers() as made:
            try:
                with meanwhile(out, lambda pid: os.kill(pid, signal.SIGSTOP)) as stopped:
                    build(str(sample_folder), out, scheduler=made.scheduler_address, shard_size=SIZE)
                assert stopped
                assert files_of(out) == files_of(built_sample)
            finally:
                for pid in stopped:
                    with suppress(ProcessLookupError):  # its nanny has ended it
                        os.kill(pid, signal.SIGCONT)
            wait_for(lambda: not processes_at_work(out))
        assert files_of(out) == files_of(built_sample)

    def test_killed_and_not_replaced(self, built_sample: Path, tmp_path: Path) -> None:
        """While all are busy there is one worker fewer than tasks on their way."""
        tasks = [Task(time.sleep, (2,), 1, str(number)) for number in range(4)]
        with (
            a_scheduler(tmp_path) as (file, _),
            a_worker(file),
            connected(file) as client,
            ExitStack() as second,
        ):
            second.enter_context(a_worker(file))
            client.wait_for_workers(2)
            threading.Timer(1, second.close).start()
            results = list(
                run(tasks, None, "test", on_cluster(client, shared_view(built_sample / RUN, None)))
            )
        assert results == [None] * 4

    def test_all_that_get_a_task_die(self, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        """The error names the shard; when the cause is gone, the same command goes on."""
        out, cause = tmp_path / "out", tmp_path / "cause"
        cause.write_text("")
        # Not the first: a worker that dies as it is started is given up by its nanny.
        cursed = max(path.stem for path in built_sample.glob(".build/done/train-*.json"))
        preload = tmp_path / "preload.py"
        preload.write_text(_DIES_AT.format(shard=cursed, cause=str(cause)))
        with a_scheduler(tmp_path) as (file, _), a_worker(file, "--preload", str(preload)):
            with pytest.raises(WorkerDiedError, match=f"{cursed}.*: 2 workers died at .*same command again"):
                build(str(sample_folder), out, scheduler=file, shard_size=SIZE)
            assert not (out / "README.md").exists()
            done = {path: path.stat().st_mtime_ns for path in out.glob(".build/done/[!.]*.json")}
            cause.unlink()
            build(str(sample_folder), out, scheduler=file, shard_size=SIZE)
        assert files_of(out) == files_of(built_sample)
        assert {path: path.stat().st_mtime_ns for path in done} == done


_DIES_AT = """
import os
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
    def test_lost_and_found_again(self, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        with (
            a_scheduler(tmp_path / "first") as (file, process),
            a_worker(file, "--preload", _SLOWER),
            meanwhile(out, lambda _: process.kill()),
            pytest.raises(ClusterError, match="scheduler was lost"),
        ):
            build(str(sample_folder), out, scheduler=file, shard_size=SIZE)
        assert not (out / "README.md").exists()
        with a_scheduler(tmp_path / "second") as (file, _), a_worker(file):
            build(str(sample_folder), out, scheduler=file, shard_size=SIZE)
        assert files_of(out) == files_of(built_sample)

    def test_none_there(self, sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import dask.config

        with (
            dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
            pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler answers there"),
        ):
            build(str(sample_folder), tmp_path / "out", scheduler="tcp://127.0.0.1:1")
        with pytest.raises(ClusterError, match="no such scheduler file"):
            build(str(sample_folder), tmp_path / "out", scheduler=str(tmp_path / "scheduler.json"))
        assert not (tmp_path / "out").exists()

    def test_of_another_version(self, sample_folder: Path, tmp_path: Path) -> None:
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
            build(str(sample_folder), tmp_path / "out", scheduler=file)
        assert not (tmp_path / "out").exists()

    def test_without_dask(self, sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(ClusterError, match=r'pip install "dask\[distributed\]"'):
            build(str(sample_folder), tmp_path / "out", scheduler="tcp://127.0.0.1:1")


class TestView:
    """A worker that sees other files or has other code is refused before it writes anything."""

    def test_out_is_not_shared(self, sample_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "mine/out"
        out.parent.mkdir()
        hidden = hide(out.parent)
        with (
            a_scheduler(tmp_path) as (file, _),
            a_worker(file, prefix=hidden),
            pytest.raises(ClusterError, match="OUT must be on storage that all machines share"),
        ):
            build(str(sample_folder), out, scheduler=file, shard_size=SIZE)
        assert list(out.glob("*/*.parquet")) == []

    def test_another_folder_at_the_same_path(self, sample_folder: Path, tmp_path: Path) -> None:
        """What an earlier build of the same input left on a worker's own disk is not taken for this one's."""
        out, other = tmp_path / "mine/out", tmp_path / "other"
        build(str(sample_folder), out, workers=1, shard_size=SIZE)
        shutil.copytree(tmp_path / "mine", other)
        with (
            a_scheduler(tmp_path) as (file, _),
            a_worker(file, prefix=hide(out.parent, behind=other)),
            pytest.raises(ClusterError, match="OUT must be on storage that all machines share"),
        ):
            build(str(sample_folder), out, scheduler=file, shard_size=SIZE)

    def test_raw_is_not_shared(self, sample_folder: Path, tmp_path: Path) -> None:
        """Else every picture would be left out as missing, and the build would succeed."""
        raw = shutil.copytree(sample_folder, tmp_path / "raw")
        with (
            a_scheduler(tmp_path) as (file, _),
            a_worker(file, prefix=hide(raw)),
            pytest.raises(ClusterError, match="RAW must be on storage that all machines share"),
        ):
            build(str(raw), tmp_path / "out", scheduler=file, shard_size=SIZE)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("# changed\n", "the code of ImageNet3D: .*install the same"),
            ("raise ModuleNotFoundError('No module named processing')\n", "cannot import.*pip install"),
        ],
    )
    def test_other_code(self, sample_folder: Path, tmp_path: Path, change: str, message: str) -> None:
        copy = tmp_path / "code"
        shutil.copytree(PROJECT / "processing", copy / "processing")
        shutil.copy(PROJECT / "ImageNet3D.py", copy)
        (copy / "processing/runtime/cluster.py").open("a").write(change)
        with (
            a_scheduler(tmp_path) as (file, _),
            a_worker(file, PYTHONPATH=os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])),
            pytest.raises(ClusterError, match=message),
        ):
            build(str(sample_folder), tmp_path / "out", scheduler=file, shard_size=SIZE)

    def test_every_remedy(self, sample_folder: Path, built_sample: Path) -> None:
        survey = ImageNet3D.survey(RawTree(str(sample_folder)))
        seen = observed(shared_view(built_sample / RUN, survey))
        assert {"pyarrow", "the code of ImageNet3D", str(built_sample / RUN)} < seen.keys()
        assert sum(what.startswith(str(sample_folder)) for what in seen) >= 8


def hide(folder: Path, behind: Path | None = None) -> list[str]:
    """What starts a process that sees an empty folder, or another one, in the stead of a folder."""
    mount = f"mount --bind {behind} {folder}" if behind else f"mount -t tmpfs tmpfs {folder}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no right to give a process its own view of the file system")
    return command


class TestReplaced:
    """A worker that a command has lost finishes its shard when another command has the folder."""

    def test_build(self, sample_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        survey = ImageNet3D.survey(RawTree(str(sample_folder)))
        build(str(sample_folder), out, workers=1, shard_size=SIZE, seed=1)
        before = files_of(out)
        shard = plan_shards(survey, 200_000)[0]
        earlier = Run(out, "the key of an earlier build")
        with pytest.raises(
            ReplacedError, match=f"{shard.name} is of a command that another one has replaced"
        ):
            shards.write_shard(survey.release, shard, ["pose"], earlier)
        assert files_of(out) == before
        assert verify(out, str(sample_folder), workers=1) == []

    def test_crop(self, sample_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        survey = ImageNet3D.survey(RawTree(str(sample_folder)))
        write_crop_tree(str(sample_folder), out, workers=1)
        before = files(out)
        entries = [e for e in survey.entries["train"] if e.category == survey.entries["train"][0].category]
        options = CropOptions("fit", (64, 64))
        with pytest.raises(ReplacedError, match="another one has replaced"):
            crop_tree.write_category(survey.release, entries, options, Run(out, "another key", ".crop"))
        assert files(out) == before

    def test_two_attempts_at_once(self, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        """A slow worker's and its replacement's, with the same process id: here in two threads."""
        out = shutil.copytree(built_sample, tmp_path / "out")
        survey = ImageNet3D.survey(RawTree(str(sample_folder)))
        work = Run(out, read_run(out).key)
        shard = plan_shards(survey, 200_000)[0]
        tables = ["pose", "classification", "captions", "object_centric"]
        for _ in range(3):
            (out / f".build/done/{shard.name}.json").unlink()
            with ThreadPoolExecutor(2) as pool:
                attempts = [
                    pool.submit(shards.write_shard, survey.release, shard, tables, work) for _ in range(2)
                ]
            assert attempts[0].result() == attempts[1].result()
            assert files_of(out) == files_of(built_sample)


class TestCommandLine:
    def test_code_is_imported_from_scratch(
        self, sample_folder: Path, built_sample: Path, tmp_path: Path
    ) -> None:
        """Scheduler, workers and command are processes of their own, in folders of their own."""
        out = tmp_path / "out"
        with a_scheduler(tmp_path) as (file, _), ExitStack() as workers:
            for _ in range(2):
                workers.enter_context(a_worker(file))
            done = command("build", sample_folder, out, "--scheduler", file, "--shard-size", SIZE)
            assert (done.returncode, done.stderr) == (0, "")
            assert files_of(out) == files_of(built_sample)
            done = command("verify", out, "--raw", sample_folder, "--scheduler", file)
            assert (done.returncode, done.stderr) == (0, "")

    def test_a_relative_folder(self, cluster: str, sample_folder: Path, tmp_path: Path) -> None:
        done = command(
            "crop", os.path.relpath(sample_folder, tmp_path), "out", "--scheduler", cluster, cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(files(tmp_path / "out")) > 20

    def test_ctrl_c(self, cluster: str, sample_folder: Path, built_sample: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        process = subprocess.Popen(
            arguments("build", sample_folder, out, "--scheduler", cluster, "--shard-size", SIZE),
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        wait_for(lambda: list(out.glob(".build/done/[!.]*.json")), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert errors.splitlines() == ["Error: interrupted; run the same command again to go on"]
        assert process.returncode == 1
        with distributed.Client(cluster, set_as_default=False) as client:
            wait_for(lambda: not any(client.processing().values()))
            assert len(client.nthreads()) == 2
        assert not (out / "README.md").exists()
        build(str(sample_folder), out, scheduler=cluster, shard_size=SIZE)
        assert files_of(out) == files_of(built_sample)

    def test_wrong_usage(self, tmp_path: Path) -> None:
        done = command("build", tmp_path, tmp_path / "out", "--scheduler", "tcp://a:1", "--workers", "2")
        assert done.returncode == 2
        done = command("build", tmp_path, tmp_path / "out", "--scheduler", "nothing")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: nothing: no such scheduler file")


def arguments(*words: object) -> list[str]:
    return [sys.executable, "-m", "processing", *map(str, words)]


def command(*words: object, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(*words), cwd=cwd, capture_output=True, text=True, timeout=120)
