"""Training on streamed shards: every object once an epoch, over workers, processes and interruptions."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import PROJECT, WITH_TORCH
from support.cards import run_blocks
from support.processes import wait_for

pytestmark = pytest.mark.slow

SCRIPT = PROJECT / "examples" / "train.py"
needs_torch = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("torchdata")), reason="no torch and torchdata in this environment"
)


@pytest.fixture(scope="module")
def pose(built_sample: Path) -> Path:
    return built_sample / "pose"


@pytest.fixture(scope="module")
def keys(pose: Path) -> Counter[str]:
    """Every object of train."""
    table = pq.read_table(sorted(pose.glob("train-*.parquet")), columns=["image_id", "object_index"])
    return Counter(f"{row['image_id']}/{row['object_index']}" for row in table.to_pylist())


def start(
    python: str, code: str, *arguments: object, cache: Path, needs_torch: bool = True
) -> subprocess.Popen[str]:
    """A process of a training job."""
    own = {"PYTHONPATH": str(SCRIPT.parent), "HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [python, "-c", code, *map(str, arguments)],
        env={**os.environ, **own, **(WITH_TORCH if needs_torch else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outputs(processes: Sequence[subprocess.Popen[str]]) -> list[list[str]]:
    """What each of some processes printed, one JSON list each."""
    done = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), done
    return [json.loads(out) for out, _ in done]


# A process of the job: the keys of some epochs, each from a state on, until a number of batches.
_RANK = """
import gc, json, sys
from pathlib import Path
import torch
from train import make_loader
folder, rank, world_size, workers, epochs = sys.argv[1:]
files = sorted(map(str, Path(folder).glob("train-*.parquet")))
part = {"rank": int(rank), "world_size": int(world_size), "workers": int(workers)}
read = []
for epoch, state, batches in json.loads(epochs):
    loader = make_loader(files, epoch, batch_size=4, **part)
    if state and Path(state).exists():
        loader.load_state_dict(torch.load(state, weights_only=True))
    keys = []
    iterator = iter(loader)
    for batch in iterator:
        keys += batch["key"]
        batches -= 1
        if batches == 0:
            torch.save(loader.state_dict(), state)
            break
    read.append(keys)
print(json.dumps(read), flush=True)
del loader, iterator
gc.collect()
"""


@needs_torch
@pytest.mark.parametrize("workers", [0, 2])
def test_every_object_once_an_epoch(
    pose: Path, keys: Counter[str], tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over two processes, their workers and an interruption, which leaves the epoch in its order."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from train import epoch_order

    files = sorted(map(str, pose.glob("train-*.parquet")))
    other = next(epoch for epoch in range(1, 99) if epoch_order(files, epoch) != epoch_order(files, 0))
    processes = []
    for rank in range(2):
        state = str(tmp_path / f"{rank}.pt")
        epochs = json.dumps([(0, None, -1), (other, None, -1), (other, state, 3), (other, state, -1)])
        processes.append(start(sys.executable, _RANK, pose, rank, 2, workers, epochs, cache=tmp_path))
    first, second, before, after = zip(*outputs(processes), strict=True)
    for parts in (first, second, before + after):
        assert Counter(key for part in parts for key in part) == keys
    assert first != second
    assert all(len(part) == 12 for part in before)
    assert tuple(b + a for b, a in zip(before, after, strict=True)) == second


@needs_torch
def test_code_of_the_page(built_sample: Path, tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "training.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    run_blocks(sys.executable, built_sample, tmp_path, blocks)


@pytest.fixture(scope="module")
def trained(built_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The checkpoints of a job that was killed and run again; what it printed before and after."""
    points = tmp_path_factory.mktemp("trained") / "points"
    command = job(built_sample, points)
    process = subprocess.Popen(
        command,
        env=environment(points),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list(points.glob("epoch-00000-0000002/*.pt")), process)
    for pid in descendants(process.pid):  # torchrun starts its processes in sessions of their own
        os.kill(pid, signal.SIGKILL)
    before, _ = process.communicate()
    (after,) = run(command)
    return points, before, after


