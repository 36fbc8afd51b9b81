"""The card's code: it runs as it stands, in Python and SQL, and says what the rest of the project says."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import PROJECT
from support.cards import page, run_blocks, sizes

from ImageNet3D import SPLITS
from processing import geometry
from processing.configs import PUBLISHED_CONFIGS, REFERENCE_TABLES

pytestmark = pytest.mark.slow

# What some blocks need besides the oldest datasets, and how they ask for it.
_FURTHER = {
    "torch": r'^import torch$|with_format\("torch"\)',
    "mlcroissant": "^import mlcroissant$",
    "timm": "^from timm",
    "trimesh": "^import trimesh$",
    "datasets.features.mesh": "import Mesh, ",
}


def code_blocks(folder: Path, package: str = "") -> list[str]:
    """The card's blocks of Python that need a further package or module, or none."""
    blocks = blocks_of(folder, "python")
    for number, block in enumerate(blocks):
        if "DataLoader(train" in block and "train = " not in block:  # it goes on from the one before
            blocks[number] = blocks[number - 1] + block
    needs = [
        next((name for name, asks in _FURTHER.items() if re.search(asks, block, re.MULTILINE)), "")
        for block in blocks
    ]
    return [block for block, needed in zip(blocks, needs, strict=True) if needed == package]


def blocks_of(folder: Path, language: str) -> list[str]:
    text = (folder / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def streams_every_row_once(folder: Path) -> str:
    """The card's lines that stream, and what must hold of what they give."""
    (lines,) = (block for block in blocks_of(folder, "python") if "def mix(" in block)
    count = sum(pq.read_metadata(path).num_rows for path in folder.glob("pose/train-*"))
    return f"""{lines}
rows = list(train)
keys = [(row["image_id"], row["object_index"]) for row in rows]
assert len(keys) == len(set(keys)) == {count}, len(keys)
assert keys != sorted(keys)
assert all(row["image"].size == (row["width"], row["height"]) for row in rows)
"""


class TestCode:
    def test_there_is_an_example_for_every_config(self, built_sample: Path) -> None:
        code = "".join(block for package in ("", *_FURTHER) for block in code_blocks(built_sample, package))
        assert all(f'"ccvl/ImageNet3D", "{config}"' in code for config in PUBLISHED_CONFIGS)

    def test_streams_by_the_lines_of_the_readme(self, built_sample: Path) -> None:
        """Which are those that `benchmarks.streaming` measures."""
        (of_readme,), (of_card,) = (
            [block for block in blocks_of(folder, "python") if "def mix(" in block]
            for folder in (PROJECT, built_sample)
        )
        assert of_card == of_readme

    @pytest.mark.parametrize("split", list(SPLITS))
    def test_names_no_split_that_is_not_there(self, split: str, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_bytes(page(sizes=sizes(splits=(split,))).encode())
        code = "".join(block for package in ("", *_FURTHER) for block in code_blocks(tmp_path, package))
        loaded = re.findall(r'"ccvl/ImageNet3D", "(\w+)"(?:, split="(\w+)")?', code)
        loaded += re.findall(r'"(\w+)/(\w+)-\*"', code) + [
            ("pose", name) for name in re.findall(r'known\["(\w+)', code)
        ]
        whole = {(config, name) for config, name in loaded if name and config not in REFERENCE_TABLES}
        assert {name for _, name in whole} == {split}
        for block in blocks_of(tmp_path, "sql"):
            assert re.search(rf"FROM (?:'hf://.*/)?{split}", block)

    def test_sql_runs_in_duckdb(self, built_sample: Path) -> None:
        duckdb = pytest.importorskip("duckdb")
        console, own = blocks_of(built_sample, "sql")
        duckdb.sql(f"CREATE VIEW train AS FROM '{built_sample}/pose/train-*.parquet'")
        counted = duckdb.sql(console).fetchall()
        shards = built_sample.glob("pose/train-*")
        statuses = [pq.read_table(path)["object_status"].to_pylist() for path in shards]
        assert sum(row[1] for row in counted) == sum(map(len, statuses)) > 0
        assert sum(row[3] for row in counted) == sum(found.count(0) for found in statuses) > 0
        query = own.partition(";")[2].replace("hf://datasets/ccvl/ImageNet3D", str(built_sample))
        assert 0 < len(duckdb.sql(query).fetchall()) <= 10

    def test_its_cameras_are_those_of_the_geometry(self, built_sample: Path) -> None:
        (block,) = (block for block in blocks_of(built_sample, "python") if "def to_opencv" in block)
        names: dict[str, Any] = {}
        exec(block[: block.index("poses = ")].replace("from datasets import load_dataset", ""), names)
        fields = ("azimuth", "elevation", "theta", "distance", "px", "py", "viewport")
        for seed in range(20):
            row = dict(zip(fields, np.random.default_rng(seed).uniform(-7, 7, 7), strict=True))
            row |= {"distance": abs(row["distance"]), "viewport": 3000.0}
            for found, expected in zip(names["to_opencv"](row), geometry.to_opencv(**row), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-12)
            expected = geometry.to_pytorch3d(**row)
            for found, of_geometry in zip(names["to_pytorch3d"](row), expected, strict=False):
                np.testing.assert_allclose(found, of_geometry, atol=1e-12)

    def test_runs_with_the_newest_versions(self, built_sample: Path, tmp_path: Path) -> None:
        """And with the further packages that are there, in one process: to import them takes seconds."""
        packages = ["", *(package for package in _FURTHER if find_spec(package))]
        blocks = [block for package in packages for block in code_blocks(built_sample, package)]
        run_blocks(sys.executable, built_sample, tmp_path, [*blocks, streams_every_row_once(built_sample)])

    def test_runs_with_the_oldest_versions(
        self, datasets3_python: Path, built_sample: Path, tmp_path: Path
    ) -> None:
        blocks = [*code_blocks(built_sample), streams_every_row_once(built_sample)]
        run_blocks(str(datasets3_python), built_sample, tmp_path, blocks)
