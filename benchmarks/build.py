"""Building 1,000 pictures: `build` against `tar`, the `datasets` way and WebDataset's tar writer.

    python -m benchmarks.build [--raw RAW] [--quick]

All read the same unpacked tree and take turns, each a program from its start to its end, by the clock of the
one who waits for it, with two workers (tar is one process, and copies every file of the tree once). What each
writes stands in the table; the others' ways are those of `benchmarks/plain.py`, which write the rows of
`pose` alone, the picture of several objects once for each. Ours also checks every picture and annotation,
hashes its files, waits until they are on the disk, and writes the card with its figures. Memory is the most
that one process of a way held. `benchmarks.growth` has larger trees.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import inputs
from benchmarks.environments import has
from benchmarks.measuring import WORKERS, Setting, Table, Usage, alternate, command, median, ratio, whole

PICTURES = 1000

WHOLE = ("pose", "classification", "captions")

PLAIN = Path(__file__).with_name("plain.py")


def tables(setting: Setting) -> list[Table]:
    """Time, processor time and memory of every way."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures, setting.captions)
    out = setting.scratch / "out"
    calls = {
        "datasets": ("Arrow, then Parquet of pose", from_generator(raw, out)),
        "build, pose": ("Parquet of pose", ours(raw, out, ("pose",), setting.workers)),
        "build, whole pictures": ("Parquet of " + ", ".join(WHOLE), ours(raw, out, WHOLE, setting.workers)),
        "build, all": (
            "these and 512 x 512 crops",
            ours(raw, out, (*WHOLE, "object_centric"), setting.workers),
        ),
        "tar": ("the tree as it is", tar(raw, out)),
    }
    if has("webdataset"):
        calls["WebDataset"] = ("tars of pose", plain("webdataset", raw, out))
    rounds = alternate({name: partial(once, way, out) for name, (_, way) in calls.items()}, setting)
    reference = [used.seconds for used in rounds["datasets"]]
    head = ["way", "writes", "MB", "time over datasets", "s", "s of processor time", "MB of memory"]
    table = Table("build", f"Building from {pictures:,} pictures on {os.cpu_count()} cores", head)
    for name, results in rounds.items():
        seconds = [used.seconds for used in results]
        cpu = median([used.cpu for used in results])
        memory = round(max(used.peak for used in results) / 1e6)
        written = round(results[0].result / 1e6)
        over = ratio(seconds, reference)
        table.rows.append([name, calls[name][0], written, over, median(seconds), cpu, memory])
    return [table]


def once(way: Sequence[str], out: Path) -> Usage:
    """Run a way, and remove what it wrote; the result is the bytes of its product."""
    out.mkdir()
    os.sync()  # what was written before must not be paid for now
    used = whole(way)
    product = (path for path in out.rglob("*") if path.suffix in (".parquet", ".tar"))
    written = sum(path.stat().st_size for path in product)
    assert written
    shutil.rmtree(out)
    return replace(used, result=written)


# --------------------------------------------------------------------------------------------------------
# The ways, as commands that write to a new folder
# --------------------------------------------------------------------------------------------------------


def tar(raw: str, out: Path) -> list[str]:
    """Copy the tree into one file."""
    return [shutil.which("tar") or "tar", "cf", str(out / "tree.tar"), "-C", raw, "."]


def ours(raw: str, out: Path, configs: Sequence[str], workers: int) -> list[str]:
    """The command, the card and its figures included."""
    possible = [c for c in configs if c != "captions" or (Path(raw) / "captions").is_dir()]
    options = [f"--config={config}" for config in possible]
    return [
        *(sys.executable, "-m", "processing", "build", raw, str(out / "built")),
        *(*options, f"--workers={workers}"),
    ]


def from_generator(raw: str, out: Path) -> list[str]:
    """`Dataset.from_generator`, then Parquet with the pictures embedded."""
    return plain("generator", raw, out)


def plain(way: str, raw: str, out: Path, *options: str) -> list[str]:
    """A way of `benchmarks/plain.py`."""
    return [sys.executable, "-P", str(PLAIN), way, raw, str(out), f"--workers={WORKERS}", *options]


if __name__ == "__main__":
    command(__doc__, {"build": tables})
