"""The settings that the README recommends mix categories nearly as well as a perfect shuffle."""

import math
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import PROJECT

import ImageNet3D
from ImageNet3D import RawTree
from processing.build.plan import plan_shards

sys.path.insert(0, str(PROJECT / "benchmarks"))

from mixing import (
    RECOMMENDED,
    RESUMABLE,
    SETTINGS,
    Setting,
    entropy,
    epoch_order,
    major_version,
    measure,
    measure_with,
    stream,
    survey_of_realistic_size,
    write_names,
)

TARGET = 0.97


def test_recommended_settings_on_a_release_of_real_size() -> None:
    recommended = RECOMMENDED[major_version()]
    found = measure([recommended, RESUMABLE])
    assert found[f"{recommended}: 1 reader: rows"] >= TARGET
    assert found[f"{recommended}: 4 readers: rows"] >= TARGET
    assert found[f"{RESUMABLE}: 4 readers: pictures"] >= TARGET
    assert found[f"{RESUMABLE}: 1 reader: rows"] < TARGET, "else nobody needs a buffer"


def test_recommended_settings_of_the_oldest_version(datasets3_python: Path) -> None:
    (version, found), *more = measure_with(str(datasets3_python)).items()
    assert (version, more) == ("3.6.0", [])
    assert found[f"{RECOMMENDED[3]}: 1 reader: rows"] >= TARGET
    assert found[f"{RECOMMENDED[3]}: 4 readers: rows"] >= TARGET
    assert found[f"{RESUMABLE}: 4 readers: pictures"] >= TARGET


def test_the_release_is_of_real_size() -> None:
    survey, objects = survey_of_realistic_size()
    assert sum(objects.values()) == pytest.approx(86_000, rel=0.02)
    sizes = Counter(name.partition("/")[0] for name in objects)
    assert len(sizes) == len(ImageNet3D.CATEGORIES)
    assert 10 < max(sizes.values()) / min(sizes.values()) < 60
    train = [shard for shard in plan_shards(survey, 48 * 10**6) if shard.split == "train"]
    assert len(train) == 64


# With several shards in its buffer, a reader that has read all waits for 5 s: one of each kind will do.
WAITING = [Setting(buffer=1000, inputs=10, row_groups=row_groups) for row_groups in (False, True)]
OTHERS = [setting for setting in SETTINGS[major_version()] if (setting.inputs or 1) == 1]


@pytest.mark.parametrize(
    ("setting", "readers"),
    [(setting, readers) for setting in OTHERS for readers in (1, 2)]
    + [(setting, 2) for setting in WAITING if setting in SETTINGS[major_version()]],
    ids=str,
)
def test_names_stream_as_pictures_do(
    sample_folder: Path, built_sample: Path, tmp_path: Path, setting: Setting, readers: int
) -> None:
    """What is measured on shards of names is what a built folder with its pictures gives."""
    written = pq.read_table(built_sample / "pose", columns=["image_id"])["image_id"].to_pylist()
    survey = ImageNet3D.survey(RawTree(str(sample_folder)))
    write_names(plan_shards(survey, 200_000), Counter(written), tmp_path)
    with ThreadPoolExecutor(2) as both:
        names, pictures = both.map(
            lambda folder: list(stream(folder, setting, readers)), (tmp_path, built_sample / "pose")
        )
    assert names == pictures
    train = pq.read_table(sorted((built_sample / "pose").glob("train-*")), columns=["image_id"])
    assert Counter(names) == Counter(train["image_id"].to_pylist())


def test_every_file_once_in_an_epoch_and_kinds_alternate() -> None:
    files = [f"train-{i:05d}-of-00096-{'known' if i % 3 == 0 else 'unknown'}.parquet" for i in range(96)]
    orders = [epoch_order(files, epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == files
        for start in range(0, 96, 4):
            assert 1 <= sum(name.endswith("-known.parquet") for name in order[start : start + 4]) <= 2
    assert orders[0] != orders[1] != orders[2]


def test_entropy() -> None:
    assert entropy(["bed/a"] * 256) == 0
    assert entropy([f"{category}/a" for category in ("bed", "bus", "car", "cup")] * 64) == pytest.approx(
        math.log(4)
    )
