"""Streaming: samples a second through PyTorch's DataLoader, against other formats and decoding alone.

    python -m benchmarks.streaming [--raw RAW] [--quick]

All ways give the same samples, the training rows of `pose`, from local shards of the same size: ours row by
row and in batches, WebDataset, MDS, LitData, and a JPEG and an npz for each sample. *Decoding alone* has the
bytes in memory. Each way is a process of its own (`contenders.py`), the peers' in environments of their own,
and they take turns. A ratio is the median over the rounds of what decoding alone, or WebDataset, took over
what the way took.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import environments, inputs
from benchmarks.measuring import Setting, Table, alternate, command, median, ratio
from processing.build.command import build

PICTURES = 4000  # of the release that is streamed
SHARDS = 8  # so that one is as large as those of the release
WORKERS = (0, 1, 2)

# name -> (class of contenders.py, the peer whose environment it needs)
WAYS = {
    "decoding alone": ("Memory", None),
    "ours, rows as they come": ("Rows", None),
    "ours, in batches": ("Batches", None),
    "ours, in batches, buffer of 1,000": ("Buffer", None),
    "ours, a picture decoded once": ("Once", None),
    "WebDataset": ("WebDataset", None),
    "MosaicML Streaming": ("Mosaic", "mosaicml"),
    "LitData": ("LitData", "litdata"),
    "JPEG and npz files": ("Files", None),
}
DECODING = "decoding alone"
BUFFERED = "ours, in batches, buffer of 1,000"
ONCE = "ours, a picture decoded once"
REFERENCE = "WebDataset"


def tables(setting: Setting) -> list[Table]:
    """Bytes and decoded, shuffled and not, with each number of workers; and the time to the first sample."""
    if not environments.has("torch"):
        return [Table("streaming", "Streaming: left out, it needs torch (pip install torch==2.13.0)", [])]
    samples = prepare(setting)
    with ExitStack() as stack:
        ways = {
            name: contender
            for name, (way, peer) in WAYS.items()
            if (contender := stack.enter_context(_contender(way, peer, setting))) is not None
        }
        for contender in ways.values():
            contender.ask("write")
        found = [
            _speeds(ways, setting, samples, decoded, shuffled)
            for decoded in (False, True)
            for shuffled in (False, True)
        ]
        return [*found, _first(ways, setting)]


def prepare(setting: Setting) -> int:
    """Build `pose` and write its training rows as files; how many there are."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures, setting.captions)
    built = setting.scratch / "built"
    size = sum(path.stat().st_size for path in (setting.scratch / "raw/images").rglob("*.JPEG"))
    build(raw, built, configs=["pose"], shard_size=f"{max(1, size // SHARDS // 1000)}KB")
    folder = setting.scratch / "samples"
    folder.mkdir()
    count = 0
    for shard in sorted((built / "pose").glob("train-*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            (folder / f"{count:06d}.JPEG").write_bytes(row.pop("image")["bytes"])
            fields = {name: _number(value) for name, value in row.items()}
            np.savez(folder / f"{count:06d}.npz", **fields)
            count += 1
    return count


def _number(value: Any) -> Any:
    """Null and bool as numbers: MDS and LitData hold one type in a field, and none that may be null."""
    return -1 if value is None else int(value) if isinstance(value, bool) else value


class Contender:
    """A running `contenders.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, does: str, **request: Any) -> Any:
        """Send a request and wait for the answer.

        Raises:
            RuntimeError: if the process ended; its message stands above.
        """
        print(json.dumps({"do": does, **request}), file=self._process.stdin, flush=True)
        if not (answer := self._process.stdout.readline()):
            raise RuntimeError(f"{self._process.args[-2]} ended; what it said stands above")
        return json.loads(answer)


@contextmanager
def _contender(way: str, peer: str | None, setting: Setting) -> Iterator[Contender | None]:
    """A process for one way; None where its environment is missing."""
    python = environments.environment(peer, setting.quick) if peer else Path(sys.executable)
    if python is None or (way == "WebDataset" and not environments.has("webdataset")):
        yield None
        return
    script = Path(__file__).with_name("contenders.py")
    process = subprocess.Popen(  # noqa: S603
        [python, "-P", "-W", "ignore", script, way, setting.scratch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Contender(process)
    finally:
        process.stdin.close()
        process.wait()


def _speeds(
    ways: dict[str, Contender], setting: Setting, samples: int, decoded: bool, shuffled: bool
) -> Table:
    """Samples a second for each number of workers."""
    chosen = {
        name: way
        for name, way in ways.items()
        if (decoded or name not in (DECODING, ONCE)) and (shuffled or name != BUFFERED)
    }
    reference = DECODING if decoded else REFERENCE
    what = f"{'decoded' if decoded else 'bytes'}, {'shuffled' if shuffled else 'in order'}"
    numbers = WORKERS[:2] if setting.quick else WORKERS
    speeds = [f"{w} workers, samples/s" for w in numbers]
    head = ["way", *speeds, *(f"{w} workers, ratio" for w in numbers), "ms of CPU a sample, 0 workers"]
    note = f"The ratio is a way's speed over that of {reference}."
    table = Table(f"streaming {what}", f"Streaming {samples:,} samples, {what}", head, notes=[note])
    taken: dict[tuple[str, int], list[dict[str, float]]] = {}
    for workers in numbers:
        request = {"decoded": decoded, "shuffled": shuffled, "workers": workers}
        rounds = alternate(
            {name: partial(way.ask, "read", **request) for name, way in chosen.items()}, setting
        )
        taken |= {(name, workers): results for name, results in rounds.items()}
    for name in chosen:
        for results in (taken[name, workers] for workers in numbers):
            _check(name, results, samples, taken[next(iter(chosen)), 0][0]["bytes"])
        seconds = [[r["seconds"] for r in taken[name, workers]] for workers in numbers]
        speeds = [samples / median(s) for s in seconds]
        ratios = [
            ratio([r["seconds"] for r in taken[reference, workers]], s) if reference in chosen else None
            for workers, s in zip(numbers, seconds, strict=True)
        ]
        cpu = 1000 * median([r["cpu"] for r in taken[name, 0]]) / samples
        table.rows.append([name, *map(round, speeds), *ratios, cpu])
    return table


def _check(name: str, results: list[dict[str, float]], samples: int, size: float) -> None:
    """All samples were there, and the same."""
    for result in results:
        assert result["samples"] == samples, f"{name} gave {result['samples']} samples of {samples}"
        assert result["bytes"] == size, f"{name} gave {result['bytes']} bytes of {size}"


def _first(ways: dict[str, Contender], setting: Setting) -> Table:
    """Seconds to the first sample of local shards."""
    chosen = {name: way for name, way in ways.items() if name not in (DECODING, ONCE, BUFFERED)}
    rounds = alternate({n: lambda w=w: w.ask("first")["seconds"] for n, w in chosen.items()}, setting)
    table = Table("first sample", "Time to the first sample of local shards", ["way", "s", "least", "most"])
    table.rows = [[name, median(s), min(s), max(s)] for name, s in rounds.items()]
    return table


if __name__ == "__main__":
    command(__doc__, {"streaming": tables})
