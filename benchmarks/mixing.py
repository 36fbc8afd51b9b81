"""How well a training job's batches mix the categories, against a perfect shuffle.

    python benchmarks/mixing.py [--datasets3 PYTHON] [--json FILE]

plans a release of realistic size with the real planner, writes its train split with nothing in it but names,
in the very shards and row groups of the plan, and streams it with `datasets` itself: the installed one, and
that of another interpreter (3.6). A figure is the entropy of the categories in windows of 256 successive
samples over that of a perfect shuffle. A perfect shuffle "of rows" sends the objects of a picture all over
the epoch; one "of pictures" leaves them side by side, as the shards have them. Readers are DataLoader workers
or nodes, whose batches of 64 take turns.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node
from tabulate import tabulate

from ImageNet3D import CATEGORIES, Entry, Release, Survey, in_order
from processing.build import DEFAULT_SHARD_SIZE
from processing.build.plan import Shard, parsed_size, plan_shards

if TYPE_CHECKING:
    from benchmarks import measuring

WINDOW = 256  # samples
BATCH = 64  # samples that one reader gives at a time
READERS = (1, 4)
PROJECT = Path(__file__).parents[1]
OLDEST = PROJECT / ".venv-datasets3" / "bin" / "python"
HEAD = ("datasets", "setting", "readers", "of a perfect shuffle")

# The release: v1.0 has over 86,000 objects; sizes and objects a picture are those of the sample's 147 real
# pictures. The imbalance is assumed: the largest category has some 20 times the objects of the smallest.
OBJECTS = 86_000
OBJECTS_A_PICTURE = {1: 0.62, 2: 0.19, 3: 0.19}  # shares; all of one category
PICTURE_BYTES = 111_000
IMBALANCE = 0.6  # standard deviation of the logarithm of a category's size
TRAIN = 0.5  # of the pictures; fewer shards mix worse, so this is on the safe side


@dataclass(frozen=True)
class Setting:
    """How an epoch of train is streamed.

    Attributes:
        order: of the files: "new", drawn for the epoch with the two kinds alternating as they were built, as
            `docs/training.md` does; "set_epoch", drawn by `datasets` (from 4.8 on) regardless of kinds.
        buffer: of `shuffle`, rows, which draws the order of the files too; None without it.
        inputs: shards that fill the buffer at a time (datasets 5).
        row_groups: whether `reshard` makes each row group a shard (datasets 5).
    """

    order: str = ""
    buffer: int | None = None
    inputs: int | None = None
    row_groups: bool = False

    def __str__(self) -> str:
        if self.buffer is None:
            return {"new": "alternating files, no buffer", "set_epoch": "set_epoch, no buffer"}[self.order]
        inputs = "" if self.inputs is None else f", max_buffer_input_shards={self.inputs}"
        return f"{'reshard, ' * self.row_groups}shuffle(buffer_size={self.buffer}{inputs})"


# What the README recommends: for any number of readers, and for at least four, which resumes exactly.
RECOMMENDED = {3: Setting(buffer=2000), 5: Setting(buffer=2000, inputs=10)}
RESUMABLE = Setting("new")

SETTINGS = {
    3: (RESUMABLE, Setting(buffer=1000), Setting(buffer=2000)),
    5: (
        RESUMABLE,
        Setting("set_epoch"),
        Setting(buffer=1000, inputs=1),
        Setting(buffer=1000, inputs=10),
        Setting(buffer=2000, inputs=10),
        Setting(buffer=1000, inputs=10, row_groups=True),
    ),
}


def survey_of_realistic_size(scale: float = 1, seed: int = 0) -> tuple[Survey, dict[str, int]]:
    """A survey by name and size alone, and image id -> objects.

    Args:
        scale: of the number of objects.
    """
    generator = np.random.default_rng(seed)
    weights = generator.lognormal(0, IMBALANCE, len(CATEGORIES))
    numbers, shares = list(OBJECTS_A_PICTURE), list(OBJECTS_A_PICTURE.values())
    pictures = scale * OBJECTS / np.dot(numbers, shares) * weights / weights.sum()
    objects: dict[str, int] = {}
    listed: dict[str, list[Entry]] = {"train": [], "validation": []}
    for category, expected in zip(CATEGORIES, pictures, strict=True):
        for number in range(max(2, round(expected))):
            split = "train" if generator.random() < TRAIN else "validation"
            size = int(PICTURE_BYTES * generator.lognormal(-0.125, 0.5))
            entry = Entry(f"{category}/n{number:05d}", split, size)
            listed[split].append(entry)
            objects[entry.image_id] = int(generator.choice(numbers, p=shares))
    entries = {split: tuple(in_order(named, split, seed)) for split, named in listed.items()}
    return Survey(Release(None, frozenset(), {}), entries, (), (), "", False), objects  # type: ignore[arg-type]


def write_names(shards: Iterable[Shard], objects: Mapping[str, int], folder: Path) -> None:
    """Write the shards of train with nothing in them but the image id of every object."""
    for shard in shards:
        if shard.split != "train":
            continue
        with pq.ParquetWriter(folder / f"{shard.name}.parquet", _SCHEMA) as file:
            for group in shard.row_groups:
                ids = [e.image_id for e in group for _ in range(objects[e.image_id])]
                file.write_table(pa.table({"image_id": ids}, _SCHEMA))


_SCHEMA = pa.schema({"image_id": pa.string()})


def epoch_order(files: Sequence[str], epoch: int) -> list[str]:
    """The files in the order of an epoch: each kind drawn anew, its j-th of n at (j + 1/2) / n."""
    generator = np.random.default_rng(epoch)
    placed = []
    for kind in ("-known.parquet", "-unknown.parquet"):
        own = [file for file in files if file.endswith(kind)]
        placed += [((j + 0.5) / len(own), own[i]) for j, i in enumerate(generator.permutation(len(own)))]
    return [file for _, file in sorted(placed)]


def stream(folder: Path, setting: Setting, readers: int, epoch: int = 1) -> Iterator[str]:
    """The image ids of train, as a DataLoader with so many workers gives them.

    Args:
        folder: with the files of train.
    """
    files = sorted(map(str, folder.glob("train-*.parquet")))
    if setting.order == "new":
        files = epoch_order(files, epoch)
    train = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    train = train.select_columns(["image_id"])
    if setting.row_groups:
        train = train.reshard()
    if setting.buffer is not None:
        inputs = {} if setting.inputs is None else {"max_buffer_input_shards": setting.inputs}
        train = train.shuffle(seed=epoch, buffer_size=setting.buffer, **inputs)
    if setting.order == "set_epoch":
        train.set_epoch(epoch)
    parts = [split_dataset_by_node(train, reader, readers) for reader in range(readers)]
    nothing: list[Any] = []
    for batches in zip_longest(*map(_batches, parts), fillvalue=nothing):
        for batch in batches:
            yield from batch


def _batches(rows: Iterable[Mapping[str, str]]) -> Iterator[list[str]]:
    ids = (row["image_id"] for row in rows)
    while batch := list(islice(ids, BATCH)):
        yield batch


def entropy(ids: Sequence[str]) -> float:
    """The mean entropy, in nats, of the categories in successive windows."""
    numbers: dict[str, int] = {}
    values = np.array([numbers.setdefault(name.partition("/")[0], len(numbers)) for name in ids])
    found = []
    for start in range(0, len(values) - WINDOW + 1, WINDOW):
        counts = np.bincount(values[start : start + WINDOW])
        shares = counts[counts > 0] / WINDOW
        found.append(-(shares * np.log(shares)).sum())
    return float(np.mean(found))


def perfect(ids: Sequence[str], of: str, seed: int = 0) -> float:
    """The entropy of a perfect shuffle "of rows", or "of pictures" with their objects side by side."""
    generator = np.random.default_rng(seed)
    units = Counter(ids) if of == "pictures" else None
    names = list(units or ids)
    drawn = (names[i] for i in generator.permutation(len(names)))
    return entropy([name for name in drawn for _ in range(units[name] if units else 1)])


def mixing(folder: Path, setting: Setting, readers: int, epochs: int = 1) -> dict[str, float]:
    """Entropy over that of a perfect shuffle of rows and of pictures; the mean over epochs."""
    ratios: dict[str, list[float]] = {"rows": [], "pictures": []}
    for epoch in range(1, epochs + 1):
        ids = list(stream(folder, setting, readers, epoch))
        for of, found in ratios.items():
            found.append(entropy(ids) / np.mean([perfect(ids, of, seed) for seed in range(3)]))
    return {of: float(np.mean(found)) for of, found in ratios.items()}


def major_version() -> int:
    """Which of `SETTINGS` the installed `datasets` takes."""
    return 3 if int(datasets.__version__.partition(".")[0]) < 5 else 5


def measure(
    settings: Sequence[Setting] = (), readers: Sequence[int] = READERS, scale: float = 1, epochs: int = 1
) -> dict[str, float]:
    """Mixing with the `datasets` that is installed here.

    Args:
        settings: all of this version where empty.
        scale: of the release's number of objects.
        epochs: to take the mean over.

    Returns:
        "<setting>: <n> readers: rows", or "pictures", -> ratio.
    """
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        survey, objects = survey_of_realistic_size(scale)
        write_names(plan_shards(survey, parsed_size(DEFAULT_SHARD_SIZE)), objects, folder)
        for setting in settings or SETTINGS[major_version()]:
            for count in readers:
                for of, ratio in mixing(folder, setting, count, epochs).items():
                    found[f"{setting}: {count} reader{'s' * (count > 1)}: {of}"] = ratio
    return found


def measure_with(python: str) -> dict[str, Any]:
    """The same with the `datasets` of another interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [python, __file__, "--json", "-"]
    done = subprocess.run(  # noqa: S603 - an interpreter that the user names
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def tables(setting: "measuring.Setting") -> "list[measuring.Table]":
    """Mixing with the newest `datasets` and, where `make test` has set it up, with 3.6."""
    from benchmarks.measuring import Table  # not needed by, nor there for, the other interpreter

    datasets.disable_progress_bars()
    found: dict[str, Any] = {datasets.__version__: measure(scale=0.1 if setting.quick else 1)}
    if OLDEST.exists() and not setting.quick:
        found |= measure_with(str(OLDEST))
    return [Table("mixing", "Entropy of categories in windows of 256 samples", HEAD, _rows(found))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets3", metavar="PYTHON", help="an interpreter with datasets 3.6")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for standard output")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    found: dict[str, Any] = {datasets.__version__: measure()}
    if arguments.datasets3:
        found |= measure_with(arguments.datasets3)
    if arguments.json:
        text = json.dumps(found, indent=1)
        if arguments.json == "-":
            print(text)
            return
        Path(arguments.json).write_text(text, "utf-8")
    print(tabulate(_rows(found), HEAD, floatfmt=".3f"))


def _rows(found: Mapping[str, Mapping[str, float]]) -> list[tuple[Any, ...]]:
    return [
        (version, *name.split(": "), ratio)
        for version, named in found.items()
        for name, ratio in named.items()
    ]


if __name__ == "__main__":
    main()
