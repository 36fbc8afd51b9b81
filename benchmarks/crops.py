"""Object-centric crops of 1,000 pictures: the command `crop` against the plain way, both modes.

    python -m benchmarks.crops [--raw RAW] [--quick]

The plain way is that of the authors' script, as `benchmarks/plain.py` has it: it decodes the picture for
every object, resizes all of it with OpenCV, pads and cuts, and writes an npz by `numpy.savez`. Both read the
same unpacked tree with two workers and take turns, each a program from its start to its end, by the clock of
the one who waits for it. The JPEGs have the same size and quality. Nothing is deleted before the end: ext4
searches long for an inode that was not given back just now, half a millisecond a file. Needs the extra
`benchmarks`.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import inputs
from benchmarks.build import PICTURES, plain
from benchmarks.environments import has
from benchmarks.measuring import Setting, Table, Usage, alternate, command, median, ratio, whole

MODES = ("center", "fit")


def tables(setting: Setting) -> list[Table]:
    """Both modes, at the size of `object_centric`."""
    head = (
        "mode",
        "way",
        "time over plain",
        "s",
        "processor time over plain",
        "s of processor time",
        "objects",
    )
    table = Table("crops", f"Crops of 512 pixels, {setting.workers} workers", head)
    if not has("opencv-python-headless"):
        table.notes.append("Not measured: the plain way needs OpenCV (the extra `benchmarks`).")
        return [table]
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures)
    table.title += f", {pictures:,} pictures"
    for mode in MODES:
        table.rows += _rows(mode, measure(raw, mode, setting))
    return [table]


def _rows(mode: str, found: Mapping[str, Sequence[tuple[Usage, int]]]) -> list[Sequence[object]]:
    seconds = {way: [used.seconds for used, _ in results] for way, results in found.items()}
    cpu = {way: [used.cpu for used, _ in results] for way, results in found.items()}
    counts = {objects for results in found.values() for _, objects in results}
    assert len(counts) == 1, f"the ways crop different objects: {counts}"
    return [
        (
            *(mode, way, ratio(seconds[way], seconds["plain"]), median(seconds[way])),
            *(ratio(cpu[way], cpu["plain"]), median(cpu[way]), *counts),
        )
        for way in found
    ]


def measure(raw: str, mode: str, setting: Setting) -> dict[str, list[tuple[Usage, int]]]:
    """What each way took in each round, and how many objects it cropped."""
    ways = {"plain": _plain, "crop": partial(_ours, workers=setting.workers)}
    numbers = count()

    def once(way: str) -> tuple[Usage, int]:
        out = setting.scratch / f"{mode}-{next(numbers)}-{way}"
        used = whole(ways[way](raw, out, mode))
        return used, sum(1 for _ in out.glob("*/annotations/*/*.npz"))

    return alternate({way: partial(once, way) for way in ways}, setting)


def _plain(raw: str, out: Path, mode: str) -> list[str]:
    return plain("crops", raw, out, f"--mode={mode}")


def _ours(raw: str, out: Path, mode: str, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "processing", "crop", raw, str(out)),
        *(f"--mode={mode}", f"--workers={workers}"),
    ]


if __name__ == "__main__":
    command(__doc__, {"crops": tables})