@needs_torch
class TestScript:
    """Jobs of the sample's pose, which write a checkpoint after every batch of two objects."""

    @pytest.fixture
    def points(self, trained: tuple[Path, str, str], tmp_path: Path) -> Path:
        """A copy of the checkpoints."""
        return shutil.copytree(trained[0], tmp_path / "points")

    def test_killed_in_the_middle_and_run_again(
        self, keys: Counter[str], trained: tuple[Path, str, str]
    ) -> None:
        _, before, after = trained
        assert "epoch 0" not in before
        assert epochs(after) == [(0, keys.total()), (1, keys.total())]

    def test_killed_after_the_last_batch(
        self, built_sample: Path, trained: tuple[Path, str, str], points: Path
    ) -> None:
        """Nothing is left of the epoch for one process at least; it ends as it would have."""
        forget_after(points, "epoch-00000-9999999")
        assert run(job(built_sample, points, "--epochs", 1)) == trained[2].splitlines(keepends=True)[:1]

    def test_finished_and_run_again_without_torchrun(
        self, built_sample: Path, keys: Counter[str], points: Path
    ) -> None:
        before = contents(points)
        again, further = run(*(job(built_sample, points, "--epochs", n, processes=1) for n in (2, 3)))
        assert again.endswith("nothing to train: no epoch is left of 2\n")
        after = contents(points)
        assert {file: after[file] for file in before} == before
        assert all(file.parent.name > "epoch-00002-0000000" for file in after.keys() - before.keys())
        assert further.startswith("world_size 2 -> 1: going on with epoch 2, nothing is left out\n")
        assert epochs(further) == [(2, keys.total())]

    def test_killed_and_run_with_other_numbers(self, built_sample: Path, points: Path) -> None:
        """The next epoch is whole, and begins with the model and the optimizer of the checkpoint.

        What one process wrote before the others could is gone: a job of other numbers might complete it.
        """
        forget_after(points, "epoch-00000-0000004")
        part = points / "epoch-00001-0001000" / "0-of-2.pt"
        part.parent.mkdir()
        shutil.copy(points / "epoch-00000-0000002" / part.name, part)
        model = self.stop_learning(points / "epoch-00000-0000004")
        options = ("--workers", 0, "--batch-size", 3, "--config", "object_centric")
        (out,) = run(job(built_sample, points, *options, processes=1))
        changed = (
            r"world_size 2 -> 1, workers 1 -> 0, batch_size 2 -> 3, "
            r"dataset pose \(.*\) -> object_centric \(.*\)"
        )
        lost = "the objects of epoch 0 after batch 4 of each process are left out"
        assert re.match(rf"{changed}: going on with epoch 1, {lost}\n", out), out
        assert not part.exists()
        assert epochs(out) == [(1, rows(built_sample / "object_centric"))]
        end = self.load(points / "epoch-00002-0000000" / "0-of-1.pt")
        assert end["optimizer"]["param_groups"][0]["lr"] == 0
        assert all(end["model"][name].equal(weights) for name, weights in model.items())

    def stop_learning(self, step: Path) -> dict[str, Any]:
        """Set the learning rate of a checkpoint to 0; its model, which then stays as it is."""
        import torch

        for file in step.glob("*.pt"):
            state = self.load(file)
            state["optimizer"]["param_groups"][0]["lr"] = 0
            torch.save(state, file)
        return state["model"]

    def load(self, file: Path) -> dict[str, Any]:
        import torch

        return torch.load(file, weights_only=True)


