"""Streaming by the lines that README and docs print, through PyTorch's DataLoader, against other formats.

    python -m benchmarks.streaming [--raw RAW] [--quick]

All ways give the same samples, the training rows of `pose`, shuffled and decoded, from local shards of the
same size: ours by the printed lines as they stand, on three versions of `datasets`; WebDataset, MDS, LitData;
and a JPEG and an npz for each sample. *Decoding alone* has the bytes in memory. Each way is a process of its
own (`contenders.py`), most in an environment of their own, and they take turns. A ratio is the median over
the rounds of what decoding alone took over what the way took. How well the printed lines mix is measured
apart, on a release of realistic size without pictures (`mixing.py`).
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq

from benchmarks import environments, inputs, mixing
from benchmarks.measuring import Setting, Table, alternate, command, median, ratio
from processing.build.command import build

PICTURES = 2000  # of the release that is streamed
SHARDS = 4  # so that one is as large as those of the release
WORKERS = (0, 1, 2)
READERS = (1, 4)  # DataLoader workers, of whatever process, for mixing
PROJECT = Path(__file__).parents[1]

DECODING = "decoding alone"
# name -> (class of contenders.py, the peer whose environment it needs)
PEERS = {
    "WebDataset, buffer of 1,000": ("WebDataset", None),
    "MosaicML Streaming": ("Mosaic", "mosaicml"),
    "LitData": ("LitData", "litdata"),
}
FILES = {"JPEG and npz files": ("Files", None)}
PAGES = {"README.md": "train", "docs/training.md": "batches"}  # page -> the name that its lines leave
VERSIONS = ("datasets 3.6.0", "datasets 4.4.2")  # beside the one that is installed


def printed(page: str, repository: Path) -> str:
    """The lines of a page that stream, with a folder in the place of the repository."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (PROJECT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (found,) = [b for b in blocks if "streaming=True" in b and f"\n{PAGES[page]} = " in b and "del " not in b]
    return found.replace("ccvl/ImageNet3D", str(repository))


def tables(setting: Setting) -> list[Table]:
    """The speed of each way with each number of workers, and how well ours mix."""
    if not environments.has("torch"):
        return [Table("streaming", "Streaming: left out, it needs torch (pip install torch==2.13.0)", [])]
    samples = prepare(setting)
    with ExitStack() as stack:
        ours = _ours(setting.scratch, setting.scratch / "built")
        others = FILES if setting.quick else PEERS | FILES
        named = {DECODING: ("Memory", None), **ours, **others}
        ways = {
            name: contender
            for name, (way, peer) in named.items()
            if (contender := stack.enter_context(_contender(way, peer, setting))) is not None
        }
        for contender in ways.values():
            contender.ask("write")
        return [_speeds(ways, setting, samples), _mixing(ways, setting)]


def _ours(folder: Path, repository: Path) -> dict[str, tuple[str, str | None]]:
    """The printed lines on each version of `datasets`, as `_contender` takes them."""
    ways: dict[str, tuple[str, str | None]] = {}
    for page in PAGES:
        lines = folder / f"{repository.name}-{Path(page).stem}.py"
        lines.write_text(printed(page, repository), "utf-8")
        ways[f"{page}, datasets {datasets.__version__}"] = (str(lines), None)
        ways |= {f"{page}, {version}": (str(lines), version) for version in VERSIONS}
    return ways


def prepare(setting: Setting) -> int:
    """Build `pose` and write its training rows as files; how many there are."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures, setting.captions)
    built = setting.scratch / "built"
    size = sum(path.stat().st_size for path in (setting.scratch / "raw/images").rglob("*.JPEG"))
    build(
        raw,
        built,
        configs=["pose"],
        shard_size=f"{max(1, size // SHARDS // 1000)}KB",
        workers=setting.workers,
    )
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


def _speeds(ways: Mapping[str, Contender], setting: Setting, samples: int) -> Table:
    """Samples a second for each number of workers, and what else a user feels."""
    numbers = WORKERS[:2] if setting.quick else WORKERS
    taken: dict[tuple[str, int], list[dict[str, float]]] = {}
    for workers in numbers:
        rounds = alternate(
            {name: partial(way.ask, "read", workers=workers) for name, way in ways.items()}, setting
        )
        taken |= {(name, workers): results for name, results in rounds.items()}
    head = ["way", *(f"{w} workers" for w in numbers), "samples/s, 0", "ms of CPU a sample, 0"]
    head += ["MB a worker", "s to the first batch", "s of pause at the end"]
    table = Table("streaming", f"Streaming {samples:,} samples, shuffled and decoded, over {DECODING}", head)
    for name in ways:
        counted = [result["samples"] for workers in numbers for result in taken[name, workers]]
        assert counted == [samples] * len(counted), f"{name} gave {counted} samples of {samples}"
        ratios = [
            ratio([r["seconds"] for r in taken[DECODING, w]], [r["seconds"] for r in taken[name, w]])
            for w in numbers
        ]
        alone, one = taken[name, 0], taken[name, 1]
        speed = round(samples / median([r["seconds"] for r in alone]))
        cpu = 1000 * median([r["cpu"] for r in alone]) / samples
        felt = [median([r[what] for r in one]) for what in ("first", "pause")]
        memory = round(max(r["memory"] for r in one) / 1e6)
        table.rows.append([name, *ratios, speed, cpu, memory, *felt])
    return table


def _mixing(ways: Mapping[str, Contender], setting: Setting) -> Table:
    """Entropy of windows, of the printed lines, on a release of realistic size."""
    folder = setting.scratch / "mixing"
    numbers = READERS[:1] if setting.quick else READERS
    mixing.write_release(folder, scale=0.1 if setting.quick else 1)
    title = f"Entropy of categories in windows of {mixing.WINDOW} samples, over a perfect shuffle"
    table = Table("mixing", title, ["way", *(f"{readers} readers" for readers in numbers)])
    for name, (lines, _) in _ours(setting.scratch, folder).items():
        if name in ways:
            epochs = [ways[name].ask("names", lines=lines, workers=readers) for readers in numbers]
            table.rows.append([name, *map(mixing.mixing, epochs)])
    return table


if __name__ == "__main__":
    command(__doc__, {"streaming": tables})
