"""A build that is killed, interrupted, out of disk or run twice ends in the bytes of an undisturbed one."""

import functools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support import PROJECT
from support.processes import heed_interrupts, wait_for
from support.raw_tree import RawTreeWriter, an_object

from processing.build import command as building
from processing.build import shards
from processing.build.command import build
from processing.run import BuildError
from processing.runtime import fingerprint, store
from processing.runtime.tasks import Task

pytestmark = pytest.mark.slow

SIZE = "60KB"
# With one figure in the place of eight, and without crops; `TestSameBytes` builds all configs.
OPTIONS: dict[str, Any] = {"configs": ["classification", "captions", "cad", "categories"], "shard_size": SIZE}
MOMENTS = 4
TWO_WORKERS = 2  # of these, with worker processes, which take longer to start

Published = dict[str, bytes]


def noise(seed: int, path: Path) -> bytes:
    """A picture of some 20 KB that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=85)
    return path.read_bytes()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> RawTreeWriter:
    """Enough pictures for dozens of shards of both kinds."""
    scratch = tmp_path_factory.mktemp("scratch") / "picture"
    writer = RawTreeWriter()
    for place, category in enumerate(("bed", "ax", "kettle", "chair")):
        stems = [f"n{i:02d}" for i in range(20)]
        writer.sound(category, tuple(stems[:15]), tuple(stems[15:]))
        for i, stem in enumerate(stems):
            writer.picture(category, stem, noise(100 * place + i, scratch))
            if i % 10:  # without a status there is no crop, which would take most of the time
                writer.annotation(category, stem, an_object(category, object_status=...))
    return writer.captions({f"bed/n{i:02d}": f"bed {i}" for i in range(0, 20, 2)})


@pytest.fixture(scope="module")
def raw(tree: RawTreeWriter, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tree.zip(tmp_path_factory.mktemp("release") / "raw.zip")


@pytest.fixture(scope="module")
def undisturbed(raw: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return fresh(raw, tmp_path_factory.mktemp("undisturbed"))


def fresh(raw: str, folder: Path, **options: Any) -> Published:
    """What a build into a new folder publishes."""
    build(raw, folder / "fresh", workers=1, **{**OPTIONS, **options})
    return published(folder / "fresh")


def published(out: Path) -> Published:
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if not name.startswith(".build/")}


def command(
    raw: str, out: Path, workers: int = 1, python: str = sys.executable, configs: Sequence[str] = ()
) -> list[str]:
    options = ["--workers", str(workers), "--shard-size", SIZE, *(f"--config={name}" for name in configs)]
    return [python, "-m", "processing", "build", raw, str(out), *options]


def start(raw: str, out: Path, workers: int = 1, **options: Any) -> subprocess.Popen[str]:
    """A build in a session of its own, so that it can be killed with its workers and with nothing else."""
    return subprocess.Popen(
        command(raw, out, workers, configs=OPTIONS["configs"]),
        cwd=PROJECT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished_shards(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob(".build/done/[!.]*.json"))


def check_nothing_partial(out: Path, undisturbed: Published) -> None:
    """Whatever has a published name is whole; the card is there only when all is."""
    found = {name: data for name, data in published(out).items() if not name.endswith(store.UNFINISHED)}
    assert found.items() <= undisturbed.items()
    assert "README.md" not in found or undisturbed.keys() - found.keys() <= {"imagenet3d_manifest.json"}


def check_finished(out: Path, undisturbed: Published) -> None:
    """The same bytes as undisturbed, and no leftovers."""
    assert published(out) == undisturbed
    assert not list(out.rglob(f"*{store.UNFINISHED}"))
    assert [path for path in out.rglob(".*") if path.name != ".build"] == []


def finish(raw: str, out: Path, undisturbed: Published) -> None:
    """Go on in this process; shards that were finished are not written again."""
    done = finished_shards(out)
    before = {path: path.stat().st_mtime_ns for name in done for path in out.glob(f"*/{name}.parquet")}
    build(raw, out, workers=1, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_finished(out, undisturbed)


class TestKilled:
    @pytest.mark.parametrize("moment", range(MOMENTS))
    def test_at_a_random_moment(self, raw: str, undisturbed: Published, tmp_path: Path, moment: int) -> None:
        generator = random.Random(moment)
        total = len({Path(name).stem for name in undisturbed if name.endswith(".parquet")})
        goal = generator.randint(0, total)
        out = tmp_path / "out"
        process = start(raw, out, workers=2 if moment < TWO_WORKERS else 1)
        plan_file = out / ".build/run.json"
        wait_for(lambda: plan_file.exists() and len(finished_shards(out)) >= goal, process)
        time.sleep(generator.uniform(0, 0.02))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda: not session(process.pid))
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)

    def test_finished_by_the_same_command(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        out = tmp_path / "out"
        process = start(raw, out, workers=2)
        wait_for(lambda: len(finished_shards(out)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        again = start(raw, out, workers=2)
        assert again.wait() == 0, again.communicate()
        check_finished(out, undisturbed)

    def test_workers_end_with_their_parent(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        """An orphan could write shards of the old build beside the next one."""
        out = tmp_path / "out"
        process = start(raw, out, workers=2)
        wait_for(lambda: finished_shards(out), process)
        process.kill()
        process.communicate()
        wait_for(lambda: not session(process.pid))
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)

    def test_one_worker(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        out = tmp_path / "out"
        process = start(raw, out, workers=2)
        wait_for(lambda: finished_shards(out), process)
        os.kill(next(pid for pid in session(process.pid) if is_worker(pid)), signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert "a worker was ended by SIGKILL" in errors
        assert "same command again" in errors
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)

    def test_the_process_that_workers_are_forked_from(
        self, raw: str, undisturbed: Published, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        process = start(raw, out, workers=2)
        wait_for(lambda: finished_shards(out), process)
        worker = next(pid for pid in session(process.pid) if is_worker(pid))
        if (server := parent_of(worker)) == process.pid:
            pytest.skip("workers are not forked here")
        os.kill(server, signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert "same command again" in errors
        wait_for(lambda: not session(process.pid))
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)


def is_worker(pid: int) -> bool:
    """Whether a process does tasks: it has been forked from a server, or begun by itself where none are."""
    lines = [Path(f"/proc/{number}/cmdline").read_text() for number in (pid, parent_of(pid))]
    return "spawn_main" in lines[0] or all("forkserver" in line for line in lines)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def session(leader: int) -> dict[int, str]:
    """Process id -> command line of the living processes of a session."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc to find the worker processes in")
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state != "Z":
                found[int(stat.parent.name)] = stat.with_name("cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class TestInterrupted:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_ctrl_c(self, raw: str, undisturbed: Published, tmp_path: Path, workers: int) -> None:
        out = tmp_path / "out"
        process = start(raw, out, workers, preexec_fn=heed_interrupts)
        wait_for(lambda: finished_shards(out), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = process.communicate()
        assert process.returncode == 1
        assert errors.splitlines() == ["Error: interrupted; run the same command again to go on"]
        wait_for(lambda: not session(process.pid))  # the last may be on its way out
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)

    def test_twice(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        """As `timeout` does: to the process, and to its group."""
        out = tmp_path / "out"
        process = start(raw, out, 2, preexec_fn=heed_interrupts)
        wait_for(lambda: finished_shards(out), process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.splitlines() == ["Error: interrupted; run the same command again to go on"]
        wait_for(lambda: not session(process.pid))
        finish(raw, out, undisturbed)


OTHER_PYTHONS = [p for p in os.environ.get("IMAGENET3D_OTHER_PYTHONS", "").split(":") if p]

# Ctrl-C comes where what it raises is dropped: by Python while an object is deleted, by a package while it is
# imported (as trimesh does while it imports scipy). What follows takes ten minutes.
ODD_MOMENTS = """
import os, signal, sys, time
import ImageNet3D
from processing.__main__ import main

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def survey(*arguments):
    if sys.argv.pop(1) == "deleted":
        thing = Deleted()
        del thing
    else:
        import drops_it
    time.sleep(600)

ImageNet3D.survey = survey
main(sys.argv[2:])
"""
DROPS_IT = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
except BaseException:
    pass
"""


@pytest.mark.parametrize(
    ("python", "moment"),
    [(sys.executable, "imported"), *((python, "deleted") for python in (sys.executable, *OTHER_PYTHONS))],
)
def test_ctrl_c_at_an_odd_moment(raw: str, tmp_path: Path, python: str, moment: str) -> None:
    (tmp_path / "script.py").write_text(ODD_MOMENTS)
    (tmp_path / "drops_it.py").write_text(DROPS_IT)
    began = time.monotonic()
    process = subprocess.run(
        [python, tmp_path / "script.py", moment, "build", raw, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
        start_new_session=True,
        timeout=60,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == "Error: interrupted; run the same command again to go on"
    assert time.monotonic() - began < 30, "the ten minutes are not waited for"
    assert not (tmp_path / "out").exists(), "nothing was made before it was known what to build"


# Six tasks of ten minutes for two workers.
LONG_TASKS = """
import os, sys, time
from pathlib import Path
from processing.runtime.tasks import Task, run

def takes_long(folder, number):
    Path(folder, f"begun-{number}").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(run([Task(takes_long, (sys.argv[1], number), 1, "") for number in range(6)], 2, "wait"))
"""


@pytest.mark.parametrize("python", [sys.executable, *OTHER_PYTHONS])
class TestStopped:
    """What takes long is not waited for; pools of processes differ from one version of Python to the next."""

    @pytest.fixture
    def process(self, python: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """With two tasks under way."""
        (tmp_path / "script.py").write_text(LONG_TASKS)
        process = subprocess.Popen(
            [python, tmp_path / "script.py", tmp_path],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stderr=subprocess.PIPE,
            preexec_fn=heed_interrupts,
            start_new_session=True,
        )
        wait_for(lambda: len([path for path in tmp_path.glob("begun-*") if path.read_text()]) == 2, process)
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def test_by_ctrl_c(self, process: subprocess.Popen[bytes], tmp_path: Path) -> None:
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert b"KeyboardInterrupt" in errors
        assert len(list(tmp_path.glob("begun-*"))) == 2
        wait_for(lambda: not session(process.pid))

    def test_by_the_end_of_another_worker(self, process: subprocess.Popen[bytes], tmp_path: Path) -> None:
        os.kill(int((tmp_path / "begun-0").read_text()), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert b"WorkerDiedError: a worker was ended by SIGKILL" in errors
        assert len(list(tmp_path.glob("begun-*"))) == 2
        wait_for(lambda: not session(process.pid))


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 1 MB."""
        folder = tmp_path / "disk"
        folder.mkdir()
        if not shutil.which("mount") or mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)):
            pytest.skip("no right to mount a small file system")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_full(self, raw: str, undisturbed: Published, small_disk: Path, workers: int) -> None:
        out = small_disk / "out"
        process = start(raw, out, workers)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert errors.splitlines() == [
            f"Error: {out}: No space left on device; make room there and run the same command again to go on"
        ]
        assert finished_shards(out)
        check_nothing_partial(out, undisturbed)
        assert mount("-o", "remount,size=50m", str(small_disk)) == 0
        finish(raw, out, undisturbed)

    def test_file_size_limit(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        out = tmp_path / "out"
        limit = 30_000
        process = start(
            raw, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        )
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "File too large" in errors
        assert len(errors.splitlines()) == 1
        check_nothing_partial(out, undisturbed)
        finish(raw, out, undisturbed)


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode


class TestChanged:
    @pytest.fixture
    def begun(self, raw: str, tmp_path: Path) -> Path:
        """A folder in which a build stopped half-way."""
        out = tmp_path / "out"
        with after_eight_shards(interrupt), pytest.raises(KeyboardInterrupt):
            build(raw, out, workers=1, **OPTIONS)
        assert len([name for name in finished_shards(out) if not name.startswith("cad")]) == 8
        return out

    def test_unchanged(self, raw: str, undisturbed: Published, begun: Path) -> None:
        finish(raw, begun, undisturbed)

    def test_input(self, tree: RawTreeWriter, undisturbed: Published, tmp_path: Path) -> None:
        """A zip with other bytes under the same name, between two builds and after half of one."""
        copy = RawTreeWriter()
        copy.files = dict(tree.files)
        raw = copy.zip(tmp_path / "raw.zip")
        build(raw, tmp_path / "out", workers=1, **OPTIONS)
        copy.files["images/bed/n03.JPEG"] = copy.files["images/bed/n04.JPEG"]
        copy.zip(tmp_path / "raw.zip")
        with after_eight_shards(interrupt), pytest.raises(KeyboardInterrupt):
            build(raw, tmp_path / "out", workers=1, **OPTIONS)
        assert not (tmp_path / "out/README.md").exists()
        build(raw, tmp_path / "out", workers=1, **OPTIONS)
        assert published(tmp_path / "out") == fresh(raw, tmp_path)
        assert published(tmp_path / "out") != undisturbed

    def test_input_while_it_is_read(self, tree: RawTreeWriter, tmp_path: Path) -> None:
        raw = Path(tree.folder(tmp_path / "raw"))
        picture = next(raw.glob("*/images/bed/n19.JPEG"))
        changed = next(raw.glob("*/images/bed/n18.JPEG")).read_bytes()
        change = functools.partial(picture.write_bytes, changed)
        with after_eight_shards(change), pytest.raises(BuildError, match="changed while"):
            build(str(raw), tmp_path / "out", workers=1, **OPTIONS)
        assert published(tmp_path / "out") == {}
        build(str(raw), tmp_path / "out", workers=1, **OPTIONS)
        assert published(tmp_path / "out") == fresh(str(raw), tmp_path)

    @pytest.mark.parametrize("option", [{"seed": 1}, {"shard_size": "90KB"}, {"configs": ["classification"]}])
    def test_option(self, raw: str, begun: Path, tmp_path: Path, option: dict[str, Any]) -> None:
        build(raw, begun, workers=1, **{**OPTIONS, **option})
        assert published(begun) == fresh(raw, tmp_path, **option)

    def test_code(self, raw: str, undisturbed: Published, begun: Path, tmp_path: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in begun.glob("*/*.parquet")}
        newer = shutil.copytree(PROJECT / "processing", tmp_path / "processing")
        with (newer / "build" / "plan.py").open("a", encoding="utf-8") as module:
            module.write("# changed\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fingerprint, "files", lambda package: newer.parent / package)
            build(raw, begun, workers=1, **OPTIONS)
        check_finished(begun, undisturbed)
        assert all(path.stat().st_mtime_ns > time_ns for path, time_ns in before.items())

    def test_damaged_shard(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        build(raw, tmp_path / "out", workers=1, **OPTIONS)
        path = sorted(tmp_path.glob("out/classification/*.parquet"))[3]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        build(raw, tmp_path / "out", workers=1, **OPTIONS)
        check_finished(tmp_path / "out", undisturbed)


@contextmanager
def after_eight_shards(event: Callable[[], object]) -> Iterator[None]:
    """Let something happen before the ninth shard is written."""
    write, calls = shards.write_shard, []

    def write_shard(*args: Any) -> Any:
        if len(calls) == 8:
            event()
        calls.append(args)
        return write(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "write_shard", write_shard)
        yield


def interrupt() -> None:
    raise KeyboardInterrupt


class TestSharedFolder:
    def test_two_builds_at_once(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        out = tmp_path / "out"
        first = start(raw, out)
        wait_for((out / ".build/run.json").exists, first)
        with pytest.raises(BuildError, match="another command is at work"):
            build(raw, out, workers=1, seed=1, **OPTIONS)
        assert first.wait() == 0, first.communicate()
        check_finished(out, undisturbed)

    def test_foreign_files(self, raw: str, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("mine", "utf-8")
        with pytest.raises(BuildError, match=r"thesis\.tex"):
            build(raw, tmp_path, workers=1, **OPTIONS)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


class TestSameBytes:
    """Of every config."""

    @pytest.fixture(scope="class")
    def undisturbed(self, raw: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
        return fresh(raw, tmp_path_factory.mktemp("every"), configs=())

    def test_workers(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        build(raw, tmp_path / "out", workers=3, shard_size=SIZE)
        check_finished(tmp_path / "out", undisturbed)

    def test_any_order(
        self, raw: str, undisturbed: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def shuffled(tasks: Sequence[Task[Any]], *_: Any, **__: Any) -> Iterator[Any]:
            order = random.Random(7).sample(range(len(tasks)), len(tasks))
            results = {number: tasks[number].function(*tasks[number].arguments) for number in order}
            yield from (results[number] for number in range(len(tasks)))

        monkeypatch.setattr(building, "run", shuffled)
        build(raw, tmp_path / "out", shard_size=SIZE)
        check_finished(tmp_path / "out", undisturbed)

    def test_other_pythons(self, raw: str, undisturbed: Published, tmp_path: Path) -> None:
        if not OTHER_PYTHONS:
            pytest.skip("IMAGENET3D_OTHER_PYTHONS names no interpreters, with colons between")
        for number, python in enumerate(OTHER_PYTHONS):
            version = [python, "-c", "import pyarrow; print(pyarrow.__version__)"]
            assert subprocess.check_output(version, text=True).strip() == pa.__version__
            subprocess.run(command(raw, tmp_path / str(number), python=python), cwd=PROJECT, check=True)
            check_finished(tmp_path / str(number), undisturbed)
