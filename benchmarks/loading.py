"""Loading: `load_dataset` preparing its cache, and loading again, against reading and copying the same files.

    python -m benchmarks.loading [--raw RAW] [--quick]

The ways take turns, each in a process of its own with a cache of its own; imports are not counted. The first
load hashes nothing and downloads nothing: the built folder is local.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from datasets import load_dataset

from benchmarks import inputs
from benchmarks.measuring import Setting, Table, Usage, alternate, apart, command, median, ratio
from ImageNet3D import ImageNet3D
from processing.build.command import build

PICTURES = 2000
CONFIG = "pose"


def tables(setting: Setting) -> list[Table]:
    """Times of all ways."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures, setting.captions)
    built, cache = setting.scratch / "built", setting.scratch / "cache"
    build(raw, built, configs=[CONFIG])
    ways = {
        "first load": partial(_afresh, load, built, cache),
        "load again": partial(apart, load, built, cache),
        "first load, the raw release": partial(_afresh, load_raw, Path(raw), cache),
        "pyarrow reads the shards": partial(apart, read, built, cache),
        "the shards are copied": partial(_afresh, copy, built, cache),
    }
    # Loading again needs the cache that the first load left, so it comes right after it.
    rounds = alternate(ways, setting)
    rows = rounds["first load"][0].result
    table = Table(
        "loading", f"Loading {rows:,} rows", ["way", "s", "over copying", "ms of CPU a row", "MB of memory"]
    )
    copying = [used.seconds for used in rounds["the shards are copied"]]
    for name, results in rounds.items():
        seconds = [used.seconds for used in results]
        cpu = 1000 * median([used.cpu for used in results]) / rows
        memory = round(max(used.peak for used in results) / 1e6)
        table.rows.append([name, median(seconds), ratio(seconds, copying), cpu, memory])
    return [table]


def _afresh(way: Callable[[Path, Path], int], source: Path, cache: Path) -> Usage:
    """Run a way that finds no cache."""
    shutil.rmtree(cache, ignore_errors=True)
    return apart(way, source, cache)


def load(built: Path, cache: Path) -> int:
    """Load all splits of the built folder; the number of rows."""
    datasets.disable_progress_bars()
    return sum(map(len, load_dataset(str(built), CONFIG, cache_dir=str(cache)).values()))


def load_raw(raw: Path, cache: Path) -> int:
    """The same from the raw release, by the builder."""
    datasets.disable_progress_bars()
    builder = ImageNet3D(config_name=CONFIG, data_dir=str(raw), cache_dir=str(cache))
    builder.download_and_prepare()
    return sum(map(len, builder.as_dataset().values()))


def read(built: Path, cache: Path) -> int:
    """Read the shards into memory, one after the other."""
    return sum(len(pq.read_table(path)) for path in sorted((built / CONFIG).glob("*.parquet")))


def copy(built: Path, cache: Path) -> int:
    """Copy the shards."""
    shutil.copytree(built / CONFIG, cache)
    return 0


if __name__ == "__main__":
    command(__doc__, {"loading": tables})
