"""Loading: `load_dataset` preparing its cache, and loading again, against reading and copying the same files.

    python -m benchmarks.loading [--raw RAW] [--quick]

The ways take turns, each in a process of its own with a cache of its own; imports are not counted. The first
load hashes nothing and downloads nothing: the built folder is local.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from datasets import load_dataset

from benchmarks import inputs
from benchmarks.measuring import Setting, Table, Usage, alternate, apart, command, median, ratio
from ImageNet3D import ImageNet3D
from processing.build.command import build

PICTURES = 2000
CONFIG = "pose"
ANGLES = ["azimuth", "elevation", "theta"]


@dataclass(frozen=True)
class Loaded:
    """How many rows a way gave, and the bytes that its cache takes on the disk."""

    rows: int
    cache: int = 0


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
        "a tenth of the rows, at random, decoded": partial(apart, load_some, built, cache),
        "first load, the raw release": partial(_afresh, load_raw, Path(raw), cache),
        "pyarrow reads the shards": partial(apart, read, built, cache),
        "the shards are copied": partial(_afresh, copy, built, cache),
    }
    # What follows a first load finds the cache that it left.
    rounds = alternate(ways, setting)
    (rows,) = {used.result.rows for used in rounds["first load"]}
    head = ["way", "s", "over copying", "ms of CPU a row", "MB of memory", "MB of cache"]
    table = Table("loading", f"Loading {rows:,} rows", head)
    copying = [used.seconds for used in rounds["the shards are copied"]]
    for name, results in rounds.items():
        seconds = [used.seconds for used in results]
        cpu = 1000 * median([used.cpu for used in results]) / results[0].result.rows
        memory, disk = (round(max(sizes) / 1e6) for sizes in zip(*map(_sizes, results), strict=True))
        table.rows.append([name, median(seconds), ratio(seconds, copying), cpu, memory, disk])
    return [table, _numbers(setting, built)]


def _sizes(used: Usage) -> tuple[int, int]:
    return used.peak, used.result.cache


def _numbers(setting: Setting, built: Path) -> Table:
    """Ways to the angles of train without a picture, what people try first among them."""
    ways = {
        "streaming, select_columns": partial(apart, stream_selected, built),
        "streaming, columns=": partial(apart, stream_columns, built),
        "streaming, columns= and filters=": partial(apart, stream_filtered, built),
        "pyarrow, columns=": partial(apart, read_columns, built),
    }
    table = Table("numbers", "The angles of train, no pictures", ["way", "rows", "s", "MB of memory"])
    for name, results in alternate(ways, setting).items():
        memory = round(max(used.peak for used in results) / 1e6)
        seconds = median([used.seconds for used in results])
        table.rows.append([name, results[0].result, seconds, memory])
    return table


def _afresh(way: Callable[[Path, Path], Loaded], source: Path, cache: Path) -> Usage:
    """Run a way that finds no cache."""
    shutil.rmtree(cache, ignore_errors=True)
    return apart(way, source, cache)


def load(built: Path, cache: Path) -> Loaded:
    """Load all splits of the built folder."""
    datasets.disable_progress_bars()
    rows = sum(map(len, load_dataset(str(built), CONFIG, cache_dir=str(cache)).values()))
    return Loaded(rows, size_of(cache))


def load_some(built: Path, cache: Path) -> Loaded:
    """Decode some rows of train, here and there."""
    datasets.disable_progress_bars()
    rows = load_dataset(str(built), CONFIG, split="train", cache_dir=str(cache))
    chosen = random.Random(0).sample(range(len(rows)), max(1, len(rows) // 10))
    for index in chosen:
        rows[index]["image"].load()
    return Loaded(len(chosen), size_of(cache))


def load_raw(raw: Path, cache: Path) -> Loaded:
    """All splits from the raw release, by the builder."""
    datasets.disable_progress_bars()
    builder = ImageNet3D(config_name=CONFIG, data_dir=str(raw), cache_dir=str(cache))
    builder.download_and_prepare()
    return Loaded(sum(map(len, builder.as_dataset().values())), size_of(cache))


def read(built: Path, cache: Path) -> Loaded:
    """Read the shards into memory, one after the other."""
    return Loaded(sum(len(pq.read_table(path)) for path in sorted((built / CONFIG).glob("*.parquet"))))


def copy(built: Path, cache: Path) -> Loaded:
    """Copy the shards."""
    shutil.copytree(built / CONFIG, cache)
    rows = sum(pq.read_metadata(path).num_rows for path in cache.glob("*.parquet"))
    return Loaded(rows, size_of(cache))


def size_of(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stream(built: Path, **options: Any) -> Any:
    datasets.disable_progress_bars()
    return load_dataset(str(built), CONFIG, split="train", streaming=True, **options)


def stream_selected(built: Path) -> int:
    """What people try first: `select_columns`, which reads all columns and drops most."""
    return sum(1 for _ in _stream(built).select_columns(ANGLES))


def stream_columns(built: Path) -> int:
    """Only these columns are read."""
    return sum(1 for _ in _stream(built, columns=ANGLES))


def stream_filtered(built: Path) -> int:
    """And only the rows of one elevation's side."""
    return sum(1 for _ in _stream(built, columns=ANGLES, filters=[("elevation", ">", 0.0)]))


def read_columns(built: Path) -> int:
    """The same by pyarrow, as one table."""
    return sum(len(pq.read_table(p, columns=ANGLES)) for p in sorted((built / CONFIG).glob("train-*")))


if __name__ == "__main__":
    command(__doc__, {"loading": tables})