def job(dataset: Path, points: Path, *options: object, processes: int = 2) -> list[str]:
    """The command of a job of two epochs, unless the options say otherwise; torchrun where it is several."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", processes, "--standalone"]
    usual = ["--config", "pose", "--batch-size", 2, "--workers", 1, "--every", 1, "--epochs", 2]
    command = [
        sys.executable,
        *(torchrun if processes > 1 else []),
        SCRIPT,
        dataset,
        "--checkpoints",
        points,
        *usual,
        *options,
    ]
    return [str(part) for part in command]


def environment(points: Path) -> dict[str, str]:
    usual = {"HF_DATASETS_CACHE": str(points.with_name("cache")), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **WITH_TORCH, **usual}


# One process for several jobs that are one process each: torch is imported for seconds.
_RUN_JOBS = """
import contextlib, io, json, runpy, sys
printed = []
for words in json.loads(sys.argv[1]):
    sys.argv = words
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(words[0], run_name="__main__")
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def run(*commands: Sequence[str]) -> list[str]:
    """What jobs print, one after the other; several are to have one process each."""
    points = Path(commands[0][commands[0].index("--checkpoints") + 1])
    command = commands[0]
    if several := len(commands) > 1:
        command = [sys.executable, "-c", _RUN_JOBS, json.dumps([words[1:] for words in commands])]
    own = {"PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(command, env=environment(points) | own, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if several else [done.stdout]


def epochs(out: str) -> list[tuple[int, int]]:
    """The epochs that a job has ended, and their objects."""
    return [
        (int(epoch), int(count)) for epoch, count in re.findall(r"^epoch (\d): (\d+) obj", out, re.MULTILINE)
    ]


def forget_after(points: Path, last: str) -> None:
    """Leave what a job leaves that is killed after a checkpoint."""
    for step in points.iterdir():
        if step.name > last:
            shutil.rmtree(step)


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file: when it was written, and its bytes."""
    return {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.rglob("*") if f.is_file()}


def rows(folder: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in folder.glob("train-*.parquet"))


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    if not Path(f"/proc/{pid}/task").exists():
        pytest.skip("no /proc to find the processes in")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in descendants(int(child)))]


# --------------------------------------------------------------------------------------------------------
# What a shuffle buffer costs, with either version
# --------------------------------------------------------------------------------------------------------

_RESUME = """
import gc, json, sys
from pathlib import Path
import datasets
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1  # seconds, of five, at the end of a shuffled stream
files = sorted(map(str, Path(sys.argv[1]).glob("train-*.parquet")))
def stream(buffer_size):
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    rows = rows.select_columns(["image_id", "object_index"])
    return rows.shuffle(seed=1, buffer_size=buffer_size) if buffer_size else rows
key = lambda row: f"{row['image_id']}/{row['object_index']}"
read = []
for buffer_size in (0, 20):
    rows = stream(buffer_size)
    iterator = iter(rows)
    before = [key(next(iterator)) for _ in range(30)]
    state = rows.state_dict()
    rows = stream(buffer_size)
    rows.load_state_dict(state)
    read.append(before + [key(row) for row in rows])
print(json.dumps(read), flush=True)
del iterator, rows
gc.collect()
"""


@pytest.fixture(params=["newest", "oldest"])
def python(request: pytest.FixtureRequest) -> str:
    """Interpreters with the newest `datasets` and with 3.6."""
    oldest = request.param == "oldest"
    return str(request.getfixturevalue("datasets3_python")) if oldest else sys.executable


def test_a_stream_resumes_exactly_without_a_buffer(
    python: str, pose: Path, keys: Counter[str], tmp_path: Path
) -> None:
    ((exact, buffered),) = outputs([start(python, _RESUME, pose, cache=tmp_path, needs_torch=False)])
    assert Counter(exact) == keys
    assert 0 < (keys - Counter(buffered)).total() <= 20


_PARTS = """
import json, os, sys
from pathlib import Path
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
files = sorted(map(str, Path(sys.argv[1]).glob("train-*.parquet")))
rows = load_dataset("parquet", data_files=files, split="train", streaming=True)
def read():
    return int(dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())["rchar"])
sum(1 for row in rows)  # and whatever is imported on the way
sizes = []
for world_size in json.loads(sys.argv[2]):
    before = read()
    sum(1 for row in split_dataset_by_node(rows, 0, world_size))
    sizes.append(read() - before)
print(json.dumps(sizes), flush=True)
os._exit(0)  # Arrow's threads may abort an interpreter that is taken down, see docs/training.md
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc/self/io to count the bytes read in")
def test_processes_that_do_not_divide_the_shards_read_all(python: str, pose: Path, tmp_path: Path) -> None:
    count = len(list(pose.glob("train-*.parquet")))
    divides = next(n for n in (2, 3) if count % n == 0)
    does_not = next(n for n in (5, 7) if count % n)
    (sizes,) = outputs(
        [start(python, _PARTS, pose, [1, divides, does_not], cache=tmp_path, needs_torch=False)]
    )
    assert sizes[1] < 0.7 * sizes[0]
    assert sizes[2] > 0.7 * sizes[0]
