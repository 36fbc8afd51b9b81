"""Growth: what a picture costs in time and memory as the release grows.

    python -m benchmarks.growth [--raw RAW] [--quick]

From trees of 1, 10 and 100 thousand pictures, it builds pose, as do `tar` and the `datasets` way of
`benchmarks.build`, and then the three configs of whole pictures, which it verifies where they are not too
many; each is a program from its start to its end. The trees repeat the synthetic one, some 16 KB a picture;
with --raw they repeat that: pictures of 110 KB take 40 GB of disk. Then it surveys and plans a release of
which there are only the names, up to a million pictures: what every command does first, in one process.
"""

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import ImageNet3D
from benchmarks import inputs
from benchmarks.build import WHOLE, from_generator, once, ours, tar
from benchmarks.measuring import Setting, Table, apart, command, whole
from ImageNet3D import CATEGORIES, Listing, RawTree
from processing.build import DEFAULT_SHARD_SIZE
from processing.build.plan import parsed_size, plan_shards

SIZES = (1_000, 10_000, 100_000)
VERIFIED = 10_000  # the largest that is verified too: that decodes every picture
NAMES = (100_000, 1_000_000)
QUICK_SIZES = (60,)
QUICK_NAMES = (1_000,)


def tables(setting: Setting) -> list[Table]:
    """What a picture costs, and what names alone cost."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    sizes, names = (QUICK_SIZES, QUICK_NAMES) if setting.quick else (SIZES, NAMES)
    head = ["pictures", "MB", "way", "s", "time over tar", "ms a picture", "ms of CPU a picture"]
    head.append("MB of a process")
    table = Table("growth", f"Growth, {setting.workers} workers", head)
    for size in sizes:
        table.rows += _grown(raw, size, setting)
    return [table, _names(names)]


def _grown(raw: str, pictures: int, setting: Setting) -> list[list[object]]:
    """Every way, at one size."""
    tree, built = setting.scratch / "tree", setting.scratch / "grown"
    inputs.replicate(raw, tree, pictures, setting.captions)
    size = sum(path.stat().st_size for path in (tree / "images").rglob("*.JPEG")) / 1e6
    raw = str(tree)
    ways = {"tar": tar(raw, built)}
    if not setting.quick:  # in which `benchmarks.build` tries them
        ways["build, pose"] = ours(raw, built, ("pose",), setting.workers)
        ways["datasets"] = from_generator(raw, built)
    found = {name: once(way, built) for name, way in ways.items()}
    found["build, whole pictures"] = whole(ours(raw, built, WHOLE, setting.workers))
    if pictures <= VERIFIED:
        verify = ("-m", "processing", "verify", built / "built", f"--workers={setting.workers}")
        found["verify"] = whole([sys.executable, *verify])
    shutil.rmtree(tree)
    shutil.rmtree(built)
    rows = []
    for way, used in found.items():
        each = [1000 * seconds / pictures for seconds in (used.seconds, used.cpu)]
        over = used.seconds / found["tar"].seconds
        rows.append([pictures, round(size), way, used.seconds, over, *each, round(used.peak / 1e6)])
    return rows


class NamesOnly(RawTree):
    """A release of which there are only the names: pictures of 110 KB, 500 in a list, in made-up categories.

    Args:
        pictures: how many.
        folder: any raw tree.
    """

    def __init__(self, pictures: int, folder: str) -> None:
        super().__init__(folder)
        self._lists: dict[str, list[str]] = {}
        for number in range(pictures):
            category = CATEGORIES[number % len(CATEGORIES)]
            split = "val" if number % 5 == 0 else "train"
            self._lists.setdefault(f"lists/{category}_imagenet_{split}.txt", []).append(
                f"n{number:08d}_{number}"
            )

    def listing(self) -> Listing:
        """As if from a folder: a digest over every name, in order."""
        sizes: dict[str, int] = {}
        for name, stems in self._lists.items():
            category = name.removeprefix("lists/").partition("_imagenet_")[0]
            for stem in stems:
                sizes[f"images/{category}/{stem}.JPEG"] = 110_000
                sizes[f"annotations/{category}/{stem}.npz"] = 2_000
            sizes[name] = sum(map(len, stems)) + len(stems)
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(sizes):
            digest.update(name.encode())
        return Listing(sizes, digest.hexdigest())

    def read(self, name: str, limit: int, too_large: str) -> bytes:
        """A list; there are no captions."""
        if name not in self._lists:
            raise FileNotFoundError(name)
        return "\n".join(self._lists[name]).encode()


def _names(sizes: Sequence[int]) -> Table:
    """Survey and plan of names alone."""
    head = ["pictures", "survey, s", "plan, s", "us a picture", "MB of memory", "bytes a picture", "shards"]
    table = Table("names", "Survey and plan of names alone, one process", head)
    base = apart(survey_and_plan, 1).peak
    for size in sizes:
        used = apart(survey_and_plan, size)
        surveyed, planned, shards = used.result
        each = 1e6 * (surveyed + planned) / size
        row = [size, surveyed, planned, each, round(used.peak / 1e6), (used.peak - base) / size, shards]
        table.rows.append(row)
    return table


def survey_and_plan(pictures: int) -> tuple[float, float, int]:
    """Seconds of the survey and of the plan, and the number of shards."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        tree = NamesOnly(pictures, folder)
        start = time.perf_counter()
        found = ImageNet3D.survey(tree)
        surveyed = time.perf_counter()
        shards = plan_shards(found, parsed_size(DEFAULT_SHARD_SIZE))
        return surveyed - start, time.perf_counter() - surveyed, len(shards)


if __name__ == "__main__":
    command(__doc__, {"growth": tables})
