"""How well a training job's batches mix the categories, against a perfect shuffle.

A release of realistic size is planned by the real planner, and its train split written with nothing in it
but names, categories and one pixel, in the very shards and row groups of the plan; `benchmarks.streaming`
streams it by the lines that README and docs print. A figure is the entropy of the categories in windows of
256 successive samples over that of a perfect shuffle of rows, which sends the objects of a picture all over
the epoch.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from ImageNet3D import CATEGORIES, CATEGORY_IDS, Entry, Release, Survey, in_order
from processing.build import DEFAULT_SHARD_SIZE
from processing.build.plan import Shard, parsed_size, plan_shards

WINDOW = 256  # samples

# The release: v1.0 has over 86,000 objects; sizes and objects a picture are those of the sample's 147 real
# pictures. The imbalance is assumed: the largest category has some 20 times the objects of the smallest.
OBJECTS = 86_000
OBJECTS_A_PICTURE = {1: 0.62, 2: 0.19, 3: 0.19}  # shares; all of one category
PICTURE_BYTES = 111_000
IMBALANCE = 0.6  # standard deviation of the logarithm of a category's size
TRAIN = 0.5  # of the pictures; fewer shards mix worse, so this is on the safe side

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "image_id": datasets.Value("string"),
        "category": datasets.ClassLabel(names=list(CATEGORIES)),
    }
)
CARD = """---
configs:
- config_name: pose
  data_files: [{split: train, path: pose/train-*.parquet}]
---
"""


def write_release(folder: Path, scale: float = 1) -> list[str]:
    """Write what `load_dataset(folder, "pose")` takes; the files of train.

    Args:
        scale: of the release's number of objects.
    """
    survey, objects = survey_of_realistic_size(scale)
    (folder / "pose").mkdir(parents=True)
    (folder / "README.md").write_text(CARD, "utf-8")
    shards = [s for s in plan_shards(survey, parsed_size(DEFAULT_SHARD_SIZE)) if s.split == "train"]
    write_names(shards, objects, folder / "pose")
    return sorted(map(str, (folder / "pose").glob("*.parquet")))


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
    """Write shards with nothing in them but the image id and category of every object, and a pixel."""
    PIL.Image.new("RGB", (1, 1)).save(pixel := io.BytesIO(), "JPEG")
    image = {"bytes": pixel.getvalue(), "path": None}
    for shard in shards:
        with pq.ParquetWriter(folder / f"{shard.name}.parquet", FEATURES.arrow_schema) as file:
            for group in shard.row_groups:
                ids = [e.image_id for e in group for _ in range(objects[e.image_id])]
                categories = [CATEGORY_IDS[image_id.partition("/")[0]] for image_id in ids]
                rows = {"image": [image] * len(ids), "image_id": ids, "category": categories}
                file.write_table(pa.table(rows, FEATURES.arrow_schema))


def mixing(ids: Sequence[str]) -> float:
    """The entropy of an epoch's windows over that of a perfect shuffle of its rows; the mean of three."""
    shuffles = [np.random.default_rng(seed).permutation(ids) for seed in range(3)]
    return entropy(ids) / float(np.mean([entropy(shuffled) for shuffled in shuffles]))


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
